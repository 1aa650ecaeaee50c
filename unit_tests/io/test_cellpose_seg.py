"""Files for cellpose, as its own code reads and writes them."""

import numpy as np
import pytest

from cellbundle.io.cellpose_seg import write_cellpose_seg

KEYS = {"outlines", "masks", "chan_choose", "ismanual", "filename", "flows", "diameter"}


def load(path):
    return np.load(path, allow_pickle=True).item()


def test_pixels_come_back(tmp_path, instances):
    write_cellpose_seg(tmp_path / "a_seg.npy", instances, "images/a.tif")
    content = load(tmp_path / "a_seg.npy")
    assert content.keys() >= KEYS
    assert content["masks"].dtype == content["outlines"].dtype == np.uint16
    np.testing.assert_array_equal(content["masks"], instances.labels)
    assert content["filename"] == "images/a.tif"
    assert content["ismanual"].tolist() == [False] * len(instances)
    assert content["colors"].shape == (len(instances), 3)
    assert len(list(tmp_path.iterdir())) == 1


def test_outlines_are_those_of_cellpose(tmp_path, instances):
    utils = pytest.importorskip("cellpose.utils")
    write_cellpose_seg(tmp_path / "a_seg.npy", instances, "a.tif")
    content = load(tmp_path / "a_seg.npy")
    np.testing.assert_array_equal(content["outlines"], utils.masks_to_outlines(content["masks"]) * content["masks"])


def test_keys_are_those_that_cellpose_writes(tmp_path, scored):
    cellpose = pytest.importorskip("cellpose.io")
    labels, (height, width) = scored.labels, scored.labels.shape
    flows = [np.zeros((height, width, 3), np.uint8), np.zeros((2, height, width)), np.ones((height, width))]
    cellpose.masks_flows_to_seg(np.zeros((height, width)), labels, flows, str(tmp_path / "b.tif"))
    theirs = load(tmp_path / "b_seg.npy")
    write_cellpose_seg(tmp_path / "a_seg.npy", scored, tmp_path / "b.tif")
    mine = load(tmp_path / "a_seg.npy")
    assert theirs.keys() == KEYS
    for key in KEYS - {"flows"}:
        assert type(mine[key]) is type(theirs[key])
        np.testing.assert_array_equal(mine[key], theirs[key])
        assert np.asarray(mine[key]).dtype == np.asarray(theirs[key]).dtype


def test_many_instances(tmp_path, many):
    write_cellpose_seg(tmp_path / "a_seg.npy", many, "a.tif")
    content = load(tmp_path / "a_seg.npy")
    assert content["masks"].dtype == content["outlines"].dtype == np.uint32
    np.testing.assert_array_equal(content["masks"], many.labels)
    assert np.sum(content["outlines"] > 0) == 75_625 * 8


def test_a_failed_write_leaves_nothing(tmp_path, scored, full_disk):
    with pytest.raises(OSError, match="No space"):
        write_cellpose_seg(tmp_path / "a_seg.npy", scored, "a.tif")
    assert not list(tmp_path.iterdir())
