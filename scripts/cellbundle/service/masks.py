"""Binary masks beside images, which say themselves whether they are as the service wrote them.

A mask carries the hash of its own compressed pixels. One that a person has corrected has other pixels, or no hash: it
is not replaced.
"""

import hashlib
import hmac
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL.PngImagePlugin import putchunk

from ..errors import CellBundleError
from .handles import open_file, open_folder, replacing

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHUNK = struct.Struct(">I4s")  # length and type, in front of the data and a checksum of 4 bytes
CHECKSUM = 4
HEAD = len(SIGNATURE) + CHUNK.size + 13 + CHECKSUM  # bytes of the signature and the first chunk, IHDR
PIXELS, MARK = (b"IHDR", b"IDAT"), b"tEXt"
KEYWORD = "cellbundle mask"
MAX_CHUNK = 2**24  # bytes; Pillow writes much smaller ones


class ForeignMaskError(CellBundleError):
    """A mask is there that the service did not write."""


def encode_mask(cells: NDArray[np.bool_]) -> bytes:
    """An 8-bit PNG: 255 for cells and 0 for background, with the hash of its compressed pixels.

    Args:
        cells: (H, W) bool.
    """
    file = io.BytesIO()
    Picture.fromarray(np.uint8(255) * cells).save(file, "PNG")
    plain = file.getvalue()
    digest, _ = _read(io.BytesIO(plain))
    file = io.BytesIO()
    file.write(plain[:HEAD])
    putchunk(file, MARK, digest)
    file.write(plain[HEAD:])
    return file.getvalue()


def is_own(file: BinaryIO) -> bool:
    """Whether a file is a mask of ``encode_mask``, with the pixels that it was written with."""
    try:
        digest, texts = _read(file)
    except ValueError:
        return False
    return any(hmac.compare_digest(text, digest) for text in texts)


def check_mask(path: Path) -> None:
    """Raise ``ForeignMaskError`` if something is at a path that is no mask of the service.

    Args:
        path: absolute, without links.

    Raises:
        OutsideError: if its folder has become another.
    """
    with open_folder(path.parent) as folder:
        _check(path.name, folder)


def write_mask(path: Path, cells: NDArray[np.bool_], replace_foreign: bool) -> None:
    """Write a mask of ``encode_mask``.

    Args:
        path: absolute, without links.
        cells: (H, W) bool.
        replace_foreign: a file that the service did not write may be replaced.

    Raises:
        ForeignMaskError: if such a file is there.
        OutsideError: if its folder has become another.
        OSError: if the mask cannot be written.
    """
    encoded = encode_mask(cells)
    with open_folder(path.parent) as folder:
        if not replace_foreign:
            _check(path.name, folder)
        with replacing(path.name, folder) as file:
            file.write(encoded)


def _check(name: str, folder: int) -> None:
    try:
        with open_file(name, folder) as file:
            own = is_own(file)
    except FileNotFoundError:
        return
    except (OSError, CellBundleError):  # a link, a folder, a FIFO, or one that may not be read
        own = False
    if not own:
        raise ForeignMaskError(
            "beside the image is a mask that this service did not write; move it away, or start the service with "
            "--replace-foreign"
        )


def _read(file: BinaryIO) -> tuple[bytes, list[bytes]]:
    """The text for head and compressed pixels of a PNG file, and the texts in it; ``ValueError`` if it is none."""
    digest, texts = hashlib.sha256(), []
    for kind, data in _chunks(file):
        if kind in PIXELS:
            digest.update(data)
        elif kind == MARK:
            texts.append(data)
    return f"{KEYWORD}\0{digest.hexdigest()}".encode(), texts


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Type and data of the chunks of a PNG file; ``ValueError`` if it is none, or damaged."""
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise ValueError("is no PNG file")
    while head := file.read(CHUNK.size):
        if len(head) < CHUNK.size:
            raise ValueError("is truncated")
        length, kind = CHUNK.unpack(head)
        if length > MAX_CHUNK:
            raise ValueError("has a chunk that is too long")
        data = file.read(length + CHECKSUM)
        if len(data) < length + CHECKSUM:
            raise ValueError("is truncated")
        yield kind, data[:-CHECKSUM]
