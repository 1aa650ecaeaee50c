"""Own images: what is written in each encoding comes back pixel by pixel, and nothing is guessed."""

import json
import os
import pickle

import numpy as np
import pytest

from cellbundle.datasets import prepare
from cellbundle.datasets.sets import custom
from cellbundle.errors import ConfigError, DatasetError, LabelReadError
from cellbundle.io import read_labels

from ..words import Like
from .own_images import (
    CELLS,
    COLOURS,
    DEFAULTS,
    WRITERS,
    H,
    W,
    coco_entries,
    features,
    locate,
    read,
    save,
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
    assert {item.detail["encoding"] for item in locate(folder, **options).items} == {encoding}
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
        locate(folder)
    joined = np.where(truth("a") == 3, 1, truth("a"))  # they touch at a corner
    np.testing.assert_array_equal(read(folder, encoding="binary")["a"].labels, joined)
    np.testing.assert_array_equal(read(folder, encoding="binary")["b"].labels > 0, truth("b") > 0)


def test_one_id_in_several_places_is_taken_for_a_black_and_white_mask(own):
    folder = own("binary")
    for stem in CELLS:
        save(folder / "masks" / f"{stem}.png", np.uint8(truth(stem) > 0))
    with pytest.raises(DatasetError, match="encoding: binary"):
        locate(folder)
    assert read(folder, encoding="label_map")["b"].labels.max() == 1
    assert read(folder, encoding="binary")["b"].labels.max() == 4


def test_a_black_and_white_mask_among_label_maps_names_the_option(own):
    folder = own("label_map")
    save(folder / "labels/b.tif", np.uint8(truth("b") > 0) * 255)
    last = locate(folder).items[1]
    with pytest.raises(LabelReadError, match=r"b\.tif.*encoding: binary"):
        custom.convert(last, DEFAULTS)


def test_masks_that_are_not_black_and_white_are_no_binary_masks(own):
    folder = own("label_map")
    with pytest.raises(LabelReadError, match=r"a\.tif.*3 values.*\(1, 2, 3.*encoding: label_map"):
        custom.convert(locate(folder, encoding="binary").items[0], DEFAULTS | {"encoding": "binary"})


def test_colours_without_a_table_are_refused(own):
    with pytest.raises(DatasetError, match=r"masks/a\.png.*option colours.*\"0,0,0\": \"background\", "):
        locate(own("colours"))
    with pytest.raises(ConfigError, match=r"option colours.*None.*such as"):
        locate(own("colours"), encoding="colours")


def test_a_colour_that_is_not_in_the_table_is_named(own):
    folder, options = own("colours"), {"colours": {"0,255,0": "stroma"}}
    with pytest.raises(LabelReadError, match=r"a\.png.*255,0,0 \(40 pixels\)"):
        custom.convert(locate(folder, **options).items[0], DEFAULTS | options)


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
        locate(folder)
    np.testing.assert_array_equal(read(folder, encoding="label_map")["a"].labels, truth("a"))
    found = locate(folder, encoding="yolo")
    assert [item.name for item in found.items] == ["a"]
    assert [problem.reason[:5] for problem in found.problems] == ["b.png"]


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_hostile_seg_npy_is_refused_and_not_run(own, tmp_path):
    folder = own("cellpose_seg")
    np.save(folder / "a_seg.npy", {"masks": truth("a"), "x": Bomb(tmp_path / "run")}, allow_pickle=True)
    with pytest.raises(LabelReadError, match=r"a_seg\.npy.*posix\.mkdir"):
        custom.convert(locate(folder).items[0], DEFAULTS)
    assert not (tmp_path / "run").exists()
    pickle.loads(pickle.dumps(Bomb(tmp_path / "run")))
    assert (tmp_path / "run").exists()  # else the bomb is none


def test_regions_of_qupath_are_no_cells(own):
    folder = own("geojson")
    region = {"type": "Polygon", "coordinates": [[(0, 0), (W, 0), (W, H), (0, H), (0, 0)]]}
    regions = [{"type": "Feature", "geometry": region, "properties": {"objectType": "annotation"}}]
    content = {"type": "FeatureCollection", "features": regions + list(features("a", "detection"))}
    save_text(folder / "a.json", json.dumps(content))
    sample = read(folder)["a"]
    np.testing.assert_array_equal(sample.labels, truth("a"))
    assert sample.remarks == (Like("^1 annotations.*regions.*left out"),)


@pytest.mark.parametrize(("choice", "n"), [("annotations", 1), ("detections", 3), ("auto", 3)])
def test_objects_of_qupath_are_told_apart(own, choice, n):
    folder = own("geojson")
    region = {"type": "Polygon", "coordinates": [[(0, 0), (W, 0), (W, H), (0, H), (0, 0)]]}
    regions = [{"type": "Feature", "geometry": region, "properties": {"objectType": "annotation"}}]
    content = {"type": "FeatureCollection", "features": regions + list(features("a", "detection"))}
    save_text(folder / "a.json", json.dumps(content))
    (item,) = [one for one in locate(folder).items if one.name == "a"]
    sample = custom.convert(item, DEFAULTS | {"geojson_objects": choice})
    assert sample.labels.max() == n
    (item,) = [one for one in locate(folder).items if one.name == "b"]
    if choice == "detections":
        with pytest.raises(LabelReadError, match=r"no detections.*4 objects.*geojson_objects"):
            custom.convert(item, DEFAULTS | {"geojson_objects": choice})


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
    prepared = prepare("custom", folder, tmp_path / "out", workers=1, test_share=0.5)
    assert prepared.problems == []
    written = prepared.datalists["custom"].read_bytes()
    content = json.loads(written)
    entries = content["training"] + content["testing"]
    assert len(content["training"]) == len(content["testing"]) == 1
    for stem in CELLS:
        assert {"image": f"images/{stem}.png", "label": f"labels/{stem}.tif", "group": stem}.items() <= next(
            entry.items() for entry in entries if entry["group"] == stem
        )
        np.testing.assert_array_equal(read_labels(tmp_path / "out/labels" / f"{stem}.tif"), truth(stem))
    written_at = (tmp_path / "out/labels/a.tif").stat().st_mtime_ns
    prepare("custom", folder, tmp_path / "out", workers=1, test_share=0.5)
    assert (tmp_path / "out/labels/a.tif").stat().st_mtime_ns == written_at  # what is finished is not done again
    shuffled_listing(3)
    again = prepare("custom", folder, tmp_path / "out_2", workers=1, test_share=0.5)
    assert again.datalists["custom"].read_bytes() == written
