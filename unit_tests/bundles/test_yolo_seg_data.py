"""Data lists as ultralytics reads them: tiles, outlines, classes, and a folder that is complete or not there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from cellbundle.errors import ConfigError, DatalistError, LabelReadError
from cellbundle.io.formats.yolo import read_yolo
from cellbundle.transforms import LoadCelld, LoadClassesd, NormaliseIntensityd

from ..damage import SHAPES
from .contract import bundle_modules

(module,) = bundle_modules("yolo_seg", "dataset")


class Bytes:
    """Intensities that are rounded to those of the 8-bit file, so that tiles can be compared."""

    asked = staticmethod(lambda: None)  # what else happens while an image is read

    def __call__(self, data):
        self.asked()
        return {**data, "image": np.repeat(np.asarray(data["image"]) - 0.4, 3, axis=0) / 255}


def save(folder, name, labels, **further):
    """An image of random bytes with its label map, as an entry."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, np.shape(labels), np.uint8)
    tifffile.imwrite(folder / "images" / f"{name}.tif", pixels)
    tifffile.imwrite(folder / "labels" / f"{name}.tif", np.uint16(labels))
    paths = {"image": str(folder / "images" / f"{name}.tif"), "label": str(folder / "labels" / f"{name}.tif")}
    return paths | further


