"""Detections on their boxes: checks, order, label maps, COCO's run lengths."""

import numpy as np
import pytest

from cellbundle.errors import ArrayError, ConfigError
from cellbundle.instances.detections import Detections, mask_rles, tighten, to_labels


def detections(crops, corners, scores, shape, classes=None):
    """From 0/1 lists and their top left corners."""
    masks = [np.array(crop, bool) for crop in crops]
    boxes = [(y, x, y + len(mask), x + mask.shape[1]) for mask, (y, x) in zip(masks, corners, strict=True)]
    classes = np.ones(len(masks), np.int64) if classes is None else np.array(classes, np.int64)
    return Detections(masks, np.array(boxes, np.int64).reshape(-1, 4), np.array(scores, np.float32), classes, shape)


def drawn(n, shape, seed):
    """Random masks that overlap, on tight boxes, and the same as an (N, H, W) stack in the order of the scores."""
    rng = np.random.default_rng(seed)
    crops, corners = [], []
    while len(crops) < n:
        height, width = (int(rng.integers(1, side + 1)) for side in shape)
        y, x = int(rng.integers(0, shape[0] - height + 1)), int(rng.integers(0, shape[1] - width + 1))
        found = tighten(rng.random((height, width)) < 0.8, y, x)
        if found is not None:
            crops.append(found[0])
            corners.append(found[1][:2])
    made = detections(crops, corners, rng.integers(0, 5, n) / 4, shape)
    stack = np.zeros((n, *shape), bool)
    for whole, mask, (y0, x0, y1, x1) in zip(stack, made.masks, made.boxes_yxyx, strict=True):
        whole[y0:y1, x0:x1] = mask
    return made, stack


def test_the_best_comes_first_and_equal_ones_keep_their_order():
    made = detections([[[1]], [[1, 1]], [[1], [1]]], [(0, 0), (1, 1), (2, 2)], [0.5, 0.9, 0.5], (4, 4), [1, 2, 3])
    assert made.classes.tolist() == [2, 1, 3]
    assert made.scores.tolist() == pytest.approx([0.9, 0.5, 0.5])
    assert [mask.shape for mask in made.masks] == [(1, 2), (1, 1), (2, 1)]
    assert made.boxes_yxyx.tolist() == [[1, 1, 2, 3], [0, 0, 1, 1], [2, 2, 4, 3]]
    assert len(made) == 3


@pytest.mark.parametrize("which", [[2, 0], np.array([True, False, True]), slice(None, None, 2), np.array([0, 2])])
def test_some_of_them(which):
    made = detections([[[1]], [[1, 1]], [[1], [1]]], [(0, 0), (1, 1), (2, 2)], [0.9, 0.5, 0.1], (4, 5), [4, 5, 6])
    some = made.select(which)
    assert some.classes.tolist() == [4, 6]
    assert [mask.shape for mask in some.masks] == [(1, 1), (2, 1)]
    assert some.shape == (4, 5)
    assert len(made.select([])) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes_yxyx": np.zeros((2, 4), np.int64)}, r"boxes.*\(1, 4\) int64.* 1 masks.*\(2, 4\)"),
        ({"boxes_yxyx": np.zeros((1, 4))}, "boxes.*int64.*float64"),
        ({"scores": np.ones(1)}, r"scores.*\(1,\) float32.*float64"),
        ({"scores": np.array([np.nan], np.float32)}, "score 0 .*NaN"),
        ({"classes": np.array([0])}, "classes.* 1 .* 0$"),
        ({"masks": [np.ones((2, 2), np.uint8)]}, "mask 0 .*bool.*uint8"),
        ({"masks": [np.ones((2, 3), bool)]}, r"mask 0 .*\[1, 1, 3, 3\].*\(2, 3\)"),
        ({"shape": (3, 2)}, r"box 0 .*outside.*\(3, 2\)"),
        ({"masks": [np.array([[0, 1], [0, 1]], bool)]}, "not tight"),
        ({"masks": [np.zeros((0, 2), bool)], "boxes_yxyx": np.array([[1, 1, 1, 3]])}, "not tight"),
        (
            {"masks": [np.ones((1, 1), bool)], "boxes_yxyx": np.array([[-1, 0, 0, 1]])},
            r"box 0 .*\[-1, 0, 0, 1\].*outside",
        ),
    ],
)
def test_what_does_not_fit(change, message):
    given = {
        "masks": [np.ones((2, 2), bool)],
        "boxes_yxyx": np.array([[1, 1, 3, 3]]),
        "scores": np.ones(1, np.float32),
        "classes": np.array([1]),
        "shape": (3, 3),
    }
    Detections(**given)
    with pytest.raises(ArrayError, match=message):
        Detections(**(given | change))


def test_labels_by_hand():
    """The second one loses a pixel to the best; the third is below the score, the fourth too much covered."""
    made = detections(
        [[[1, 1, 1]], [[1, 1, 1]], [[1]], [[1, 1]]], [(0, 0), (0, 2), (1, 0), (0, 1)], [0.9, 0.6, 0.2, 0.5], (2, 6)
    )
    labels, index = to_labels(made, min_score=0.5, max_overlap=0.5, min_size=1)
    assert labels.tolist() == [[1, 1, 1, 2, 2, 0], [0] * 6]
    assert labels.dtype == np.int32
    assert index.tolist() == [0, 1]
    labels, index = to_labels(made, min_score=0.2, max_overlap=1, min_size=1)
    assert labels.tolist() == [[1, 1, 1, 2, 2, 0], [3, 0, 0, 0, 0, 0]]
    assert index.tolist() == [0, 1, 3]
    assert to_labels(made, min_score=0, max_overlap=1, min_size=3)[1].tolist() == [0]
    with pytest.raises(ConfigError, match=r"max_overlap.* 2;"):
        to_labels(made, min_score=0, max_overlap=2, min_size=1)


@pytest.mark.parametrize(
    ("shape", "n"), [((1, 1), 3), ((1, 9), 20), ((9, 1), 20), ((7, 12), 200), ((300, 40), 50), ((4, 4), 0)]
)
def test_run_lengths_are_those_of_pycocotools(shape, n):
    coco = pytest.importorskip("pycocotools.mask")
    made, stack = drawn(n, shape, seed=n)
    texts = mask_rles(made)
    assert texts == [coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode() for mask in stack]
    assert len(texts) == n


def test_run_lengths_of_masks_as_high_as_the_image():
    """A run goes on from one column to the next, also between columns that are not whole."""
    coco = pytest.importorskip("pycocotools.mask")
    for crop in (np.ones((3, 2), bool), np.array([[0, 1], [0, 1], [1, 1]], bool), np.array([[1, 0], [1, 0], [1, 1]])):
        whole = np.zeros((3, 5), np.uint8)
        whole[:, 1:3] = crop
        expected = coco.encode(np.asfortranarray(whole))["counts"].decode()
        assert mask_rles(detections([crop], [(0, 1)], [1], (3, 5))) == [expected]


def test_blank_rows_and_columns_are_cut_off():
    mask = np.zeros((5, 6), bool)
    mask[1, 2] = mask[3, 4] = True
    tight, box = tighten(mask, 10, 20)
    assert tight.tolist() == [[True, False, False], [False, False, False], [False, False, True]]
    assert box == (11, 22, 14, 25)
    assert tighten(np.zeros((2, 2), bool), 0, 0) is None
    assert tighten(np.zeros((0, 2), bool), 0, 0) is None
