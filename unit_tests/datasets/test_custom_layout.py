"""Own images: which labels belong to which image, and what its name is."""

import json

import numpy as np
import pytest

from cellbundle.datasets.model import Problem
from cellbundle.datasets.tree import Tree
from cellbundle.errors import DatasetError, LabelReadError

from ..words import Like
from .contract import save
from .own_images import (
    CUSTOM,
    coco_entries,
    read,
    save_image,
    save_labels,
    save_text,
    truth,
    write_coco,
    write_imagej,
    write_kaggle,
    write_mask_files,
    write_yolo,
)

LAYOUTS = {
    "two folders": ("images/a.png", "labels/a.tif", "a"),
    "two folders, one marked": ("Images/a.PNG", "Masks/a_label.TIF", "a"),
    "beside the image": ("x/a.png", "x/a_masks.tif", "a"),
    "beside the image in images": ("images/a.png", "images/a_seg.tif", "a"),
    "as cellpose names them": ("001_img.png", "001_masks.png", "001_img"),
    "as cellpose saves them": ("a.png", "a_cp_masks.png", "a"),
    "a folder an image": ("plate 1/image.png", "plate 1/mask.png", "image"),
    "parts below": ("images/train/a.png", "labels/train/a.png", "a"),
    "parts above": ("train/images/a.png", "train/labels/a.png", "a"),
    "not ASCII": ("Größe/細胞 é.png", "Größe/細胞 é_mask.tif", "細胞 é"),
    "an image that is named like a mask": ("images/a_seg.png", "labels/a_seg.tif", "a_seg"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_finds_its_labels(raw, layout):
    image, label, name = LAYOUTS[layout]
    save_image(raw / image)
    save_labels(raw / label)
    found = CUSTOM.locate(raw)
    assert [(item.name, item.image, item.labels) for item in found.items] == [(name, raw / image, (raw / label,))]
    assert found.problems == []
    np.testing.assert_array_equal(read(raw)[name].labels, truth("a"))


@pytest.mark.parametrize("image", ["a/images/a.png", "a/image.png"])
def test_a_folder_of_masks_beside_the_image(raw, image):
    save_image(raw / image)
    for number in (1, 2, 3):
        save(raw / f"a/masks/{number:04d}.png", np.uint8(truth("a") == number) * 255)
    assert CUSTOM.locate(raw).items[0].detail["encoding"] == "mask_files"
    np.testing.assert_array_equal(next(iter(read(raw).values())).labels, truth("a"))


def test_a_set_of_rois_beside_a_single_image(raw):
    save_image(raw / "x/cells.tif")
    write_imagej(raw / "x", "a")
    (raw / "x/a_RoiSet.zip").rename(raw / "x/RoiSet.zip")
    assert CUSTOM.locate(raw).items[0].detail["encoding"] == "imagej"
    np.testing.assert_array_equal(read(raw)["cells"].labels, truth("a"))
    save_image(raw / "x/other.tif")
    with pytest.raises(DatasetError, match=r"no labels.*2 images"):
        CUSTOM.locate(raw)


def test_halves_of_pairs_are_problems(raw):
    for stem in "ab":
        save_image(raw / f"images/{stem}.png")
    for stem in "bc":
        save_labels(raw / f"labels/{stem}.tif")
    save_labels(raw / "labels/b_mask.tif")
    save_labels(raw / "e_mask.tif")
    save_image(raw / "images/d.png")
    save_labels(raw / "labels/d.tif")
    reasons = {
        "a": r"images/a\.png.*no label file",
        "b": r"images/b\.png, labels/b\.tif, labels/b_mask\.tif.*keep one",
        "c": r"labels/c\.tif.*no image",
        "e": r"e_mask\.tif.*no image",
    }
    CUSTOM.check_found(raw, ["d"], reasons)


def test_other_files_are_no_labels(raw):
    save_image(raw / "images/a.png")
    save_labels(raw / "labels/a.tif")
    save_image(raw / "images/a_flows.tif")
    for name in ("labels/classes.txt", "notes.json", "table.csv", "README.txt", "old.zip", "features.npy"):
        save_text(raw / name, '[{"annotations": []}]')
    assert CUSTOM.locate(raw).problems == []


def test_the_list_of_classes_among_outlines_is_no_label(raw):
    save_image(raw / "images/a.png")
    write_yolo(raw, "a")
    save_text(raw / "labels/classes.txt", "cell")
    assert CUSTOM.locate(raw).problems == []
    save_text(raw / "labels/b.txt", "")
    CUSTOM.check_found(raw, ["a"], {"b": r"labels/b\.txt.*no image"})


def test_nothing_to_find_says_what_is_expected(raw):
    save_image(raw / "pictures/a.png")
    save_image(raw / "truth/a.png")
    with pytest.raises(DatasetError, match=r"no labels.*2 images.*label_map: labels/<name>\.tif"):
        CUSTOM.locate(raw)
    with pytest.raises(DatasetError, match=r"as yolo.*labels/<name>\.txt"):
        CUSTOM.locate(raw, encoding="yolo")
    with pytest.raises(DatasetError, match=r"no image.*extract archives"):
        CUSTOM.module.locate(Tree(raw, {"a.zip": raw / "a.zip"}), "folder", CUSTOM.defaults, raw)


def test_repeated_stems_get_the_names_of_their_folders(raw):
    for part in ("train", "test"):
        for stem in ("a", part):
            save_image(raw / part / "images" / f"{stem}.png")
            save_labels(raw / part / "labels" / f"{stem}.tif")
    names = {item.image.relative_to(raw).as_posix(): item.name for item in CUSTOM.locate(raw).items}
    assert names == {
        "test/images/a.png": "test_a",
        "test/images/test.png": "test",
        "train/images/a.png": "train_a",
        "train/images/train.png": "train",
    }


def test_coco_files_of_parts_find_images_of_one_name_by_folder_and_by_part(raw):
    for part in ("train", "val"):
        for name in ("x/a.png", "y/b.png"):
            save_image(raw / "images" / part / name)
        save_text(raw / f"annotations/instances_{part}2017.json", json.dumps(coco_entries(["x/a.png", "y\\b.png"])))
    found = CUSTOM.locate(raw)
    assert found.problems == []
    assert [(item.name, item.fold) for item in found.items] == [
        ("train_x_a", None),
        ("train_y_b", None),
        ("val_x_a", 0),
        ("val_y_b", 0),
    ]
    assert {item.labels[0].stem for item in found.items if item.fold == 0} == {"instances_val2017"}
    for name, sample in read(raw).items():
        np.testing.assert_array_equal(sample.labels, truth(name[-1]))


@pytest.mark.parametrize(
    "files", [{"coco.json": ["p/a.png", "q/a.png"]}, {"p/1.json": ["a.png"], "q/1.json": ["a.png"]}]
)
def test_coco_files_find_images_of_one_name_by_folder(raw, files):
    for name in ("p/a.png", "q/a.png"):
        save_image(raw / name)
    for file, entries in files.items():
        save_text(raw / file, json.dumps(coco_entries(entries)))
    found = CUSTOM.locate(raw)
    assert found.problems == []
    assert [(item.name, item.labels[0].relative_to(raw).as_posix()) for item in found.items] == [
        (f"{folder}_a", list(files)[n % len(files)]) for n, folder in enumerate("pq")
    ]


def test_coco_files_are_the_split_where_all_images_lie_in_one_folder(raw):
    for stem, part in (("a", "train"), ("b", "test")):
        save_image(raw / f"{stem}.png")
        save_text(raw / f"{part}.json", json.dumps(coco_entries([f"/home/me/{stem}.png"])))
    assert [(item.name, item.section) for item in CUSTOM.locate(raw).items] == [("a", "training"), ("b", "testing")]


def test_entries_without_an_image_and_the_reverse_are_problems(raw):
    write_coco(raw, "")
    for name in ("b.png", "c.png"):
        save_image(raw / name)
    reasons = {"a.png": r"annotations\.json.*a\.png.*not there", "c": r"c\.png.*not in annotations\.json"}
    CUSTOM.check_found(raw, ["b"], reasons)


def test_entries_that_are_not_unique_are_problems(raw):
    for name in ("a.png", "b.png", "x/c.png", "y/c.png", "d.png"):
        save_image(raw / name)
    save_text(raw / "1.json", json.dumps(coco_entries(["a.png", "a.png", "b.png", "c.png", "d.png"])))
    save_text(raw / "2.json", json.dumps(coco_entries(["b.png"])))
    reasons = {
        "a": r"1\.json.*a\.png several times",
        "b": r"1\.json and 2\.json.*keep one",
        "x_c": r"1\.json.*x/c\.png or y/c\.png.*different names",
        "y_c": r"y/c\.png.*not in 1\.json, 2\.json",
    }
    CUSTOM.check_found(raw, ["d"], reasons)
    assert CUSTOM.convert_only(raw).labels.max() == 0  # listed without annotations: no cells


def test_a_table_of_another_image_size_is_an_error(raw):
    for stem in "ab":
        save_image(raw / f"{stem}.png")
    write_kaggle(raw, "")
    table = (raw / "train.csv").read_text().replace("a,", "a,200 9 ", 1)
    save_text(raw / "train.csv", table)
    with pytest.raises(LabelReadError, match=r"train\.csv.*image a.*mask 0"):
        CUSTOM.convert(CUSTOM.locate(raw).items[0])


def test_broken_labels_of_one_image_leave_the_others(raw, tmp_path):
    for stem in "ab":
        save_image(raw / f"{stem}.png", ord(stem))
        write_mask_files(raw, stem)
    save(raw / "masks/a/9.png", np.ones((3, 3), np.uint8))
    prepared, _ = CUSTOM.prepare(raw, tmp_path / "out", [Problem("a", Like(r"9\.png.*3x3"))])
    assert [item.name for item in prepared.items] == ["b"]