def disc(shape=(20, 20), value=1, centre=(8, 9), radius=5):
    y, x = np.indices(shape)
    return np.where((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2, value, 0)


def prepare(tmp_path, training, validation=None, class_names=(), **options):
    """The result for images that are 8-bit and grey."""
    options = {"imgsz": 16, "transforms": [LoadCelld(), LoadClassesd(class_names), Bytes()], **options}
    validation = validation or training
    return module.prepare_dataset(training, validation, cache_dir=tmp_path / "c", class_names=class_names, **options)


def tiles(info, split="train"):
    """Pixels and label map of each tile, by its corner."""
    result = {}
    for path in sorted((info.data_yaml.parent / "images" / split).iterdir()):
        pixels = np.asarray(Image.open(path))
        text = info.data_yaml.parent / "labels" / split / f"{path.stem}.txt"
        painted, classes = read_yolo(text, pixels.shape[:2], corners="edges")
        labels, lost = painted.labels, painted.lost
        assert not lost
        result[tuple(map(int, path.stem.split("_")[-2:]))] = pixels, labels, classes
    return result


def test_large_images_are_cut_and_small_ones_filled_up(tmp_path):
    labels = np.zeros((12, 26), int)
    labels[2:9, 3:14] = 7  # the second tile sees all but a part of it
    labels[4:6, 5:8] = 0
    labels[10, 22], labels[11, 24] = 300, 300
    labels[0, 25] = 9
    entry = save(tmp_path, "a.b", labels)
    info = prepare(tmp_path, [entry])
    pixels = tifffile.imread(entry["image"])
    found = tiles(info)
    assert list(found) == [(0, 0), (0, 10)]
    for (_, x), (tile, seen, _) in found.items():
        assert (tile[:12] == pixels[:, x : x + 16, None]).all()
        assert (tile[12:] == 114).all()
        assert tile.shape == (16, 16, 3)
        assert not seen[12:].any()
    np.testing.assert_array_equal(found[0, 0][1][:12], np.where(labels[:, :16] == 7, 1, 0))
    second = np.where(labels == 7, 1, np.where(labels == 9, 2, np.where(labels == 300, 3, 0)))[:, 10:]
    np.testing.assert_array_equal(found[0, 10][1][:12], second)
    names = sorted(path.name for path in (info.data_yaml.parent / "images" / "train").iterdir())
    assert names == ["000000_a_b_0_0.png", "000000_a_b_0_10.png"]
    counts = {name.removeprefix("training "): n for name, n in info.counts.items() if name.startswith("training")}
    assert counts == {
        "images": 1,
        "instances": 3,
        "tiles": 2,
        "tiles without instances": 0,
        "outlines": 4,
        "outlines of instances with holes": 1,
        "outlines of instances in several parts": 1,
        "outlines of fewer pixels than min_size": 2,
        "remnants at tile edges left out": 0,
    }
    assert info.max_instances == 3


def test_what_the_edge_of_a_tile_leaves_of_an_instance_is_dropped_below_min_size(tmp_path):
    labels = np.zeros((16, 28), int)
    labels[3, 13:17] = 1  # 3 pixels in the first tile, all 4 in the second
    labels[5:7, 10:14] = 2  # 2 pixels of 8 are in the second tile's first columns
    info = prepare(tmp_path, [save(tmp_path, "a", labels, classes=["x", "y"])], class_names=["x", "y"])
    found = tiles(info)
    assert {corner: classes for corner, (_, _, classes) in found.items()} == {(0, 0): [1], (0, 12): [0, 1]}
    np.testing.assert_array_equal(found[0, 0][1], np.where(labels == 2, 1, 0)[:, :16])
    np.testing.assert_array_equal(found[0, 12][1], np.where(labels == 1, 1, np.where(labels == 2, 2, 0))[:, 12:])
    assert info.counts["training remnants at tile edges left out"] == 1
    five = prepare(tmp_path, [save(tmp_path, "a", labels)], min_size=5)
    assert five.counts["training remnants at tile edges left out"] == 2
    assert (tiles(five)[0, 12][1] == np.where(labels == 1, 1, 0)[:, 12:]).all()  # all of it is there, however small


def test_scale_makes_tiles_smaller(tmp_path):
    entry = save(tmp_path, "a", disc((40, 20)))
    info = prepare(tmp_path, [entry], imgsz=32, scale=2.0)
    assert sorted(tiles(info)) == [(y, x) for y in (0, 12, 24) for x in (0, 4)]
    assert info.max_instances == 1  # not in the last tile
    assert all(pixels.shape == (16, 16, 3) for pixels, _, _ in tiles(info).values())
    assert list(tiles(prepare(tmp_path, [entry], imgsz=32, scale=0.5))) == [(0, 0)]
    for scale in (0, -1, 4):
        with pytest.raises(ConfigError, match=f"imgsz 32.*scale {scale} .* . pixels.* 10"):
            prepare(tmp_path, [entry], imgsz=32, scale=scale)


def test_what_ultralytics_is_told(tmp_path):
    info = prepare(tmp_path, [save(tmp_path, "a", disc(value=4), classes=["x"])], class_names=["x", "Größe: 1"])
    assert yaml.safe_load(info.data_yaml.read_text(encoding="utf-8")) == {
        "train": "images/train",
        "val": "images/val",
        "nc": 2,
        "names": {0: "x", 1: "Größe: 1"},
    }
    assert info.class_names == ("x", "Größe: 1")
    assert prepare(tmp_path, [save(tmp_path, "a", disc())]).class_names == ("cell",)


@pytest.fixture
def classed(tmp_path):
    labels = disc(value=30) + disc(value=20, centre=(17, 3), radius=2)
    return save(tmp_path, "a", labels, classes={"30": "b", "20": "a"}), save(tmp_path, "v", labels, classes=[2, 1])


def test_classes_count_from_0(tmp_path, classed):
    info = prepare(tmp_path, [classed[0]], [classed[1]], class_names=["a", "b"], imgsz=20)
    (_, _, classes), (_, _, validation) = tiles(info)[0, 0], tiles(info, "val")[0, 0]
    assert (classes, validation) == ([0, 1], [1, 0])  # in the order of the ids 20 and 30


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "c"], r"a\.tif.*instance 30.*class 'b'.* 1\.\.2 .* a, c"),
        (["b"], r"a\.tif.*instance 20.*class 'a'.* 1\.\.1 .* b"),
    ],
)
def test_a_class_without_a_name_is_an_error_that_names_the_image(tmp_path, classed, names, message):
    with pytest.raises(LabelReadError, match=message):
        prepare(tmp_path, [classed[0]], [classed[1]], class_names=names)
    transforms = [LoadCelld(), LoadClassesd(["a", "b"]), Bytes()]
    with pytest.raises(LabelReadError, match=r"a\.tif.*class 2, .*data\.yaml.* b"):
        prepare(tmp_path, [classed[0]], [classed[1]], class_names=["b"], transforms=transforms)
    path = Path(classed[0]["image"]).parent / "classes.json"
    path.write_text(json.dumps(classed[0]["classes"]))
    with pytest.raises(LabelReadError, match=r"images.a\.tif.*classes\.json.*instance"):
        prepare(tmp_path, [classed[0] | {"classes": str(path)}], [classed[1]], class_names=names)
    assert not list((tmp_path / "c").iterdir())


