"""Masks of single instances, a file each."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from imagecodecs import ZlibngError, zlibng_decode
from numpy.typing import NDArray

from ...errors import LabelReadError
from ...instances.painting import Painted, paint_runs
from ...kernels.masks import mask_runs
from ...kernels.png import png_runs
from ..images.read import DEFAULT_MAX_PIXELS, read_image

PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, colour type, compression, filter, interlacing
GREY_8_BITS = (8, 0, 0, 0, 0)
CHUNK = struct.Struct(">I4s")
CHECKSUM_BYTES = 4

Mask = tuple[tuple[int, int], NDArray[np.int64]]
"""(H, W), and (R, 2) start and length of the runs of pixels in the flat image."""


def paint_mask_files(paths: Sequence[Path]) -> Painted:
    """Paint the masks of one image, the smaller on top; what is not 0 in any channel is inside.

    Masks become runs of pixels one at a time. Plain 8-bit grey PNG files, which is how such masks mostly come, take a
    way of their own that is about ten times as fast as a general decoder.

    Args:
        paths: image files of one size, at least one.

    Returns:
        The label map, with the ids 1, 2 … in the order of the files, and what is lost in it.

    Raises:
        LabelReadError: if a file cannot be read or is of another size than the first one.
    """
    scratch = np.empty(0, np.uint8)
    shape: tuple[int, int] | None = None
    runs = []
    for path in paths:
        (own_shape, own_runs), scratch = _read(path, scratch)
        shape = shape or own_shape
        if own_shape != shape:
            sizes = ["x".join(map(str, one)) for one in (own_shape, shape)]
            raise LabelReadError(f"{path}: the mask is {sizes[0]}, those before it are {sizes[1]}; remove it")
        runs.append(own_runs)
    if shape is None:
        raise LabelReadError("there are no mask files; give at least one")
    return paint_runs(runs, shape)


def _read(path: Path, scratch: NDArray[np.uint8]) -> tuple[Mask, NDArray[np.uint8]]:
    """A mask, and memory to use again for the next one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LabelReadError(f"{path}: cannot be opened ({error.strerror}); check the path and permissions") from error
    shape = _plain_shape(content)
    if shape:
        n = shape[0] * (shape[1] + 1)
        scratch = scratch if len(scratch) == n else np.empty(n, np.uint8)
        runs = _plain_runs(content, shape, scratch)
        if runs is not None:
            return (shape, runs), scratch
    mask = (read_image(path, as_stored=True).data != 0).any(axis=0).view(np.uint8)
    return ((mask.shape[0], mask.shape[1]), mask_runs(mask, 0, mask.shape[1])), scratch


def _plain_shape(content: bytes) -> tuple[int, int] | None:
    """(H, W) of an 8-bit grey PNG file that is not interlaced; None for any other file."""
    start = len(PNG_START)
    if not content.startswith(PNG_START) or len(content) < start + HEADER.size:
        return None
    width, height, *form = HEADER.unpack_from(content, start)
    return (height, width) if tuple(form) == GREY_8_BITS and 0 < width * height <= DEFAULT_MAX_PIXELS else None


def _plain_runs(content: bytes, shape: tuple[int, int], rows: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Runs of such a file; None if it is damaged, so that the general reader says how."""
    try:
        n = len(zlibng_decode(b"".join(_pixel_chunks(content)), out=rows.data))
    except (ZlibngError, struct.error):
        return None
    known, runs = png_runs(rows, *shape) if n == len(rows) else (False, None)
    return runs if known else None


def _pixel_chunks(content: bytes) -> Iterator[bytes]:
    """Contents of the chunks that hold the pixels."""
    position = len(PNG_START) + HEADER.size + CHECKSUM_BYTES
    while position < len(content):
        length, kind = CHUNK.unpack_from(content, position)
        position += CHUNK.size
        if kind == b"IDAT":
            yield content[position : position + length]
        elif kind == b"IEND":
            return
        position += length + CHECKSUM_BYTES
