"""Own images: what is written in each encoding comes back pixel by pixel, and nothing is guessed."""

import json
import os
import pickle

import numpy as np
import pytest

from cellbundle.errors import ConfigError, DatasetError, LabelReadError

from ..damage import Call
from ..words import Like
from .contract import check_labels, save
from .own_images import (
    CELLS,
    COLOURS,
    CUSTOM,
    WRITERS,
    H,
    W,
    coco_entries,
    corners,
    read,
    save_features,
    save_image,
    save_text,
    truth,
    write_kaggle,
    write_yolo,
)

RECOGNISED = sorted(WRITERS.keys() - {"binary"})


@pytest.fixture
def own(tmp_path):
    """A function that writes two images with labels in an encoding and gives the folder."""

    def write(encoding):
        for seed, stem in enumerate(CELLS):
            save_image(tmp_path / "raw" / f"{stem}.png", seed)
            WRITERS[encoding](tmp_path / "raw", stem)
        return tmp_path / "raw"

    return write


@pytest.mark.parametrize("encoding", RECOGNISED)
def test_each_encoding_is_recognised_and_comes_back_pixel_by_pixel(own, encoding):
    folder, options = own(encoding), {"colours": COLOURS} if encoding == "colours" else {}
    assert {item.detail["encoding"] for item in CUSTOM.locate(folder, **options).items} == {encoding}
    samples = read(folder, **options)
    assert list(samples) == ["a", "b"]
    for stem, sample in samples.items():
        np.testing.assert_array_equal(sample.labels, truth(stem))
        assert sample.image == folder / f"{stem}.png"
        assert sample.remarks == ()


def test_run_lengths_along_rows_need_the_option(own):
    folder = own("kaggle_rle")
    write_kaggle(folder, "", order="C")
    np.testing.assert_array_equal(read(folder, rle_order="rows")["a"].labels, truth("a"))
    assert not np.array_equal(read(folder)["a"].labels, truth("a"))


def test_black_and_white_masks_are_refused_until_they_are_asked_for(own):
    folder = own("binary")
    with pytest.raises(DatasetError, match=r"masks/a\.png.*encoding: binary"):
        CUSTOM.locate(folder)
    joined = np.where(truth("a") == 3, 1, truth("a"))  # they touch at a corner
    np.testing.assert_array_equal(read(folder, encoding="binary")["a"].labels, joined)
    np.testing.assert_array_equal(read(folder, encoding="binary")["b"].labels > 0, truth("b") > 0)


def test_one_id_in_several_places_is_taken_for_a_black_and_white_mask(own):
    folder = own("binary")
    for stem in CELLS:
        save(folder / "masks" / f"{stem}.png", np.uint8(truth(stem) > 0))
    with pytest.raises(DatasetError, match="encoding: binary"):
        CUSTOM.locate(folder)
    assert read(folder, encoding="label_map")["b"].labels.max() == 1
    assert read(folder, encoding="binary")["b"].labels.max() == 4


def test_a_black_and_white_mask_among_label_maps_names_the_option(own):
    folder = own("label_map")
    save(folder / "labels/b.tif", np.uint8(truth("b") > 0) * 255)
    last = CUSTOM.locate(folder).items[1]
    with pytest.raises(LabelReadError, match=r"b\.tif.*encoding: binary"):
        CUSTOM.convert(last)


def test_masks_that_are_not_black_and_white_are_no_binary_masks(own):
    folder = own("label_map")
    with pytest.raises(LabelReadError, match=r"a\.tif.*3 values.*\(1, 2, 3.*encoding: label_map"):
        CUSTOM.convert(CUSTOM.locate(folder, encoding="binary").items[0], encoding="binary")


def test_colours_without_a_table_are_refused(own):
    with pytest.raises(DatasetError, match=r"masks/a\.png.*option colours.*\"0,0,0\": \"background\", "):
        CUSTOM.locate(own("colours"))
    with pytest.raises(ConfigError, match=r"option colours.*None.*such as"):
        CUSTOM.locate(own("colours"), encoding="colours")


def test_a_colour_that_is_not_in_the_table_is_named(own):
    folder, options = own("colours"), {"colours": {"0,255,0": "stroma"}}
    with pytest.raises(LabelReadError, match=r"a\.png.*255,0,0 \(40 pixels\)"):
        CUSTOM.convert(CUSTOM.locate(folder, **options).items[0], **options)


