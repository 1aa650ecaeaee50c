"""Remarks of a preparation on label maps that are read without an error and yet are wrong."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellbundle.datalists.validate import inspect_datalist
from cellbundle.datasets import prepare
from cellbundle.instances.regions import find_regions

from ..words import Like

N = 20  # cells along a side


@pytest.fixture
def folder(tmp_path):
    """A function that writes an image and labels, and gives the remarks of the preparation and of the validation."""

    def remarks(labels, image=None, **options):
        raw, out = tmp_path / "raw", tmp_path / "out"
        raw.mkdir()
        noise = np.random.default_rng(0).integers(1, 200, labels.shape).astype(np.uint8)
        tifffile.imwrite(raw / "a.tif", noise if image is None else image)
        Image.fromarray(labels).save(raw / "a_masks.png")
        prepared = prepare("custom", raw, out, workers=1, options=options)
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
    text = Like("144 of 255 instances.*255.*8 bits")
    assert text in remarks
    assert ("scattered-instances", text) in found


def test_255_cells_are_no_remark(folder):
    remarks, found = folder(cells(255).astype(np.uint8))
    assert remarks == []
    assert found == []


def test_values_that_stand_for_no_data_are_remarked(folder):
    image = np.random.default_rng(0).random((8 * N, 8 * N), np.float32)
    image[:8] = -9999
    remarks, found = folder(cells(30).astype(np.uint8), image)
    assert remarks[0] == Like("a: 5 % .*-9999.*no data")
    assert [kind for kind, _ in found] == ["no-data"]


def with_region():
    """30 cells, of which eight have a region drawn around them, and its id and pixels."""
    labels = cells(30)
    region = np.zeros_like(labels, bool)
    region[:15, :31] = True
    labels[region & (labels == 0)] = 31
    return labels.astype(np.uint8), 31


def test_a_region_around_cells_is_remarked_and_can_be_left_out(folder, tmp_path):
    labels, region = with_region()
    remarks, found = folder(labels)
    text = Like(rf"\b1 of 31 instances.*regions.* {(labels == region).sum()} pixels")
    assert text in remarks
    assert [kind for kind, message in found if text == message] == ["region-instances"]
    out = tmp_path / "without"
    prepared = prepare("custom", tmp_path / "raw", out, workers=1, options={"drop_regions": True})
    assert Like("a: 1 of 31 instances.*regions.*left out") in prepared.remarks
    kept = tifffile.imread(out / "labels" / "a.tif")
    np.testing.assert_array_equal(kept, np.where(labels == region, 0, labels))


def test_a_background_with_an_id_is_a_region(folder):
    labels = np.where(cells(20) == 0, 65535, cells(20)).astype(np.uint16)
    remarks, _ = folder(labels, drop_regions=True)
    assert Like("a: 1 of 21 instances.*regions.*left out") in remarks


def test_cells_are_no_regions():
    labels = cells(30)
    labels[40:120, 40:120] = 31  # a large one
    labels[60:70, 60:70] = 32  # with a nucleus
    labels[80:90, 80:90] = 33  # or two
    assert find_regions(labels, 33) == []
    assert find_regions(np.ones((9, 9), np.int32), 1) == []  # one cell that fills the image
