"""Runs in PNG rows, as they are in the image that Pillow decodes."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cellbundle.kernels.masks import mask_runs
from cellbundle.kernels.png import png_runs

SUB, UP, AVERAGE, PAETH = 1, 2, 3, 4


def predict(kind, left, up, corner):
    if kind == PAETH:
        estimate = left + up - corner
        return min((abs(estimate - left), 0, left), (abs(estimate - up), 1, up), (abs(estimate - corner), 2, corner))[2]
    return {0: 0, SUB: left, UP: up, AVERAGE: (left + up) // 2}[kind]


def filtered(image, kinds):
    """Rows with their filter types, as a PNG encoder writes them."""
    width = image.shape[1]
    padded = np.pad(image.astype(int), ((1, 0), (1, 0)))
    rows = []
    for y, kind in enumerate(kinds):
        row = [kind]
        for x in range(width):
            left, up, corner = padded[y + 1, x], padded[y, x + 1], padded[y, x]
            row.append((int(image[y, x]) - predict(kind, left, up, corner)) % 256)
        rows.append(row)
    return np.array(rows, np.uint8)


@pytest.mark.parametrize("sparse", [False, True])
def test_runs_are_those_of_the_image_behind_all_filters(sparse):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 300), dtype=np.uint8)
    image[rng.random((40, 300)) < 0.5] = 0
    if sparse:
        image[rng.random(40) < 0.6] = 0
    kinds = rng.integers(0, 5, 40)
    rows = filtered(image, kinds)
    header = struct.pack(">IIBBBBB", 300, 40, 8, 0, 0, 0, 0)  # Pillow agrees that this is the image
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    assert (np.asarray(Image.open(io.BytesIO(file))) == image).all()
    known, runs = png_runs(rows.ravel(), 40, 300)
    assert known
    np.testing.assert_array_equal(runs, mask_runs(image, 0, 300))


def test_a_blank_image_has_no_runs():
    known, runs = png_runs(np.array([2, 0, 0, 4, 0, 0], np.uint8), 2, 2)
    assert known
    assert runs.shape == (0, 2)


def test_an_unknown_filter_is_reported():
    assert not png_runs(np.array([5, 1, 2, 0, 1, 2], np.uint8), 2, 2)[0]
