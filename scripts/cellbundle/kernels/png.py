"""Runs of pixels in the rows of PNG images, which are stored as differences from their neighbours."""

import numpy as np

from .compile import kernel
from .masks import FIRST_RUNS, add_runs, next_inside

NONE, SUB, UP, AVERAGE, PAETH = range(5)  # types of filters, in front of each row


@kernel
def _paeth(left: np.int64, above: np.int64, corner: np.int64) -> np.int64:
    """The neighbour that is nearest to left + above - corner."""
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    if to_left <= to_above and to_left <= to_corner:
        return left
    return above if to_above <= to_corner else corner


@kernel
def _unfilter(row: np.ndarray, above: np.ndarray, kind: int) -> None:
    """Take the filter from a row, in place."""
    left, corner = np.int64(0), np.int64(0)
    for x in range(len(row)):
        up = np.int64(above[x])
        value = np.int64(row[x])
        if kind == SUB:
            value += left
        elif kind == UP:
            value += up
        elif kind == AVERAGE:
            value += (left + up) >> 1
        elif kind == PAETH:
            value += _paeth(left, up, corner)
        left, corner = value & 255, up
        row[x] = np.uint8(left)


@kernel
def png_runs(data: np.ndarray, height: int, width: int) -> tuple[bool, np.ndarray]:
    """Find the runs of pixels that are not 0 in an image of one byte a pixel.

    Args:
        data: (height * (width + 1),) uint8, each row behind the type of its filter; the filters are taken off.
        height: of the image.
        width: of the image.

    Returns:
        Whether all filters are known, and (R, 2) int64 start and length in the flat image, row by row.

    Source: PNG specification, section 9 (https://www.w3.org/TR/png-3/#9Filters). A filtered row of zeros below a row of
    zeros is one of zeros whatever its filter, which is most of a mask.
    """
    n = 0
    runs = np.empty((FIRST_RUNS, 2), np.int64)
    above = np.zeros(width, np.uint8)
    blank_above = True
    for y in range(height):
        kind = data[y * (width + 1)]
        row = data[y * (width + 1) + 1 : (y + 1) * (width + 1)]
        if kind > PAETH:
            return False, runs[:0]
        if not (blank_above and next_inside(row, 0) == width):
            _unfilter(row, above, kind)
            before = n
            runs, n = add_runs(row, y * width, runs, n)
            blank_above = n == before
        above = row
    return True, runs[:n].copy()
