"""Instances of a label map that are regions with cells in them, such as annotations drawn around a group of cells."""

import numpy as np
from numpy.typing import NDArray

from ..kernels.geometry import boxes_and_areas

MIN_INSIDE = 3  # other instances in a region; a cell may hold a nucleus or two
INSIDE = 0.9  # fraction of the pixels of an instance that lie in a region
BACKGROUND = 0.5  # fraction of the pixels of an image, above which an instance among others is its background
LARGE = 4  # times the median area of the boxes of instances


def find_regions(labels: NDArray[np.int32], n: int) -> list[int]:
    """Find instances that surround several others or cover most of the image.

    Args:
        labels: (H, W) int32, ids 1..n, 0 background.
        n: number of instances.

    Returns:
        Their ids.
    """
    if n <= MIN_INSIDE:
        return []
    boxes, areas = boxes_and_areas(labels, n)
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    large = np.flatnonzero((sizes > LARGE * np.median(sizes)) | (areas > BACKGROUND * labels.size))
    return [
        int(i) + 1
        for i in large
        if areas[i] > BACKGROUND * labels.size or _n_inside(labels, int(i), boxes, areas) >= MIN_INSIDE
    ]


def _n_inside(labels: NDArray[np.int32], i: int, boxes: NDArray[np.int64], areas: NDArray[np.int64]) -> int:
    """Number of instances in the outline of instance i + 1."""
    y0, x0, y1, x1 = boxes[i].tolist()
    around = (boxes[:, :2] >= boxes[i, :2]).all(axis=1) & (boxes[:, 2:] <= boxes[i, 2:]).all(axis=1)
    if np.count_nonzero(around) <= MIN_INSIDE:  # itself is one
        return 0
    crop = labels[y0:y1, x0:x1]
    own = crop == i + 1
    height, width = labels.shape
    between = np.ones_like(own)
    # Own pixels on all four sides; where the region ends at the edge of the image, it may go on behind it.
    for axis, starts, ends in ((0, y0 == 0, y1 == height), (1, x0 == 0, x1 == width)):
        before = np.logical_or.accumulate(own, axis=axis)
        behind = np.flip(np.logical_or.accumulate(np.flip(own, axis), axis=axis), axis)
        between &= (before | starts) & (behind | ends)
    inside = np.bincount(crop[between & ~own], minlength=len(areas) + 1)[1:]
    return int(np.count_nonzero((inside > 0) & (inside >= INSIDE * areas)))
