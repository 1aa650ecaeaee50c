"""BCCD with mask: black and white masks become instances."""

import numpy as np
import pytest

from cellbundle.datasets.facts import read_facts
from cellbundle.datasets.model import Item
from cellbundle.datasets.tree import Tree
from cellbundle.errors import DatasetError, LabelReadError

from ..words import Like
from . import contract
from .contract import DataSet, check_labels

BCCD = DataSet("bccd")
SHAPE = (32, 40)


def discs(*circles, shape=SHAPE):
    """Union of discs (y, x, radius)."""
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    return np.any([np.hypot(ys - y, xs - x) <= radius for y, x, radius in circles], axis=0)


def save(path, values):
    contract.save(path, np.repeat(np.uint8(values)[..., None], 3, axis=2))


def mask_of(values, folder):
    """An item whose mask holds these values."""
    save(folder / "mask.png", values)
    return Item("a", folder / "image.png", (folder / "mask.png",))


@pytest.fixture(params=[("original", "mask"), ("images", "masks")], ids="-".join)
def published(request, tmp_path):
    """Four images for training and two for testing, with two discs each."""
    folder = tmp_path / "raw" / "BCCD Dataset with mask"
    for number, section in enumerate(["train"] * 4 + ["test"] * 2):
        mask = discs((8, 8, 4), (20, 25 + number, 5))
        for kind, values in zip(request.param, (np.where(mask, 90 + number, 200), np.where(mask, 255, 0)), strict=True):
            save(folder / section / kind / f"{number}f8b-{number}.png", values)
    return folder


def test_both_layouts_become_a_datalist(published, tmp_path):
    _, lists = BCCD.prepare(tmp_path / "raw", tmp_path / "out", n_folds=2)
    datalist = lists["bccd"]
    assert [entry["image"] for entry in datalist["training"]] == [f"images/{n}f8b-{n}.png" for n in range(4)]
    assert sorted(entry["fold"] for entry in datalist["training"]) == [0, 0, 1, 1]
    assert datalist["testing"][1] == {"image": "images/5f8b-5.png", "label": "labels/5f8b-5.tif", "group": "5f8b-5"}
    check_labels(tmp_path / "out", "5f8b-5", discs((8, 8, 4)) + 2 * discs((20, 30, 5)))
    original = next((published / "test").glob("[io]*/5f8b-5.png"))
    assert (tmp_path / "out" / "images" / "5f8b-5.png").read_bytes() == original.read_bytes()


def test_values_near_black_and_white_make_no_cells(tmp_path):
    mask = discs((8, 8, 4), (20, 30, 5))
    values = np.where(mask, 254, 0)
    values[::3][~mask[::3]] = 1  # what takes every value above 0 for a cell finds one large one
    values[20, 30] = 128
    values[31, :20] = 127
    labels = BCCD.convert(mask_of(values, tmp_path)).labels
    np.testing.assert_array_equal(labels, discs((8, 8, 4)) + 2 * discs((20, 30, 5)))


def test_corners_connect_and_specks_are_left_out(tmp_path):
    white = np.zeros(SHAPE, bool)
    white[2:6, 2:6] = white[6:10, 6:10] = True  # one instance of 32 pixels
    white[20:24, 2:6] = True  # 16 pixels
    white[20:23, 10:15] = True  # 15 pixels
    sample = BCCD.convert(mask_of(255 * white, tmp_path))
    expected = np.zeros(SHAPE, int)
    expected[2:6, 2:6] = expected[6:10, 6:10] = 1
    expected[20:24, 2:6] = 2
    np.testing.assert_array_equal(sample.labels, expected)
    assert sample.remarks == (Like(r"16 pixels.*left out\D*1$"),)
    everything = BCCD.convert(mask_of(255 * white, tmp_path), min_size=1)
    assert everything.labels.max() == 3
    assert everything.remarks == ()


def test_touching_cells_are_cut_on_request_only(tmp_path):
    white = discs((15, 10, 8), (15, 24, 8))  # the neck is half as wide as the cells
    item = mask_of(255 * white, tmp_path)
    np.testing.assert_array_equal(BCCD.convert(item).labels, white)
    labels = BCCD.convert(item, split_touching=True).labels
    np.testing.assert_array_equal(labels > 0, white)
    assert set(labels[:, :16][white[:, :16]]) == {1}
    assert set(labels[:, 19:][white[:, 19:]]) == {2}


@pytest.mark.parametrize(
    "white",
    [
        discs((15, 20, 10)),
        discs((15, 16, 8), (15, 24, 8)),  # a neck of 87 % of the width of the parts
        discs((15, 10, 6)) | np.eye(32, 40, k=1, dtype=bool),  # connected through corners
        discs(*((15, x, 6) for x in range(8, 32))),  # long, with many places that are equally deep
        np.zeros(SHAPE, bool),
        np.ones(SHAPE, bool),
    ],
    ids=["disc", "egg", "tail", "rod", "nothing", "all"],
)
def test_single_cells_are_not_cut(tmp_path, white):
    labels = BCCD.convert(mask_of(255 * white, tmp_path), split_touching=True).labels
    np.testing.assert_array_equal(labels, white)


def test_a_mask_without_white_is_refused(tmp_path):
    with pytest.raises(LabelReadError, match=r"mask\.png.*value is 1.*255"):
        BCCD.convert(mask_of(discs((8, 8, 4)), tmp_path))


def test_suffixes_may_differ(tmp_path):
    for path in ("train/original/a.bmp", "train/mask/a.PNG", "Test/Original/b.jpg", "Test/Mask/b.jpeg"):
        save(tmp_path / path, np.zeros(SHAPE))
    (tmp_path / "train/mask/notes.txt").touch()
    items = BCCD.locate(tmp_path).items
    assert [(item.name, item.section, item.image.name, item.labels[0].name) for item in items] == [
        ("b", "testing", "b.jpg", "b.jpeg"),
        ("a", "training", "a.bmp", "a.PNG"),
    ]


def test_equal_names_get_the_section_in_front(tmp_path):
    for path in ("train/original/a.png", "train/mask/a.png", "test/original/A.png", "test/mask/A.png"):
        save(tmp_path / path, np.zeros(SHAPE))
    assert [item.name for item in BCCD.locate(tmp_path).items] == ["test_A", "train_a"]


def test_broken_pairs_are_named(tmp_path):
    for path in ("train/original/a.png", "train/mask/a.png", "train/original/b.png", "test/mask/a.png"):
        save(tmp_path / path, np.zeros(SHAPE))
    reasons = {"test/a": r"test/mask/a\.png.*no image", "train/b": r"train/original/b\.png.*no label file"}
    BCCD.check_found(tmp_path, ["a"], reasons)


def test_nothing_to_pair_is_an_error(tmp_path):
    save(tmp_path / "train/original/a.png", np.zeros(SHAPE))
    with pytest.raises(DatasetError, match=r"train/original/\*\.png.*train/mask"):
        BCCD.locate(tmp_path)


def test_facts_tell_it_from_bccd_and_from_dsb2018():
    facts = read_facts("bccd")
    assert "not BCCD" in facts.notes[0]
    assert facts.licence == "unclear"
    files = ("dsb2018/train/images/a.tif", "dsb2018/train/masks/a.tif")
    tree = Tree(None, dict.fromkeys(files))
    assert not any(all(map(tree.glob, variant.signature)) for variant in facts.variants.values())
