"""Remarks of a preparation on label maps that are read without an error and yet are wrong."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellbundle.datasets import prepare
from cellbundle.validation import inspect_datalist

N = 20  # cells along a side


@pytest.fixture
def folder(tmp_path):
    """A function that writes an image and labels, and gives the remarks of the preparation and of the validation."""

    def remarks(labels, image=None):
        raw, out = tmp_path / "raw", tmp_path / "out"
        raw.mkdir()
        noise = np.random.default_rng(0).integers(1, 200, labels.shape).astype(np.uint8)
        tifffile.imwrite(raw / "a.tif", noise if image is None else image)
        Image.fromarray(labels).save(raw / "a_masks.png")
        prepared = prepare("custom", raw, out, workers=1)
        found = inspect_datalist(out / "custom.json", out).findings
        return [one for one in prepared.remarks if one.startswith("a: ")], [(one.kind, one.message) for one in found]

    return remarks


def cells(n):
    """(8 N, 8 N) label map of n cells of 6 x 6 in rows."""
    labels = np.zeros((8 * N, 8 * N), np.int32)
    for number in range(n):
        y, x = divmod(number, N)
        labels[8 * y : 8 * y + 6, 8 * x : 8 * x + 6] = number + 1
    return labels


def test_ids_that_are_cut_to_8_bits_are_remarked(folder):
    remarks, found = folder((cells(400) % 256).astype(np.uint8))
    text = "144 of 255 instances have parts far from each other: the largest id is 255, so ids may be cut to 8 bits"
    assert any(text in remark for remark in remarks)
    assert any(kind == "scattered-instances" and text in message for kind, message in found)


def test_255_cells_are_no_remark(folder):
    remarks, found = folder(cells(255).astype(np.uint8))
    assert remarks == []
    assert found == []


def test_values_that_stand_for_no_data_are_remarked(folder):
    image = np.random.default_rng(0).random((8 * N, 8 * N), np.float32)
    image[:8] = -9999
    remarks, found = folder(cells(30).astype(np.uint8), image)
    assert remarks[0].startswith("a: 5 % of the values are -9999, which stands for no data; ")
    assert [kind for kind, _ in found] == ["no-data"]