def test_images_without_instances(tmp_path):
    empty = save(tmp_path, "empty", np.zeros((16, 16)))
    info = prepare(tmp_path, [save(tmp_path, "a", disc((16, 16))), empty])
    files = sorted((info.data_yaml.parent / "labels" / "train").iterdir())
    assert [bool(path.read_text()) for path in files] == [True, False]
    assert info.counts["training tiles without instances"] == 1
    with pytest.raises(DatalistError, match=r"2 training images.*instance.*labels"):
        prepare(tmp_path, [empty, empty])
    with pytest.raises(DatalistError, match=r"empty\.tif.*no 'label'"):
        prepare(tmp_path, [{"image": empty["image"]}])


def test_a_data_yaml_is_no_data_list():
    with pytest.raises(DatalistError, match=r"my/data\.yaml.*JSON.*cellbundle data prepare custom"):
        module.data_lists("my/data.yaml", "my")
    assert module.data_lists("a.json", "b") == [{"datalist": "a.json", "basedir": "b"}]
    assert module.data_lists(None, None) == [{"datalist": None, "basedir": None}]


# the folder


def test_a_second_run_reads_nothing(tmp_path, monkeypatch):
    entries = [save(tmp_path, name, disc()) for name in "abc"]
    first = prepare(tmp_path, entries, workers=2)
    monkeypatch.setattr(Bytes, "asked", lambda self: pytest.fail("an image is read"))
    assert prepare(tmp_path, entries) == first
    assert first.data_yaml.parent == tmp_path / "c" / first.key


def test_whatever_changes_the_tiles_changes_the_key(tmp_path):
    entry, other = save(tmp_path, "a", disc()), save(tmp_path, "b", disc())
    os.utime(entry["label"], ns=(0, 5))
    variants = [
        {},
        {"training": [other]},
        {"training": [entry, other]},
        {"validation": [other]},
        {"training": [entry | {"classes": [1]}]},
        {"overlap": 0.5},
        {"min_size": 3},
        {"imgsz": 17},
        {"class_names": ["cell 2"], "training": [entry | {"classes": [1]}], "validation": [other | {"classes": [1]}]},
        {"transforms": [LoadCelld(binary="components"), LoadClassesd(), Bytes()]},
        {"transforms": [LoadCelld(), LoadClassesd(), NormaliseIntensityd()]},
        {"transforms": [LoadCelld(), LoadClassesd(), NormaliseIntensityd(upper=99)]},
    ]
    keys = [prepare(tmp_path, **{"training": [entry], **variant}).key for variant in variants]
    os.utime(entry["label"], ns=(0, 6))
    keys.append(prepare(tmp_path, [entry]).key)
    tifffile.imwrite(entry["label"], np.uint16(disc()), description="longer, at the same time")
    os.utime(entry["label"], ns=(0, 6))
    keys.append(prepare(tmp_path, [entry]).key)
    assert len(set(keys)) == len(variants) + 2


