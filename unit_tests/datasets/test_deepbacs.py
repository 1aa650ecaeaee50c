"""DeepBacs: pairs of one name, twins in Nile red, frames of a position."""

import json
import shutil

import numpy as np
import pytest
import tifffile

from cellbundle.datasets import prepare
from cellbundle.datasets.model import Problem
from cellbundle.datasets.sets import deepbacs
from cellbundle.datasets.tree import Tree, list_files
from cellbundle.io import read_labels

from ..words import Like

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
    for kind in ("source", "target"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    image = np.full((16, 20), number, np.uint16 if number % 2 else np.uint8)
    tifffile.imwrite(folder / "source" / f"{stem}.tif", image)
    tifffile.imwrite(folder / "target" / f"{stem}.tif", cells(number))


@pytest.fixture
def published(tmp_path):
    raw = tmp_path / "raw"
    for number, stem in enumerate(TRAINING, start=1):
        write(raw / "training", stem, number)
    for number, stem in enumerate(TESTING, start=11):
        write(raw / "test", stem, number)
    return raw


def locate(raw):
    return deepbacs.locate(Tree(raw, list_files(raw)), "mixed", {}, raw)


def test_the_archive_becomes_a_datalist(published, tmp_path):
    shutil.make_archive(str(tmp_path / "packed" / ARCHIVE), "zip", published)
    prepared = prepare("deepbacs", tmp_path / "packed", tmp_path / "out", n_folds=3, workers=1)
    assert prepared.problems == []
    assert prepared.leaks == []
    datalist = json.loads(prepared.datalists["deepbacs"].read_text())
    assert {entry["image"]: entry["group"] for entry in datalist["training"]} == {
        f"images/training_{stem}.tif": group for stem, group in TRAINING.items()
    }
    assert {entry["image"]: entry["group"] for entry in datalist["testing"]} == {
        f"images/test_{stem}.tif": group for stem, group in TESTING.items()
    }


def test_images_of_one_field_are_in_one_fold(published):
    for seed in range(5):
        items = deepbacs.split(locate(published).items, 3, seed)
        training = [item for item in items if item.section == "training"]
        assert len({(item.group, item.fold) for item in training}) == len(set(TRAINING.values()))
        assert {item.fold for item in training} == {0, 1, 2}


def test_labels_come_from_the_same_part(published, tmp_path):
    write(published / "test", "train_1", 19)  # the name of a training image
    prepare("deepbacs", published, tmp_path / "out", n_folds=3, workers=1)
    for name, number in (("training_train_1", 9), ("test_train_1", 19)):
        written = read_labels(tmp_path / "out" / "labels" / f"{name}.tif")
        np.testing.assert_array_equal(written, np.searchsorted([0, 5, 300 + number], cells(number)))


def test_missing_parts_are_reported(published):
    (published / "training" / "target" / "train_1.tif").unlink()
    (published / "test" / "source" / "test_1.tif").unlink()
    assert locate(published).problems == [
        Problem("test_test_1", Like(r"test/target/test_1\.tif.*no image")),
        Problem("training_train_1", Like(r"training/source/train_1\.tif.*no label file")),
    ]


def test_the_order_of_directories_changes_nothing(published, tmp_path, shuffled_listing):
    first = prepare("deepbacs", published, tmp_path / "a", workers=1).datalists["deepbacs"].read_bytes()
    shuffled_listing(1)
    assert prepare("deepbacs", published, tmp_path / "b", workers=1).datalists["deepbacs"].read_bytes() == first
