"""Rows of PNG images without their filters."""

import numpy as np

from .compile import kernel
from .masks import next_inside

NONE, SUB, UP, AVERAGE, PAETH = range(5)  # types of filters, in front of each row


@kernel
def _paeth(left: np.int64, above: np.int64, corner: np.int64) -> np.int64:
    """The neighbour that is nearest to left + above - corner."""
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    if to_left <= to_above and to_left <= to_corner:
        return left
    return above if to_above <= to_corner else corner


@kernel
def unfilter(data: np.ndarray, height: int, width: int, step: int) -> bool:
    """Take the filters from the rows of an image, in place.

    Args:
        data: (height * (width + 1),) uint8, each row behind the type of its filter; the first height * width bytes are
            the image afterwards.
        height: of the image.
        width: of the image in bytes.
        step: bytes of a pixel.

    Returns:
        Whether all filters are known; if not, the data are of no use.

    Source: PNG specification, section 9 (https://www.w3.org/TR/png-3/#9Filters). A filtered row of zeros below a row of
    zeros is one of zeros whatever its filter, which is most of a mask.
    """
    blank_above = True
    for y in range(height):
        source = data[y * (width + 1) : (y + 1) * (width + 1)]
        row = data[y * width : (y + 1) * width]  # begins before the source, so nothing is lost
        kind = source[0]
        if kind > PAETH:
            return False
        if blank_above and next_inside(source, 1) == width + 1:
            for x in range(width):
                row[x] = 0
            continue
        above = data[(y - 1) * width : y * width] if y > 0 else data[:0]
        for x in range(width):
            value = np.int64(source[x + 1])
            left = np.int64(row[x - step]) if x >= step else np.int64(0)
            up = np.int64(above[x]) if y > 0 else np.int64(0)
            corner = np.int64(above[x - step]) if y > 0 and x >= step else np.int64(0)
            if kind == SUB:
                value += left
            elif kind == UP:
                value += up
            elif kind == AVERAGE:
                value += (left + up) >> 1
            elif kind == PAETH:
                value += _paeth(left, up, corner)
            row[x] = np.uint8(value & 255)
        blank_above = next_inside(row, 0) == width
    return True
