"""Overlapping masks without scores: the smaller one is on top."""

import numpy as np
import pytest

from cellbundle.errors import ArrayError
from cellbundle.instances.overlaps import masks_to_labels, rles_to_labels

from .overlapping import CROP, LEFT, MIDDLE, assert_equal, drawn, plain_loop, stack


@pytest.mark.parametrize(
    ("masks", "labels", "kept"),
    [
        ([LEFT, [[0, 1, 1, 0, 0]]], [2, 1, 1, 0, 0], [1, 0]),  # the id 1 is that of the smallest
        ([[[0, 1, 1, 0, 0]], LEFT], [2, 1, 1, 0, 0], [0, 1]),
        ([LEFT, MIDDLE], [1, 1, 1, 2, 0], [0, 1]),  # of equal sizes the earlier one
        ([[[0, 0, 0, 0, 0]], LEFT, [[1, 1, 1, 1, 0]]], [1, 1, 1, 2, 0], [1, 2]),
        ([LEFT, LEFT], [1, 1, 1, 0, 0], [0]),
    ],
)
def test_without_scores_the_smaller_mask_is_better(masks, labels, kept):
    assert_equal(masks_to_labels(stack(*masks), None), ([labels], kept))
    assert_equal(masks_to_labels((np.array(mask) for mask in masks), None, (1, 5)), ([labels], kept))
    assert_equal(masks_to_labels(stack(*masks), None, (1, 5), [(0, 0, 1, 5)] * len(masks)), ([labels], kept))
    counts = [" ".join(f"{x + 1} 1" for x in np.flatnonzero(mask)) for mask in masks]
    assert_equal(rles_to_labels(counts, None, (1, 5), "kaggle_rows"), ([labels], kept))
    assert_equal(rles_to_labels(iter(counts), None, (1, 5), "kaggle"), ([labels], kept))


@pytest.mark.parametrize("seed", range(4))
def test_without_scores_every_form_gives_what_a_plain_loop_gives(seed):
    shape = ((23, 17), (64, 64))[seed % 2]
    crops, boxes, _, masks = drawn((0, 7, 40, 25)[seed], shape, seed)
    rules = {"min_size": (1, 5)[seed % 2], "max_overlap": (1.0, 0.5)[seed // 2]}
    expected = plain_loop(masks, -masks.sum(axis=(1, 2)), **rules)
    rles = [" ".join(f"{i + 1} 1" for i in np.flatnonzero(mask)) for mask in masks]
    assert_equal(masks_to_labels(masks, None, **rules), expected)
    assert_equal(masks_to_labels(masks.astype(np.int64), None, **rules), expected)
    assert_equal(masks_to_labels(iter(masks), None, shape, **rules), expected)
    assert_equal(masks_to_labels(iter(crops), None, shape, boxes, **rules), expected)
    assert_equal(rles_to_labels(rles, None, shape, "kaggle_rows", **rules), expected)


def test_without_scores_only_pixels_inside_of_the_image_count():
    crops, boxes = [np.ones((1, 5)), np.ones((1, 2))], [(0, -4, 1, 1), (0, 0, 1, 2)]
    assert_equal(masks_to_labels([crop > 0 for crop in crops], None, (1, 3), boxes), ([[1, 2, 0]], [0, 1]))


@pytest.mark.parametrize("n", [1, 3])
def test_without_scores_there_must_be_a_box_for_each_mask(n):
    with pytest.raises(ArrayError, match=f"{n} boxes.*(more|2) masks"):
        masks_to_labels([CROP, CROP], None, (9, 9), [(0, 0, 2, 3)] * n)
    with pytest.raises(ArrayError, match=r"boxes.*\(1, 4\).*\(1, 3\)"):
        masks_to_labels([CROP], None, (9, 9), [(0, 0, 2)])
