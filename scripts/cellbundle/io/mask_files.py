"""Masks of single instances, a file each."""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from imagecodecs import ZlibngError, zlibng_decode
from numpy.typing import NDArray

from ..errors import LabelReadError
from ..kernels.png import unfilter
from .read import DEFAULT_MAX_PIXELS, read_image

PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, colour type, compression, filter, interlacing
GREY_8_BITS = (8, 0, 0, 0, 0)
CHUNK = struct.Struct(">I4s")
CHECKSUM_BYTES = 4


def read_masks(paths: Iterable[Path]) -> Iterator[NDArray[np.uint8]]:
    """Read masks one at a time; what is not 0 in any channel is inside.

    Args:
        paths: image files, all of one size.

    Yields:
        (H, W) uint8, 0 outside.

    Raises:
        LabelReadError: if a file cannot be read or is of another size than the first one.
    """
    shape = None
    for path in paths:
        mask = _read_mask(path)
        shape = shape or mask.shape
        if mask.shape != shape:
            sizes = ["x".join(map(str, one)) for one in (mask.shape, shape)]
            raise LabelReadError(f"{path}: the mask is {sizes[0]}, those before it are {sizes[1]}; remove it")
        yield mask


def _read_mask(path: Path) -> NDArray[np.uint8]:
    try:
        mask = _decode_grey_png(path.read_bytes())
    except OSError as error:
        raise LabelReadError(f"{path}: cannot be opened ({error.strerror}); check the path and permissions") from error
    if mask is None:
        mask = (read_image(path).data != 0).any(axis=0).view(np.uint8)
    return mask


def _decode_grey_png(content: bytes) -> NDArray[np.uint8] | None:
    """Pixels of a plain 8-bit grey PNG file, in a tenth of the time that general decoders need; None for any other.

    Damaged files give None as well, so that the general reader says what is wrong with them.
    """
    start = len(PNG_START)
    if not content.startswith(PNG_START) or len(content) < start + HEADER.size:
        return None
    width, height, *form = HEADER.unpack_from(content, start)
    if tuple(form) != GREY_8_BITS or not 0 < width * height <= DEFAULT_MAX_PIXELS:
        return None
    rows = np.empty(height * (width + 1), np.uint8)
    try:
        n = len(zlibng_decode(b"".join(_pixel_chunks(content, start + HEADER.size + CHECKSUM_BYTES)), out=rows.data))
    except (ZlibngError, struct.error, ValueError):
        return None
    if n != len(rows) or not unfilter(rows, height, width, 1):
        return None
    return rows[: height * width].reshape(height, width)


def _pixel_chunks(content: bytes, position: int) -> Iterator[bytes]:
    """Contents of the chunks that hold the pixels."""
    while position < len(content):
        length, kind = CHUNK.unpack_from(content, position)
        position += CHUNK.size
        if kind == b"IDAT":
            yield content[position : position + length]
        elif kind == b"IEND":
            return
        position += length + CHECKSUM_BYTES
