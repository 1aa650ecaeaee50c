"""PNG, JPEG and BMP."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.ImagePalette import ImagePalette
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from .header import Stored
from .orientation import TAG, UPRIGHT, known_orientation

PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # colour type: grey, RGB, grey and alpha, RGBA
PNG_PALETTE = 3
PNG_HEADER = struct.Struct(">16x II BB")  # signature and chunk head, width, height, bit depth, colour type
PNG_HEAD = 2**16  # bytes before the pixels that may hold EXIF data
EXIF = (b"eXIf", b"Raw profile type exif")  # names of their chunks


@contextmanager
def open_png(path: Path) -> Iterator[Stored]:
    """Open a PNG file: 1 to 16 bits exactly (Pillow would cut 16-bit colours to 8), palettes as indices."""
    with path.open("rb") as file:
        head = file.read(PNG_HEAD)
    width, height, depth, colour = PNG_HEADER.unpack_from(head)
    if colour == PNG_PALETTE:
        with PngImageFile(path) as image:
            yield _from_pillow(image)
        return
    channels = PNG_CHANNELS[colour]
    shape = (height, width, channels)[: 3 if channels > 1 else 2]

    def decode() -> NDArray:
        # The decoder adds a channel for a transparent colour, and stretches 1, 2 and 4 bits to 0..255.
        array = imagecodecs.png_decode(path.read_bytes()).reshape(height, width, -1)[..., :channels].reshape(shape)
        return array.astype(bool) if depth == 1 else array // (255 // (2**depth - 1)) if depth < 8 else array

    dtype = np.dtype(bool if depth == 1 else np.uint16 if depth == 16 else np.uint8)
    axes, turned = "YXS"[: len(shape)], _png_orientation(path, head)
    yield Stored(shape, axes, dtype, decode, fixed_axes=True, alpha=colour in (4, 6), orientation=turned)


@contextmanager
def open_jpeg(path: Path) -> Iterator[Stored]:
    """Open a JPEG file: pixels as stored."""
    with JpegImageFile(path) as image:
        yield _from_pillow(image, lossy=True)


@contextmanager
def open_bmp(path: Path) -> Iterator[Stored]:
    """Open a BMP file."""
    with BmpImageFile(path) as image:
        yield _from_pillow(image)


def _from_pillow(image: ImageFile, *, lossy: bool = False) -> Stored:
    """Describe an image that Pillow opened by its own class: ``PIL.Image.open`` has a global limit of its own."""
    bands = len(image.getbands())
    shape = (image.height, image.width, bands)[: 3 if bands > 1 else 2]
    return Stored(
        shape=shape,
        axes="YXS"[: len(shape)],
        dtype=np.dtype(bool if image.mode == "1" else np.uint8),
        decode=lambda: np.asarray(image),
        fixed_axes=True,
        palette=_palette(image.palette) if image.palette else None,
        alpha=image.mode in ("LA", "RGBA"),
        cmyk=image.mode == "CMYK",
        lossy=lossy,
        orientation=_orientation(image),
    )


def _png_orientation(path: Path, head: bytes) -> int:
    """EXIF orientation of a PNG file, which Pillow may refuse for chunks that do not concern the pixels."""
    if not any(name in head for name in EXIF):
        return UPRIGHT
    try:
        with PngImageFile(path) as image:
            return _orientation(image)
    except Exception:  # noqa: BLE001 - anything; the decoder says what is wrong with the pixels
        return UPRIGHT


def _orientation(image: ImageFile) -> int:
    """EXIF orientation in the header of a file."""
    # Pillow decodes a whole PNG image, before its size is checked, to look for EXIF data behind the pixels.
    if isinstance(image, PngImageFile) and not {"exif", "Raw profile type exif"} & image.info.keys():
        return UPRIGHT
    try:
        return known_orientation(image.getexif().get(TAG))
    except Exception:  # noqa: BLE001 - damaged EXIF data raise anything, and do not concern the pixels
        return UPRIGHT


def _palette(palette: ImagePalette) -> NDArray[np.uint8]:
    """(3, 256) colours from the header; Pillow's ``getpalette`` would decode the image."""
    order, colours = palette.getdata()
    table = np.zeros((3, 256), np.uint8)
    for row, letter in zip(table, "RGB", strict=True):
        values = np.frombuffer(colours, np.uint8)[order.index(letter) :: len(order)]
        row[: len(values)] = values
    return table
