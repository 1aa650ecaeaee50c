"""Cellpose: numbers that restart in test, 16-bit ids, images without a label map, the later images."""

import shutil

import numpy as np
import pytest

from cellbundle.datasets.model import Problem
from cellbundle.errors import DatasetError, LabelReadError

from ..words import Like
from .contract import DataSet, check_labels, save, sizes

CELLPOSE = DataSet("cellpose", "cyto")
SHAPE = (30, 40)


def stripes(n, step):
    """Cells of two pixels with ids step, 2 * step and so on, along the rows."""
    labels = np.zeros(SHAPE[0] * SHAPE[1], np.uint16)
    labels[: 3 * n] = np.repeat(np.arange(1, n + 1) * step, 3)
    labels[2::3] = 0
    return labels.reshape(SHAPE)


def write_image(folder, number, shade=0):
    save(folder / f"{number:03d}_img.png", np.full((*SHAPE, 3), (number, shade, 0), np.uint8))


def write_pair(folder, number, labels, shade=0):
    write_image(folder, number, shade)
    save(folder / f"{number:03d}_masks.png", labels)


@pytest.fixture
def published(tmp_path):
    """12 pairs in train, the last with 300 cells, and 3 in test, of which one number is not in train."""
    raw = tmp_path / "raw"
    for number in range(12):
        write_pair(raw / "train", number, stripes(300 if number == 11 else 2 + number, 2))
    for number in (0, 1, 12):
        write_pair(raw / "test", number, stripes(20 + number, 3), shade=200)
    return raw


def pack(raw, part, with_folder):
    """Put a folder into an archive of its name, itself or its files only."""
    where = {"root_dir": raw, "base_dir": part} if with_folder else {"root_dir": raw / part}
    shutil.make_archive(str(raw.parent / part), "zip", **where)
    shutil.rmtree(raw / part)
    shutil.move(raw.parent / f"{part}.zip", raw / f"{part}.zip")


@pytest.mark.parametrize("with_folder", [True, False])
def test_archives_become_a_datalist(published, tmp_path, with_folder):
    for part in ("train", "test"):
        pack(published, part, with_folder)
    prepared, lists = CELLPOSE.prepare(published, tmp_path / "out")
    assert prepared.variant == "cyto"
    assert list(lists) == ["cellpose"]
    datalist = lists["cellpose"]
    assert [entry["image"] for entry in datalist["training"]] == [f"images/train_{n:03d}.png" for n in range(12)]
    assert sorted(entry["fold"] for entry in datalist["training"]) == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4]
    assert datalist["testing"][2] == {
        "image": "images/test_012.png",
        "label": "labels/test_012.tif",
        "group": "test_012",
    }


def test_more_than_255_cells_survive(published, tmp_path):
    CELLPOSE.prepare(published, tmp_path / "out")
    check_labels(tmp_path / "out", "train_011", stripes(300, 1))


def test_labels_of_a_test_image_come_from_the_test_folder(published):
    items = {item.name: item for item in CELLPOSE.locate(published).items}
    assert items["test_000"].section == "testing"
    sample = CELLPOSE.convert(items["test_000"])
    assert sample.image == published / "test" / "000_img.png"
    np.testing.assert_array_equal(sample.labels, stripes(20, 3))
    np.testing.assert_array_equal(CELLPOSE.convert(items["train_000"]).labels, stripes(2, 2))


def test_images_and_labels_without_the_other_are_reported(published, tmp_path):
    write_image(published / "train", 13)
    (published / "test" / "000_img.png").unlink()  # its number is in train, too
    problems = [
        Problem("test_000", Like(r"test/000_masks\.png.*no image")),
        Problem("train_013", Like(r"train/013_img\.png.*no label file")),
    ]
    _, lists = CELLPOSE.prepare(published, tmp_path / "out", problems)
    assert len(lists["cellpose"]["testing"]) == 2


def test_the_order_of_directories_changes_nothing(published, tmp_path, shuffled_listing):
    CELLPOSE.prepare_in_any_order(shuffled_listing, published, tmp_path)


@pytest.fixture
def with_later_images(published):
    for number in range(5):
        write_pair(published / "train_cyto2", number, stripes(2, 1), shade=100)
    return published


def test_later_images_are_training_images_with_a_list_of_their_own(with_later_images, tmp_path):
    pack(with_later_images, "train_cyto2", with_folder=True)
    prepared, lists = CELLPOSE.prepare(with_later_images, tmp_path / "out")
    assert prepared.variant == "cyto2"
    assert sizes(lists) == {"cellpose": (17, 3), "cellpose_cyto": (12, 3), "cellpose_cyto2": (5, 0)}
    assert sorted(entry["fold"] for entry in lists["cellpose_cyto2"]["training"]) == [0, 1, 2, 3, 4]
    assert lists["cellpose_cyto2"]["training"][0]["image"] == "images/train_cyto2_000.png"


def test_later_images_can_be_left_out(with_later_images):
    assert {item.subsets for item in CELLPOSE.locate(with_later_images).items} == {("cyto",)}


def test_a_black_and_white_mask_is_refused(tmp_path):
    write_pair(tmp_path / "train", 0, np.uint8(stripes(3, 1) > 0) * 255)
    with pytest.raises(LabelReadError, match=r"000_masks\.png.*binary mask"):
        CELLPOSE.convert_only(tmp_path)


def test_images_outside_of_the_folders_are_not_taken(tmp_path):
    write_pair(tmp_path, 0, stripes(3, 1))
    with pytest.raises(DatasetError, match=r"no image or label file.*layout"):
        CELLPOSE.locate(tmp_path)
