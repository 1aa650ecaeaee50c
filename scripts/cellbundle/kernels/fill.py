"""Pixels inside of polygons by a half-open rule, so that polygons with a common edge share no pixel."""

import math

import numpy as np

from .compile import kernel


@kernel
def cross_edges(ring: np.ndarray, crossed: np.ndarray) -> None:
    """Mark where the rows of pixels cross the edges of a ring.

    In each row, the pixels from the first crossing up to, but not including, the second one are inside, and so on:
    a pixel whose centre lies on a left or upper edge is inside, and one on a right or lower edge is not.

    Args:
        ring: (n, 2) float64 corners (x, y), finite; centres of pixels are whole numbers.
        crossed: (h, w) bool, changed in place: a pixel is flipped for each edge that its row crosses in front of its
            centre, or at it, and behind the centre of the pixel on its left.
    """
    height, width = crossed.shape
    for k in range(len(ring)):
        x0, y0 = ring[k - 1]
        x1, y1 = ring[k]
        if y0 > y1:  # downwards, so that two polygons compute the same crossings of their common edge
            x0, y0, x1, y1 = x1, y1, x0, y0
        for y in range(_row(y0, height), _row(y1, height)):
            x = x0 + (x1 - x0) * (y - y0) / (y1 - y0)
            if x <= width - 1:  # false also where coordinates are so large that x is not a number
                column = math.ceil(max(x, 0.0))
                crossed[y, column] = not crossed[y, column]


@kernel
def _row(y: float, height: int) -> int:
    """The first row whose centre is at ``y`` or below, among ``height`` rows."""
    return math.ceil(min(max(y, 0.0), float(height)))
