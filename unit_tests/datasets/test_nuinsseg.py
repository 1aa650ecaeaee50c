"""NuInsSeg: published label maps, YOLO polygons in three layouts, the published folds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellbundle.datasets.model import Item, Problem
from cellbundle.errors import CellBundleError, DatasetError
from cellbundle.instances.polygons import contours
from cellbundle.io import read_labels

from ..words import Like
from .contract import DataSet, check_labels, save

NUINSSEG = DataSet("nuinsseg", "yolo")
SHAPE = (16, 24)
SQUARE = "0 0 0 0.125 0 0.125 0.1875 0 0.1875\n"  # corners 0 and 3 in both directions


def save_image(path, *, alpha=False, value=0):
    pixels = np.full((*SHAPE, 4 if alpha else 3), 200, np.uint8)
    pixels[0, 0, 0] = value
    save(path, pixels)


def save_yolo(folder, name, text=SQUARE, *, images="images", labels="labels", value=0):
    save_image(folder / images / f"{name}.png", value=value)
    (folder / labels).mkdir(parents=True, exist_ok=True)
    (folder / labels / f"{name}.txt").write_text(text)


def save_organ(folder, name, ids, *, alpha=False, value=0):
    """Files of an image, with two of the pictures that are not to be taken."""
    save_image(folder / "tissue images" / f"{name}.png", alpha=alpha, value=value)
    for kind, values in (("label masks modify", ids), ("label masks", ids + 1), ("mask binary", 255 * (ids > 0))):
        save(folder / kind / f"{name}.tif", values.astype(np.uint16))


def places(items):
    return {item.name: (item.section, item.fold) for item in items}


def test_published_tree(raw, tmp_path):
    ids = np.zeros(SHAPE, int)
    ids[2:5, 2:5], ids[5:8, 2:5], ids[9, 9] = 7, 300, 12
    save_organ(raw / "human bladder", "human_bladder_01", ids, alpha=True)
    save_organ(raw / "mouse fat", "mouse_fat_3", 0 * ids, value=1)
    (raw / "mouse fat" / "tissue images" / ".DS_Store").touch()
    (raw / "mouse fat" / "Imagej_zips").mkdir()
    (raw / "mouse fat" / "Imagej_zips" / "mouse_fat_3.zip").write_bytes(b"no archive")
    prepared, lists = NUINSSEG.prepare(raw, tmp_path / "out", n_folds=2)
    assert prepared.variant == "published"
    assert Like("^2 images.* 665 ") in prepared.remarks
    entries = lists["nuinsseg"]["training"]
    assert [entry["label"] for entry in entries] == ["labels/human_bladder_01.tif", "labels/mouse_fat_3.tif"]
    assert {entry["fold"] for entry in entries} == {0, 1}
    check_labels(tmp_path / "out", "human_bladder_01", np.searchsorted([0, 7, 12, 300], ids))
    check_labels(tmp_path / "out", "mouse_fat_3", 0 * ids)
    original = (raw / "human bladder" / "tissue images" / "human_bladder_01.png").read_bytes()
    assert (tmp_path / "out/images/human_bladder_01.png").read_bytes() == original


def test_numbers_that_restart_get_the_organ_in_front(raw):
    for organ in ("human bladder", "mouse muscle_tibia"):
        save_organ(raw / "NuInsSeg" / organ, "01", np.zeros(SHAPE))
    assert [item.name for item in NUINSSEG.locate(raw, "published").items] == [
        "human_bladder_01",
        "mouse_muscle_tibia_01",
    ]


def test_broken_pairs_are_named(raw):
    for name in ("a", "b", "c"):
        save_yolo(raw, name)
    (raw / "labels/b.txt").unlink()
    (raw / "images/c.png").unlink()
    NUINSSEG.check_found(raw, ["a"], {"b": r"images/b\.png.*no label file", "c": r"labels/c\.txt.*no image"})
    (raw / "images/a.png").unlink()
    with pytest.raises(DatasetError, match=r"no image.*images/\*\.png.*labels/\*\.txt"):
        NUINSSEG.locate(raw)


def test_polygons_hold_the_pixels_on_their_border(raw, tmp_path):
    corners = ["0.5 0.25 0.75 0.25 0.75 0.75 0.5 0.75"]  # x 12..18, y 4..12
    small, copy = "0.5 0.25 0.541667 0.25 0.541667 0.375 0.5 0.375", corners[0]  # x 12..13, y 4..6
    save_yolo(raw, "human_brain_1", "".join(f"0 {line}\n" for line in (*corners, small, copy)))
    save_yolo(raw, "human_brain_2", "", value=1)
    (raw / "data.yaml").write_text("nc: 1\nnames: [Nuclei]\n")
    prepared, _ = NUINSSEG.prepare(raw, tmp_path / "out", n_folds=2)
    expected = np.zeros(SHAPE, int)
    expected[4:13, 12:19] = 1  # what fills the inside only has 8 x 6 pixels
    expected[4:7, 12:14] = 2
    check_labels(tmp_path / "out", "human_brain_1", expected)
    check_labels(tmp_path / "out", "human_brain_2", np.zeros(SHAPE))
    lost = Like(r"human_brain_1.*\b1 of 3 nuclei.*copies")
    assert prepared.remarks == [lost, Like("human_brain_2.*no instance")]


def test_a_damaged_label_file_is_a_problem_and_the_rest_is_done(raw, tmp_path):
    save_yolo(raw, "a", SQUARE + "0 0.5 x\n")
    save_yolo(raw, "b", value=1)
    prepared, _ = NUINSSEG.prepare(raw, tmp_path / "out", [Problem("a", Like(r"a\.txt"))], n_folds=2)
    assert [item.name for item in prepared.items] == ["b"]


@pytest.mark.parametrize("layout", ["{part}/{kind}", "{kind}/{part}"])
@pytest.mark.parametrize("validation", ["valid", "val"])
def test_folders_of_a_split_are_kept(raw, tmp_path, layout, validation):
    for number, name in enumerate("abcdefgh"):
        part = "test" if name in "gh" else validation if name in "ef" else "train"
        folders = {kind: layout.format(part=part, kind=kind) for kind in ("images", "labels")}
        save_yolo(raw / "NuInsSeg", name, value=number, **folders)
    prepared, _ = NUINSSEG.prepare(raw, tmp_path / "out", n_folds=3)
    found = places(prepared.items)
    assert {found[name] for name in "ef"} == {("training", 0)}
    assert {found[name] for name in "gh"} == {("testing", None)}
    assert sorted(found[name] for name in "abcd") == [("training", 1)] * 2 + [("training", 2)] * 2


def test_equal_names_in_two_parts_get_the_part_in_front(raw):
    for part in ("train", "test"):
        save_yolo(raw / part, "a")
    assert places(NUINSSEG.locate(raw).items) == {"test_a": ("testing", None), "train_a": ("training", None)}


def write_split(folder, **sections):
    entries = {
        section: [{"image": f"images/{name}.png", "label": f"labels/{name}.txt", **more} for name, more in listed]
        for section, listed in sections.items()
    }
    (folder / "split.json").write_text(json.dumps(entries))


def test_a_split_file_is_kept(raw, tmp_path):
    for number, name in enumerate("abcd"):
        save_yolo(raw, name, value=number)
    write_split(
        raw, training=[("a", {"fold": 3}), ("b", {"fold": 1, "group": "slide 1"})], testing=[("d", {}), ("c", {})]
    )
    prepared, _ = NUINSSEG.prepare(raw, tmp_path / "out")
    assert places(prepared.items) == {
        "a": ("training", 3),
        "b": ("training", 1),
        "c": ("testing", None),
        "d": ("testing", None),
    }
    assert [item.group for item in prepared.items] == ["a", "slide 1", "c", "d"]


def test_a_split_file_that_does_not_fit_names_what_is_wrong(raw):
    for name in "abc":
        save_yolo(raw, name)
    (raw / "labels/c.txt").unlink()
    write_split(raw, training=[("a", {"fold": 0}), ("c", {"fold": 0})], testing=[("x", {})])
    found = NUINSSEG.locate(raw)
    assert places(found.items) == {"a": ("training", 0)}
    assert [one.name for one in found.problems] == ["c", "b", "x"]
    assert "is not in" in found.problems[1].reason
    assert found.problems[2].reason == Like(r"x\.png.*not there")


def test_an_ambiguous_split_file_is_refused(raw):
    save_yolo(raw, "a")
    write_split(raw, training=[("a", {})], testing=[("a", {})])
    with pytest.raises(DatasetError, match=r"testing\[0\].*a\.png again"):
        NUINSSEG.locate(raw)
    write_split(raw, training=[("../../a", {})])
    with pytest.raises(CellBundleError, match=r"training\[0\].*'image'.*not below"):
        NUINSSEG.locate(raw)
    (raw / "sub").mkdir()
    (raw / "sub/split.json").write_text("{}")
    with pytest.raises(DatasetError, match="several splits"):
        NUINSSEG.locate(raw)


def items_named(names):
    return [Item(name, Path(f"{name}.png"), (Path(f"{name}.tif"),)) for name in names]


def test_folds_are_the_published_ones():
    items = items_named(f"human_bladder_{number:03d}" for number in range(665))
    folds = [item.fold for item in NUINSSEG.split(items, 5, 0)]
    assert folds[:20] == [4, 1, 2, 4, 4, 4, 2, 1, 2, 3, 1, 3, 1, 2, 3, 1, 1, 1, 3, 4]
    assert [folds.count(fold) for fold in range(5)] == [133] * 5


@pytest.mark.parametrize(("n", "n_folds", "seed"), [(665, 5, 0), (7, 5, 0), (121, 4, 3)])
def test_folds_are_those_of_scikit_learn(n, n_folds, seed):
    selection = pytest.importorskip("sklearn.model_selection")
    names = sorted(f"mouse_{number}" for number in range(n))
    expected = {}
    for fold, (_, held) in enumerate(selection.KFold(n_folds, shuffle=True, random_state=19 + seed).split(names)):
        expected |= {names[position]: ("training", fold) for position in held}
    assert places(NUINSSEG.split(items_named(reversed(names)), n_folds, seed)) == expected


def test_copies_stay_together_and_few_images_have_few_folds():
    items = items_named(f"n{number:02d}" for number in range(30))
    plain = NUINSSEG.split(items, 5, 0)
    copied = NUINSSEG.split(
        [replace(item, group="x" if item.name in {"n03", "n07"} else item.name) for item in items], 5, 0
    )
    assert plain[7].fold != plain[3].fold == copied[7].fold
    assert [item.fold for item in copied[:7] + copied[8:]] == [item.fold for item in plain[:7] + plain[8:]]
    assert sorted(item.fold for item in NUINSSEG.split(items[:3], 5, 0)) == [0, 1, 2]


def test_results_do_not_depend_on_the_order_of_folders(raw, tmp_path, shuffled_listing):
    for number in range(9):
        save_yolo(raw, f"human_lung_{number}", value=number)
    NUINSSEG.prepare_in_any_order(shuffled_listing, raw, tmp_path, n_folds=3)


@pytest.mark.slow
def test_real_polygons_come_back(real_data, tmp_path):
    coco = pytest.importorskip("pycocotools.mask")
    folder = real_data("nuinsseg")
    size, scale = 512, 8  # drawn on a grid eight times finer, so that the pixels of the labels play no part

    def draw(rings):
        closed = [np.concatenate([ring, ring[-1:], ring[-1:]]) * scale for ring in rings]  # three corners at least
        return coco.merge(coco.frPyObjects([ring.ravel().tolist() for ring in closed], size * scale, size * scale))

    prepared, _ = NUINSSEG.prepare(folder, tmp_path)
    assert prepared.leaks == []
    assert prepared.remarks == [Like("4 folds.* 5,")]
    overlaps = []
    for item in prepared.items:
        lines = item.labels[0].read_text().splitlines()
        polygons = [np.array(line.split()[1:], float).reshape(-1, 2) * size for line in lines]
        outlined = contours(read_labels(tmp_path / "labels" / f"{item.name}.tif"))
        assert len(outlined) == len(polygons)  # none is lost, so that they are in the same order
        overlaps += [coco.iou([draw([a])], [draw(b)], [0])[0, 0] for a, b in zip(polygons, outlined, strict=True)]
    assert len(overlaps) == 6022
    assert np.mean(np.array(overlaps) >= 0.95) >= 0.999  # three are lines without area
