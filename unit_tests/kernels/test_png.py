"""PNG rows without their filters, as the decoder of Pillow gives them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cellbundle.kernels.png import unfilter

SUB, UP, AVERAGE, PAETH = 1, 2, 3, 4


def predict(kind, left, up, corner):
    if kind == PAETH:
        estimate = left + up - corner
        return min((abs(estimate - left), 0, left), (abs(estimate - up), 1, up), (abs(estimate - corner), 2, corner))[2]
    return {0: 0, SUB: left, UP: up, AVERAGE: (left + up) // 2}[kind]


def filtered(image, kinds, step):
    """Rows with their filter types, as a PNG encoder writes them."""
    height, width = image.shape
    padded = np.zeros((height + 1, width + step), int)
    padded[1:, step:] = image
    rows = []
    for y, kind in enumerate(kinds):
        row = [kind]
        for x in range(width):
            left, up, corner = padded[y + 1, x], padded[y, x + step], padded[y, x]
            row.append((int(image[y, x]) - predict(kind, left, up, corner)) % 256)
        rows.append(row)
    return np.array(rows, np.uint8)


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_all_filters_come_off(step, sparse):
    rng = np.random.default_rng(step)
    image = rng.integers(0, 256, (40, 12 * step), dtype=np.uint8)
    if sparse:
        image[rng.random(40) < 0.6] = 0
    kinds = rng.integers(0, 5, 40)
    rows = filtered(image, kinds, step)
    if step == 1:  # Pillow agrees that this is the image
        header = struct.pack(">IIBBBBB", 12, 40, 8, 0, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
        file = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
        assert (np.asarray(Image.open(io.BytesIO(file))) == image).all()
    data = rows.ravel()
    assert unfilter(data, 40, image.shape[1], step)
    assert (data[: image.size].reshape(image.shape) == image).all()


def test_an_unknown_filter_is_reported():
    assert not unfilter(np.array([5, 1, 2, 0, 1, 2], np.uint8), 2, 2, 1)
