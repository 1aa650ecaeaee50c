"""What an image file holds, as its header says it: the one form in which every format arrives at the readers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
