"""LIVECell: COCO polygons of eight cell lines, in each layout and with each oddity of the published files."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from cellbundle.datasets.facts import read_facts
from cellbundle.datasets.model import Item
from cellbundle.datasets.sets import livecell
from cellbundle.errors import DatasetError

from ..words import Like
from .contract import DataSet, check_labels, save

LIVECELL = DataSet("livecell")
SHAPE = (52, 64)
PARTS = ("train", "val", "test")


def stem(cell_type, well="A1", crop=1):
    return f"{cell_type}_Phase_{well}_1_00d04h00m_{crop}"


def box(y, x, height, width):
    """A polygon that holds the pixels from (y, x), ``height`` rows and ``width`` columns."""
    return [float(v) for v in (x, y, x + width, y, x + width, y + height, x, y + height)]


A_CELL = [[box(2, 3, 4, 5)]]


class Published:
    """Files as they are published: ``add`` an image with its cells, then ``write`` the annotations."""

    def __init__(self, folder):
        self.folder, self.shape, self.annotations = folder, SHAPE, []

    def add(self, part, name, cells=A_CELL, *, crowds=(), to=None):
        """``cells``: polygons of each; ``to``: folder for the image, or none."""
        image_id = 100000 + len(self.annotations)
        both = [(polygons, 0) for polygons in cells] + [(polygons, 1) for polygons in crowds]
        self.annotations.append((part, name, image_id, both))
        if to is not None:
            pixels = np.random.default_rng(image_id).integers(0, 255, self.shape).astype(np.uint8)
            save(self.folder / to / f"{name}.tif", pixels)

    def write(self, by_type):
        files = {}
        for number, (part, name, image_id, cells) in enumerate(self.annotations):
            where = f"LIVECell/livecell_coco_{part}.json"
            if by_type:
                where = f"LIVECell_single_cells/{name.split('_')[0].lower()}/{part}.json"
            content = files.setdefault(
                where, {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
            )
            size = {"height": self.shape[0], "width": self.shape[1]}
            content["images"].append({"id": image_id, "file_name": f"{name}.tif"} | size)
            content["annotations"] += [
                {"id": 1000 * number + i, "image_id": image_id, "category_id": 1, "segmentation": c, "iscrowd": crowd}
                for i, (c, crowd) in enumerate(cells)
            ]
        for where, content in files.items():
            path = self.folder / "annotations" / where
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        return self.folder


@pytest.fixture
def published(tmp_path):
    return Published(tmp_path / "raw")


def convert(found, name):
    (item,) = (item for item in found.items if item.name == name)
    return LIVECELL.convert(item)


@pytest.mark.parametrize("by_type", [True, False], ids=["annotations by type", "annotations for all"])
@pytest.mark.parametrize("nested", [True, False], ids=["nested images", "flat images"])
def test_all_layouts_give_the_published_split(published, by_type, nested):
    for number, cell_type in enumerate(livecell.TYPES):
        part = PARTS[number % 3]
        folder = "images/livecell_test_images" if part == "test" else "images/livecell_train_val_images"
        published.add(part, stem(cell_type, f"B{number}"), to=f"{folder}/{cell_type}" if nested else folder)
    found = LIVECELL.locate(published.write(by_type))
    assert (found.problems, found.remarks) == ([], [])
    sections = {"train": ("training", None), "val": ("training", 0), "test": ("testing", None)}
    assert {item.name: (item.group, item.section, item.fold, item.subsets) for item in found.items} == {
        stem(cell_type, f"B{n}"): (f"{cell_type}_B{n}", *sections[PARTS[n % 3]], (cell_type,))
        for n, cell_type in enumerate(livecell.TYPES)
    }
    assert "BV2" in livecell.TYPES
    assert len(livecell.TYPES) == 8


def test_polygons_become_a_label_map_with_the_smaller_cell_on_top(published):
    cells = [
        [box(2, 3, 4, 5), box(30, 50, 6, 7)],  # one cell in two parts
        [box(10, 10, 20, 30)],  # with a nested one and one that overlaps
        [box(14, 14, 4, 6)],
        [box(25, 35, 8, 10)],
    ]
    published.add("train", stem("A172"), cells, crowds=[[box(40, 0, 12, 64)]], to="images")
    expected = np.zeros(SHAPE, np.int32)
    expected[2:6, 3:8] = expected[30:36, 50:57] = 1
    expected[10:30, 10:40] = 2
    expected[14:18, 14:20] = 3
    expected[25:33, 35:45] = 4
    sample = convert(LIVECELL.locate(published.write(True)), stem("A172"))
    np.testing.assert_array_equal(sample.labels, expected)
    assert sample.image == published.folder / "images" / f"{stem('A172')}.tif"
    assert sample.remarks == (Like("^1 of 5 .*iscrowd.*left out"),)


def test_copies_of_a_cell_are_counted(published):
    published.add("train", stem("A172"), [*A_CELL, *A_CELL], to="images")
    sample = convert(LIVECELL.locate(published.write(True)), stem("A172"))
    assert sample.remarks[0] == Like("^1 of 2 cells.*copies")
    assert sample.labels.max() == 1


def test_of_two_annotations_of_a_file_the_one_with_more_cells_is_taken(published):
    cells = [[box(0, 0, 3, 3)], [box(10, 0, 3, 3)]]
    published.add("train", stem("Huh7"), A_CELL, to="images")
    published.add("train", stem("Huh7"), cells)
    found = LIVECELL.locate(published.write(False))
    assert found.remarks == [Like("^1 images.*several ids.*most cells")]
    assert convert(found, stem("Huh7")).labels.max() == 2


def test_a_file_in_train_and_val_is_of_val(published):
    published.add("train", stem("Huh7"), [[box(0, 0, 3, 3)], [box(10, 0, 3, 3)]], to="images")
    published.add("val", stem("Huh7"), A_CELL)
    published.add("train", stem("Huh7", crop=2), to="images")
    found = LIVECELL.locate(published.write(True))
    assert found.remarks == [Like("^1 images of train.*in val")]
    assert [(item.section, item.fold) for item in found.items] == [("training", 0), ("training", None)]
    assert convert(found, stem("Huh7")).labels.max() == 1  # as val has it


def test_missing_halves_are_problems(published):
    published.add("test", stem("MCF7"))
    published.add("train", stem("MCF7", crop=2), to="images")
    for name in (stem("MCF7", crop=3), "MCF7_Phase_E4_1_00d00h00m_1", "MCF7_Phase_A1_1_00d04h00m_2_masks"):
        tifffile.imwrite(published.folder / "images" / f"{name}.tif", np.zeros(SHAPE, np.uint8))
    lost, unknown = stem("MCF7"), stem("MCF7", crop=3)
    reasons = {lost: rf"for test.*{lost}\.tif.*not there", unknown: rf"images/{unknown}\.tif.*no annotation file"}
    LIVECELL.check_found(published.write(True), [stem("MCF7", crop=2)], reasons)


def test_cell_types_without_images_or_annotations_are_left_out(published):
    published.add("train", stem("A172"))
    published.add("train", stem("BV2"), to="images")
    tifffile.imwrite(published.folder / "images" / f"{stem('SKOV3')}.tif", np.zeros(SHAPE, np.uint8))
    found = LIVECELL.locate(published.write(False))
    assert [item.name for item in found.items] == [stem("BV2")]
    assert found.problems == []
    assert found.remarks == [
        Like("A172.*left out.*no images"),
        Like("SKOV3.*left out.*no annotations"),
    ]


def test_an_image_without_cells_has_an_empty_label_map(published):
    published.add("train", stem("A172"), [], to="images")
    np.testing.assert_array_equal(convert(LIVECELL.locate(published.write(True)), stem("A172")).labels, np.zeros(SHAPE))


def test_annotations_for_all_types_are_not_read_where_those_of_each_are_there(published):
    for cell_type in livecell.TYPES:
        published.add("train", stem(cell_type), to="images")
    folder = published.write(True)
    (folder / "livecell_coco_train.json").write_text("damaged")
    (folder / "0_train2percent.json").write_text("of other experiments")
    assert len(LIVECELL.locate(folder).items) == 8
    (folder / "annotations/LIVECell_single_cells/bv2/train.json").unlink()
    with pytest.raises(DatasetError, match=r"livecell_coco_train\.json.*damaged"):
        LIVECELL.locate(folder)


def test_nothing_to_pair_is_an_error(published):
    published.add("train", stem("A172"), to="images")
    with pytest.raises(DatasetError, match=r"no annotations.*livecell_coco_\{train,val,test\}.json"):
        LIVECELL.locate(published.folder)
    (published.folder / "livecell_a172_val.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DatasetError, match=r"no image.*A172.*no annotations"):
        LIVECELL.locate(published.folder)


def test_items_hold_no_annotations(published):
    published.add("train", stem("BV2"), A_CELL * 50, to="images")
    (item,) = LIVECELL.locate(published.write(True)).items
    assert dict(item.detail) == {}
    assert [path.is_relative_to(published.folder.parent / "work") for path in item.labels] == [True]


def test_folds_of_train_start_at_one_and_keep_wells_together():
    items = [
        Item(f"{t}{n}", "", (), f"{t}_{n // 2}", "training", subsets=(t,)) for t in ("A172", "BV2") for n in range(16)
    ]
    items += [Item("v", "", (), "A172_0", "training", 0), Item("t", "", (), "A172_9", "testing")]
    given = LIVECELL.split(items, 5, 0)
    assert {item.fold for item in given[:16]} == {item.fold for item in given[16:32]} == {1, 2, 3, 4}
    assert len({(item.group, item.fold) for item in given[:32]}) == 16
    assert given[32:] == items[32:]
    assert LIVECELL.split(items[::-1], 5, 0) == given[::-1]
    assert LIVECELL.split([replace(item) for item in items], 5, 1) != given


def test_three_thousand_cells_need_little_memory(published):
    published.shape = (520, 704)
    squares = [[box(9 * (i // 70), 10 * (i % 70), 8, 9)] for i in range(3000)]
    published.add("train", stem("BV2"), squares, to="images")
    found = LIVECELL.locate(published.write(True))
    tracemalloc.start()
    sample = convert(found, stem("BV2"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(np.bincount(sample.labels.ravel())[1:], np.full(3000, 72))
    assert peak < 100e6


def test_from_published_files_to_datalists(published, tmp_path, shuffled_listing):
    bad = "A172_Phase_D7_1_01d20h00m_1"
    assert bad in read_facts("livecell").excluded
    published.add("train", bad, to="images/livecell_train_val_images/A172")
    for number in range(4):
        published.add("train", stem("A172", f"C{number}"), to="images/livecell_train_val_images/A172")
    published.add("val", stem("A172", "C1", 2), to="images/livecell_train_val_images/A172")
    published.add("test", stem("BV2", "D3"), to="images/livecell_test_images/BV2")
    published.write(True)
    prepared, lists = LIVECELL.prepare_in_any_order(shuffled_listing, tmp_path / "raw", tmp_path, n_folds=3)
    assert sorted(lists) == ["livecell", "livecell_A172", "livecell_BV2"]
    assert Like(f"{bad}.*left out") in prepared.remarks
    datalist = lists["livecell"]
    folds = {entry["image"]: entry["fold"] for entry in datalist["training"]}
    assert folds[f"images/{stem('A172', 'C1', 2)}.tif"] == 0
    assert sorted(folds.values()) == [0, 1, 1, 2, 2]
    name = stem("BV2", "D3")
    assert datalist["testing"] == [{"image": f"images/{name}.tif", "label": f"labels/{name}.tif", "group": "BV2_D3"}]
    expected = np.zeros(SHAPE, np.int32)
    expected[2:6, 3:8] = 1
    check_labels(tmp_path / "out1", name, expected)
    assert any("A172_C1" in leak for leak in prepared.leaks)  # train and val share wells as published
