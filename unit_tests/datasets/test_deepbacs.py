"""DeepBacs: pairs of one name, twins in Nile red, frames of a position."""

import shutil

import numpy as np
import pytest

from cellbundle.datasets.model import Problem

from ..words import Like
from .contract import DataSet, check_labels, save

DEEPBACS = DataSet("deepbacs")
ARCHIVE = "DeepBacs_Data_Segmentation_StarDist_MIXED_dataset"
FIELD = "JE2NileRed_oilp22_PMP_101220"
TRAINING = {
    f"{FIELD}_002_4": f"{FIELD}_002",
    f"{FIELD}_002_4_NR": f"{FIELD}_002",
    f"{FIELD}_002_1": f"{FIELD}_002",
    f"{FIELD}__2": f"{FIELD}_",
    f"{FIELD}__2_NR": f"{FIELD}_",
    "pos1_frame_2": "pos1",
    "pos1_frame_30": "pos1",
    "pos12_frame_1": "pos12",
    "train_1": "train_1",
    "train_12": "train_12",
}
TESTING = {f"{FIELD}_011": f"{FIELD}_011", f"{FIELD}_011_NR": f"{FIELD}_011", "pos5_fr_20": "pos5", "test_1": "test_1"}


def cells(number):
    labels = np.zeros((16, 20), np.uint16)
    labels[2:6, 2:10], labels[8 : 10 + number % 5, 4:7] = 300 + number, 5
    return labels


def write(folder, stem, number):
    save(folder / "source" / f"{stem}.tif", np.full((16, 20), number, np.uint16 if number % 2 else np.uint8))
    save(folder / "target" / f"{stem}.tif", cells(number))


@pytest.fixture
def published(tmp_path):
    raw = tmp_path / "raw"
    for number, stem in enumerate(TRAINING, start=1):
        write(raw / "training", stem, number)
    for number, stem in enumerate(TESTING, start=11):
        write(raw / "test", stem, number)
    return raw


def test_the_archive_becomes_a_datalist(published, tmp_path):
    shutil.make_archive(str(tmp_path / "packed" / ARCHIVE), "zip", published)
    prepared, lists = DEEPBACS.prepare(tmp_path / "packed", tmp_path / "out", n_folds=3)
    assert prepared.leaks == []
    for section, part, groups in (("training", "training", TRAINING), ("testing", "test", TESTING)):
        assert {entry["image"]: entry["group"] for entry in lists["deepbacs"][section]} == {
            f"images/{part}_{stem}.tif": group for stem, group in groups.items()
        }


def test_images_of_one_field_are_in_one_fold(published):
    for seed in range(5):
        items = DEEPBACS.split(DEEPBACS.locate(published).items, 3, seed)
        training = [item for item in items if item.section == "training"]
        assert len({(item.group, item.fold) for item in training}) == len(set(TRAINING.values()))
        assert {item.fold for item in training} == {0, 1, 2}


def test_labels_come_from_the_same_part(published, tmp_path):
    write(published / "test", "train_1", 19)  # the name of a training image
    DEEPBACS.prepare(published, tmp_path / "out", n_folds=3)
    for name, number in (("training_train_1", 9), ("test_train_1", 19)):
        check_labels(tmp_path / "out", name, np.searchsorted([0, 5, 300 + number], cells(number)))


def test_missing_parts_are_reported(published):
    (published / "training" / "target" / "train_1.tif").unlink()
    (published / "test" / "source" / "test_1.tif").unlink()
    assert DEEPBACS.locate(published).problems == [
        Problem("test_test_1", Like(r"test/target/test_1\.tif.*no image")),
        Problem("training_train_1", Like(r"training/source/train_1\.tif.*no label file")),
    ]


def test_the_order_of_directories_changes_nothing(published, tmp_path, shuffled_listing):
    DEEPBACS.prepare_in_any_order(shuffled_listing, published, tmp_path)
