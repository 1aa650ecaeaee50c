"""What an image file holds, as its header says it: the one form in which every format arrives at the readers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHANNELS = "CS"  # C: channel, S: colour sample of one pixel
CHANNELS_PER_PIXEL = 4  # more channels count as more pixels


@dataclass(frozen=True, eq=False)
class Stored:
    """The header of an open image file, and the way to its pixels.

    Attributes:
        shape: shape that ``decode`` will return; known before decoding, so that limits are checked first.
        axes: a letter for each dimension: Y, X, C channel, S colour sample, Z, T …; Q or I where the file does not say.
        dtype: type of the values in the file (bool for 1-bit images).
        decode: reads the pixels; valid as long as the file is open.
        fixed_axes: the format itself fixes the order (PNG, JPEG, BMP), so nobody has to say it.
        pixel_size_um: (y, x) size of a pixel in µm, where the file tells it.
        palette: (3, N) uint8 colour of each value, where the values are indices into a colour table.
        alpha: the last channel is transparency.
        cmyk: the four channels are cyan, magenta, yellow and black ink.
        lossy: the compression changes values.
        no_data: value that the file says to stand for no data, or None.
        orientation: of EXIF; 1 if the file says none.
        tile_pixels: size of the pieces that are decoded at once, which a damaged header can make huge.
    """

    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype
    decode: Callable[[], NDArray]
    fixed_axes: bool = False
    pixel_size_um: tuple[float, float] | None = None
    palette: NDArray[np.uint8] | None = None
    alpha: bool = False
    cmyk: bool = False
    lossy: bool = False
    tile_pixels: int = 0
    no_data: float | None = None
    orientation: int = 1


def n_pixels(shape: Sequence[int], axes: str) -> int:
    """Count the pixels of an array for limits; each started group of four channels counts once.

    Args:
        shape: of the array.
        axes: a letter for each dimension.
    """
    sizes = list(zip(axes, shape, strict=True))
    channels = math.prod(size for letter, size in sizes if letter in CHANNELS)
    return math.prod(size for letter, size in sizes if letter not in CHANNELS) * -(-channels // CHANNELS_PER_PIXEL)