def test_a_folder_is_complete_or_not_there(tmp_path, monkeypatch):
    entries = [save(tmp_path, name, disc()) for name in "ab"]
    for error in (OSError("disk full"), KeyboardInterrupt()):
        calls = iter([None, error])
        monkeypatch.setattr(Bytes, "asked", lambda self, calls=calls: raise_it(next(calls, None)))
        with pytest.raises(type(error)):
            prepare(tmp_path, entries)
        assert not list((tmp_path / "c").iterdir())
    monkeypatch.undo()
    info = prepare(tmp_path, entries)
    (info.data_yaml.parent / module.STAMP).unlink()
    next((info.data_yaml.parent / "images" / "train").iterdir()).unlink()
    assert prepare(tmp_path, entries) == info  # made again
    assert len(list((info.data_yaml.parent / "images" / "train").iterdir())) == 8


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_tiles_with_a_damaged_stamp_are_made_again(tmp_path, shape):
    entries = [save(tmp_path, name, disc()) for name in "ab"]
    info = prepare(tmp_path, entries)
    stamp = info.data_yaml.parent / module.STAMP
    original = stamp.read_bytes()
    stamp.write_bytes(SHAPES[shape])
    assert prepare(tmp_path, entries) == info
    assert stamp.read_bytes() == original


def raise_it(error):
    if error is not None:
        raise error


def test_of_two_processes_at_once_one_is_first(tmp_path, monkeypatch):
    entries = [save(tmp_path, name, disc()) for name in "ab"]
    found = []

    def other_process(self):
        monkeypatch.undo()
        found.append(prepare(tmp_path, entries))
        found.append(next((found[0].data_yaml.parent / "images" / "train").iterdir()).stat().st_ino)

    monkeypatch.setattr(Bytes, "asked", other_process)
    info = prepare(tmp_path, entries)
    assert info == found[0]
    assert next((info.data_yaml.parent / "images" / "train").iterdir()).stat().st_ino == found[1]
    assert [path.name for path in (tmp_path / "c").iterdir()] == [info.key]


# ultralytics


def test_ultralytics_trains_on_the_same_pixels(tmp_path):
    """Masks, boxes and classes, with holes, parts, copies of one shape and instances of one and two pixels."""
    pytest.importorskip("ultralytics")
    (access,) = bundle_modules("yolo_seg", "ultralytics_access")
    access.require_ultralytics()
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    labels = np.pad(disc((28, 28), 1) + disc((28, 28), 2, (22, 20), 4), 2)
    labels[9:11, 10:12] = 0
    labels[0, 0], labels[5, 20:22], labels[20, 2], labels[25, 6] = 3, 4, 5, 5
    labels[0, 31], labels[31, 0], labels[31, 31] = 6, 7, 8
    entry = save(tmp_path, "a", labels, classes=[1, 2, 2, 1, 1, 2, 2, 2])
    info = prepare(tmp_path, [entry], class_names=["a", "b"], imgsz=64, scale=2.0)
    data = check_det_dataset(str(info.data_yaml), autodownload=False)
    settings = get_cfg(overrides={"task": "segment", "mask_ratio": 1, "overlap_mask": False})
    found = YOLODataset(data["train"], data=data, task="segment", imgsz=64, augment=False, hyp=settings)[0]
    assert found["cls"].flatten().tolist() == [0, 1, 1, 0, 0, 1, 1, 1]
    magnified = np.kron(labels, np.ones((2, 2), int))
    for i, (mask, box) in enumerate(zip(found["masks"].numpy(), found["bboxes"].numpy(), strict=True), start=1):
        extra = mask.astype(bool) & (magnified != i)
        assert mask[magnified == i].all()
        assert extra.sum() == 0 if i != 5 else 0 < extra.sum() <= 16  # a path from part to part
        y, x = np.nonzero(labels == i)
        edges = [x.min() + 0.1, y.min() + 0.1, x.max() + 0.9, y.max() + 0.9]
        corners = np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2]) * 32
        np.testing.assert_allclose(corners, edges, atol=0.001)