def test_classes_that_touch_are_apart_and_background_may_have_a_colour(own):
    folder = own("colours")
    picture = np.full((H, W, 3), 255, np.uint8)
    picture[2:4, 3:6], picture[2:4, 6:9], picture[9:, :2] = (255, 0, 0), (0, 255, 0), (255, 0, 0)
    save(folder / "masks/a.png", picture)
    expected = np.zeros((H, W), int)
    expected[2:4, 6:9], expected[2:4, 3:6], expected[9:, :2] = 1, 2, 3
    for background in (None, "background"):
        table = COLOURS | {"255,255,255": background}
        np.testing.assert_array_equal(read(folder, colours=table)["a"].labels, expected)


def test_two_encodings_are_an_error_that_names_both(own):
    folder = own("label_map")
    write_yolo(folder, "a")
    with pytest.raises(DatasetError, match=r"label_map.*yolo.*option encoding"):
        CUSTOM.locate(folder)
    np.testing.assert_array_equal(read(folder, encoding="label_map")["a"].labels, truth("a"))
    found = CUSTOM.locate(folder, encoding="yolo")
    assert [item.name for item in found.items] == ["a"]
    assert [problem.reason[:5] for problem in found.problems] == ["b.png"]


def test_a_hostile_seg_npy_is_refused_and_not_run(own, tmp_path):
    folder = own("cellpose_seg")
    bomb = Call(os.mkdir, str(tmp_path / "run"))
    np.save(folder / "a_seg.npy", {"masks": truth("a"), "x": bomb}, allow_pickle=True)
    with pytest.raises(LabelReadError, match=r"a_seg\.npy.*posix\.mkdir"):
        CUSTOM.convert(CUSTOM.locate(folder).items[0])
    assert not (tmp_path / "run").exists()
    pickle.loads(pickle.dumps(bomb))
    assert (tmp_path / "run").exists()  # else the bomb is none


@pytest.fixture
def qupath(own):
    """Annotations of two images; those of the first are a region of the whole image, with the cells as detections."""
    folder = own("geojson")
    region = corners((0, 0, H, W)), {"objectType": "annotation"}
    cells = [(corners(box), {"objectType": "detection"}) for box in CELLS["a"]]
    save_features(folder / "a.json", [region, *cells])
    return folder


def test_regions_of_qupath_are_no_cells(qupath):
    sample = read(qupath)["a"]
    np.testing.assert_array_equal(sample.labels, truth("a"))
    assert sample.remarks == (Like("^1 annotations.*regions.*left out"),)


@pytest.mark.parametrize(("choice", "n"), [("annotations", 1), ("detections", 3), ("auto", 3)])
def test_objects_of_qupath_are_told_apart(qupath, choice, n):
    a, b = CUSTOM.locate(qupath).items
    assert (a.name, b.name) == ("a", "b")
    assert CUSTOM.convert(a, geojson_objects=choice).labels.max() == n
    if choice == "detections":
        with pytest.raises(LabelReadError, match=r"no detections.*4 objects.*geojson_objects"):
            CUSTOM.convert(b, geojson_objects=choice)


def test_crowds_of_coco_are_left_out(own):
    folder = own("coco")
    content = coco_entries(["a.png", "b.png"])
    content["annotations"][0]["iscrowd"] = 1
    save_text(folder / "annotations.json", json.dumps(content))
    sample = read(folder)["a"]
    np.testing.assert_array_equal(sample.labels, np.maximum(truth("a") - 1, 0))
    assert sample.remarks == (Like("^1 regions.*iscrowd.*left out"),)


def test_small_instances_are_left_out(own):
    sample = read(own("label_map"), min_size=8)["b"]
    expected = np.select([truth("b") == 1, truth("b") == 3], [1, 2], 0)
    np.testing.assert_array_equal(sample.labels, expected)
    assert sample.remarks == (Like("^2 of 4 .*8 pixels.*left out"),)


@pytest.mark.parametrize("encoding", ["coco", "mask_files"])
def test_one_command_makes_a_datalist(own, tmp_path, encoding, shuffled_listing):
    folder = own(encoding)
    prepared, lists = CUSTOM.prepare_in_any_order(shuffled_listing, folder, tmp_path, test_share=0.5)
    content = lists["custom"]
    entries = content["training"] + content["testing"]
    assert len(content["training"]) == len(content["testing"]) == 1
    for stem in CELLS:
        assert {"image": f"images/{stem}.png", "label": f"labels/{stem}.tif", "group": stem}.items() <= next(
            entry.items() for entry in entries if entry["group"] == stem
        )
        check_labels(prepared.folder, stem, truth(stem))
    written_at = (prepared.folder / "labels/a.tif").stat().st_mtime_ns
    CUSTOM.prepare(folder, prepared.folder, test_share=0.5)
    assert (prepared.folder / "labels/a.tif").stat().st_mtime_ns == written_at  # what is finished is not done again
