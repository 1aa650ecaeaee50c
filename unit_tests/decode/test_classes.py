"""Classes of instances: votes by hand, and a loop over instances as an oracle."""

import numpy as np
import pytest

from cellbundle.decode.classes import class_map, classify_instances
from cellbundle.errors import ArrayError
from cellbundle.synthetic import generate

LABELS = np.array([[1, 1, 1, 0], [2, 2, 0, 3]], np.int32)


def one_hot(classes, n_classes=4):
    """(K, H, W) float32 logits whose best channel is the class of each pixel."""
    return np.stack([np.asarray(classes) == k for k in range(n_classes)]).astype(np.float32)


def test_votes_by_hand():
    logits = one_hot([[2, 2, 3, 1], [3, 3, 1, 1]])
    classes, probabilities = classify_instances(LABELS, logits)
    assert classes.tolist() == [2, 3, 1]
    np.testing.assert_allclose(probabilities, [2 / 3, 1, 1])
    assert classes.dtype == np.int64
    assert probabilities.dtype == np.float32


def test_pixels_of_the_background_vote_for_their_best_class():
    logits = one_hot([[0, 0, 2, 0], [0, 0, 0, 0]]) * 9
    logits[3] += 1
    classes, probabilities = classify_instances(LABELS, logits)
    assert classes.tolist() == [3, 3, 3]
    np.testing.assert_allclose(probabilities, [2 / 3, 1, 1])


def test_the_lowest_of_equal_classes_wins():
    assert classify_instances(LABELS, np.zeros((4, 2, 4), np.float32))[0].tolist() == [1, 1, 1]
    classes, probabilities = classify_instances(LABELS, one_hot([[3, 3, 3, 0], [3, 2, 0, 1]]))
    assert classes.tolist() == [3, 2, 1]
    assert probabilities.tolist() == [1, 0.5, 1]


def test_nan_never_wins():
    logits = one_hot([[2, 2, 3, 1], [3, 3, 1, 1]])
    logits[1] = np.nan
    logits[:, 1, 3] = np.nan
    assert classify_instances(LABELS, logits)[0].tolist() == [2, 3, 1]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_same_as_a_loop_over_instances(dtype):
    labels = generate("he", (64, 80), 12, diameter=14, seed=2)[1]
    logits = np.random.default_rng(0).normal(size=(5, 64, 80)).astype(dtype)
    classes, probabilities = classify_instances(labels, logits)
    assert len(classes) == labels.max() > 5
    for i in range(1, labels.max() + 1):
        counts = np.bincount(logits[1:, labels == i].argmax(0), minlength=4)
        assert classes[i - 1] == counts.argmax() + 1
        assert probabilities[i - 1] == np.float32(counts.max() / counts.sum())
    np.testing.assert_array_equal(
        class_map(labels, classes), np.where(labels > 0, classes[np.maximum(labels, 1) - 1], 0)
    )


def test_an_id_without_pixels_has_no_class():
    classes, probabilities = classify_instances(np.array([[1, 3, 3]]), one_hot([[1, 2, 2]]))
    assert classes.tolist() == [1, 0, 2]
    assert probabilities.tolist() == [1, 0, 1]


def test_no_instances():
    classes, probabilities = classify_instances(np.zeros((3, 4), np.int32), np.zeros((3, 3, 4), np.float32))
    assert classes.shape == probabilities.shape == (0,)
    assert not class_map(np.zeros((3, 4), np.int32), classes).any()


def test_class_map_by_hand():
    found = class_map(LABELS, np.array([3, 1, 2]))
    assert found.tolist() == [[3, 3, 3, 0], [1, 1, 0, 2]]
    assert found.dtype == np.int64


@pytest.mark.parametrize(("shape", "dtype"), [((4, 2, 3), "f4"), ((2, 4), "f4"), ((1, 2, 4), "f4"), ((4, 2, 4), "i4")])
def test_bad_logits_are_refused(shape, dtype):
    with pytest.raises(ArrayError, match=r"logits.*\(K, H, W\) floating point"):
        classify_instances(LABELS, np.zeros(shape, dtype))


def test_missing_classes_are_refused():
    with pytest.raises(ArrayError, match=r"class.* 3 instances.*\(2,\)"):
        class_map(LABELS, np.array([1, 2]))
