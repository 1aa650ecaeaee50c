"""Small images, their bytes as files, and what a reader must make of them."""

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image as Pillow

from cellbundle.io import read_image

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (9, 12), np.uint8)
GREY16 = RNG.integers(0, 65536, (9, 12), np.uint16)
RGB8 = RNG.integers(0, 256, (9, 12, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (9, 12, 3), np.uint16)
ALPHA8 = GREY8[..., None]


def chw(array):
    return (array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)).astype(np.float32)


def pillow_bytes(array, kind, mode=None, **options):
    buffer = io.BytesIO()
    image = Pillow.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_bytes(width, height, depth, rows, extra=b""):
    """A grey PNG written by hand, for what no library writes."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def check(path, expected, **fields):
    image = read_image(path)
    assert image.data.dtype == np.float32
    assert image.data.flags.c_contiguous
    np.testing.assert_array_equal(image.data, expected)
    assert image.path == path
    for name, value in fields.items():
        assert getattr(image, name) == value
    return image


def tiff_bytes(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


STACK = RNG.integers(0, 256, (2, 64, 64), np.uint8)
