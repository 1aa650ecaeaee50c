"""A cell logit to instances: exact maps by hand, and discs that touch."""

import numpy as np
import pytest

from cellbundle.decode.binary import decode_binary
from cellbundle.errors import ArrayError, ConfigError
from cellbundle.metrics import image_scores


def logits(*rows):
    """(1, H, W) float32: 4 for #, -4 for a dot."""
    return np.array([[[4.0 if c == "#" else -4.0 for c in row] for row in rows]], np.float32)


def discs(shape, *centres_and_radii):
    """Label map (H, W) of discs, the nearer centre first where they overlap."""
    y, x = np.indices(shape)
    depths = np.array([radius - np.hypot(y - cy, x - cx) for cy, cx, radius in centres_and_radii])
    return np.where(depths.max(0) > 0, depths.argmax(0) + 1, 0).astype(np.int32)


def of(labels):
    return np.where(labels > 0, 3.0, -3.0).astype(np.float32)[None]


def test_components_touch_in_corners_too():
    labels = decode_binary(logits("##...#", "##...#", "..#...", "......", "#....."), min_size=0)
    assert labels.dtype == np.int32
    assert labels.tolist() == [[1, 1, 0, 0, 0, 2], [1, 1, 0, 0, 0, 2], [0, 0, 1, 0, 0, 0], [0] * 6, [3, 0, 0, 0, 0, 0]]


def test_small_ones_are_dropped_and_holes_filled():
    labels = decode_binary(logits("###.#", "#.#..", "###.."), min_size=8)
    assert labels.tolist() == [[1, 1, 1, 0, 0]] * 3
    assert decode_binary(logits("###.#", "#.#..", "###.."), min_size=9).max() == 0


def test_threshold_is_a_probability():
    prediction = np.array([[[-1.5, -1.3, 0.0, 1.3, 1.5]]], np.float32)  # probabilities .18, .21, .5, .79, .82
    found = {t: (decode_binary(prediction, threshold=t, min_size=0) > 0)[0].tolist() for t in (0.2, 0.5, 0.8)}
    assert found == {0.2: [0, 1, 1, 1, 1], 0.5: [0, 0, 0, 1, 1], 0.8: [0, 0, 0, 0, 1]}


def test_nothing_gives_nothing():
    for split in (False, True):
        assert decode_binary(np.full((1, 7, 9), -5, np.float32), split=split).tolist() == [[0] * 9] * 7


def test_the_watershed_separates_discs_that_touch():
    true = discs((60, 90), (30, 25, 16), (30, 53, 14), (12, 80, 8))
    assert decode_binary(of(true)).max() == 2
    cut = decode_binary(of(true), split=True)
    assert image_scores(true, cut)["ap90"] == 1
    assert ((cut > 0) == (true > 0)).all()


def test_a_component_without_a_peak_of_its_own_stays_whole():
    """The peak of the large disc suppresses that of its small neighbour."""
    true = discs((40, 50), (20, 18, 14), (20, 36, 3))
    assert (true == 2).sum() >= 20
    cut = decode_binary(of(true), split=True, min_distance=30, min_size=0)
    np.testing.assert_array_equal(cut, true)


def test_a_cell_is_not_cut_at_the_edge_of_the_image():
    true = discs((40, 40), (0, 20, 15))
    assert decode_binary(of(true), split=True).max() == 1


def test_larger_distances_and_smoothing_cut_less():
    waist = discs((40, 80), (20, 28, 14), (20, 50, 14))
    assert [decode_binary(of(waist), split=True, min_distance=d).max() for d in (5, 40)] == [2, 1]
    assert decode_binary(of(waist), split=True, smoothing=15.0).max() == 1


@pytest.mark.parametrize("threshold", [0, 1, 50])
def test_a_threshold_that_is_no_probability(threshold):
    with pytest.raises(ConfigError, match=f"threshold.* {threshold}, .* 0 and 1"):
        decode_binary(logits("#"), threshold=threshold)


@pytest.mark.parametrize(("shape", "dtype"), [((3, 8, 9), "f4"), ((8, 9), "f4"), ((1, 8, 9), "i4")])
def test_bad_predictions_are_refused(shape, dtype):
    with pytest.raises(ArrayError, match=r"\(1, H, W\) floating point"):
        decode_binary(np.zeros(shape, dtype))
