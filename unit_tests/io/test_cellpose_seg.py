"""Files for cellpose, as its own code reads and writes them."""

import numpy as np
import pytest

from cellbundle.errors import LabelReadError
from cellbundle.io.formats.cellpose_seg import read_cellpose_seg, write_cellpose_seg

from ..damage import Call

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


def test_outlines_are_those_of_cellpose(tmp_path, instances):
    utils = pytest.importorskip("cellpose.utils")
    write_cellpose_seg(tmp_path / "a_seg.npy", instances, "a.tif")
    content = load(tmp_path / "a_seg.npy")
    np.testing.assert_array_equal(content["outlines"], utils.masks_to_outlines(content["masks"]) * content["masks"])


def write_theirs(folder, labels):
    """Write labels as cellpose does; return what the file holds."""
    cellpose = pytest.importorskip("cellpose.io")
    height, width = labels.shape
    flows = [np.zeros((height, width, 3), np.uint8), np.zeros((2, height, width)), np.ones((height, width))]
    cellpose.masks_flows_to_seg(np.zeros((height, width)), labels, flows, str(folder / "b.tif"))
    return load(folder / "b_seg.npy")


def test_keys_are_those_that_cellpose_writes(tmp_path, scored):
    theirs = write_theirs(tmp_path, scored.labels)
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


def save(path, content):
    np.save(path, content, allow_pickle=True)
    return path


def test_what_cellpose_writes_is_read(tmp_path, scored):
    write_theirs(tmp_path, scored.labels)
    np.testing.assert_array_equal(read_cellpose_seg(tmp_path / "b_seg.npy"), scored.labels)


@pytest.mark.parametrize("convert", [np.uint16, np.int32, np.uint32, np.int64, np.asfortranarray, np.ndarray.tolist])
def test_masks_of_any_type_and_other_keys_are_read(tmp_path, convert):
    masks = np.array([[0, 7, 7], [300, 0, 7]])
    others = {"diameter": np.float64(17.5), "colors": [(1, 2, 3)], "filename": "a.tif", "est_diam": None, "old": b"x"}
    path = save(tmp_path / "a_seg.npy", {"masks": convert(masks), "flows": [masks > 0, [masks]], **others})
    np.testing.assert_array_equal(read_cellpose_seg(path), masks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"masks": np.zeros((2, 3, 4), int)}, r"masks.*\(H, W\).*\(2, 3, 4\)"),
        ({"masks": np.zeros((2, 3))}, "masks.*integer.*float64"),
        ({"masks": [[0, 1], [2]]}, "cannot be decoded"),
        ({"masks": np.array([[0, -1]])}, "masks.*negative.*-1"),
        ({"masks": np.array([[0, 2**31]])}, "masks.*2147483648"),
        ({"outlines": 1, "flows": 2}, "cellpose.*'flows', 'outlines'.*'masks'"),
        (np.zeros((2, 3), int), r"cellpose.*\(2, 3\).*'masks'"),
        ([{"masks": 1}, None], r"cellpose.*\(2,\).*'masks'"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    with pytest.raises(LabelReadError, match=rf"x\.npy.*{message}"):
        read_cellpose_seg(save(tmp_path / "x.npy", content))


def test_nothing_in_the_file_is_run(tmp_path):
    path = save(tmp_path / "x.npy", {"masks": np.ones((2, 2), int), "filename": Call((tmp_path / "run").touch)})
    with pytest.raises(LabelReadError, match=r"x\.npy.*pickle"):
        read_cellpose_seg(path)
    assert not (tmp_path / "run").exists()
