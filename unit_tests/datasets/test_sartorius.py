"""Sartorius: run lengths along the rows, and plates and wells that stay together."""

import csv

import numpy as np
import pytest
from PIL import Image

from cellbundle.datasets.facts import read_facts
from cellbundle.datasets.model import Problem
from cellbundle.datasets.splits import hold_out
from cellbundle.errors import DatasetError, LabelReadError
from cellbundle.instances.overlaps import labels_to_rles
from cellbundle.io import read_labels

from ..words import Like
from .contract import DataSet

SARTORIUS = DataSet("sartorius")
WIDTH, HEIGHT = 704, 520
HEADER = (
    ["id", "annotation", "width", "height", "cell_type", "plate_time", "sample_date", "sample_id", "elapsed_timedelta"]
)  # fmt: skip
CELLS = ["1 3", "705 2"]  # the first three pixels of the first row, and the first two of the second


class Published:
    """``train.csv`` and ``train`` as they are published."""

    def __init__(self, folder):
        self.folder, self.rows, self.n = folder, [], 0

    def add(self, *, sample="shsy5y[diff]_E10-4_Vid-1", cells=CELLS, size=(WIDTH, HEIGHT), png=True, name=None):
        """Add an image; returns its id."""
        self.n += 1
        name = name or f"{self.n:012x}"
        cell_type = sample.split("[")[0].replace("astros", "astro")
        for text in cells:
            values = (name, text, *size, cell_type, "11h30m00s", "2019-06-16", sample, "0 days 11:30:00")
            self.rows.append(dict(zip(HEADER, values, strict=True)))
        if png:
            self.write_png(f"train/{name}.png")
        return name

    def write_png(self, name):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(self.n).integers(0, 9, (HEIGHT // 8, WIDTH // 8)).astype(np.uint8)
        Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(path, compress_level=1)

    def locate(self):
        self.write()
        return SARTORIUS.locate(self.folder)

    def convert(self, **options):
        """Convert the only image."""
        self.write()
        return SARTORIUS.convert_only(self.folder, **options)

    def write(self):
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "train.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, HEADER)
            writer.writeheader()
            writer.writerows(self.rows)


@pytest.fixture
def published(tmp_path):
    return Published(tmp_path / "raw")


def rows_of(mask):
    """Run lengths as the competition has them: from 1, along the rows."""
    (text,) = labels_to_rles(mask.astype(np.int32), "kaggle_rows")
    return text


def mask(*boxes):
    result = np.zeros((HEIGHT, WIDTH), bool)
    for y, x, height, width in boxes:
        result[y : y + height, x : x + width] = True
    return result


def test_run_lengths_count_along_the_rows_from_one(published):
    published.add(cells=["1 3 707 1", "365376 705"])  # the last 705 pixels: a row and one pixel before it
    expected = np.zeros((HEIGHT, WIDTH), np.int32)
    expected[0, :3] = expected[1, 2] = 1
    expected[-1] = expected[-2, -1] = 2
    np.testing.assert_array_equal(published.convert().labels, expected)


def test_of_overlapping_cells_the_smaller_is_on_top(published):
    large, small, other = mask((10, 20, 40, 60)), mask((15, 30, 5, 9)), mask((45, 70, 20, 30))
    published.add(cells=[rows_of(m) for m in (small, large, other)])
    expected = np.zeros((HEIGHT, WIDTH), np.int32)
    expected[large], expected[other], expected[small] = 2, 3, 1
    sample = published.convert()
    np.testing.assert_array_equal(sample.labels, expected)
    assert sample.remarks == ()


def test_copies_of_a_cell_are_counted(published):
    published.add(cells=[CELLS[0], *CELLS])
    sample = published.convert()
    assert sample.remarks[0] == Like("^1 of 3 cells.*copies")
    assert np.bincount(sample.labels.ravel())[1:].tolist() == [3, 0, 2]


def test_holes_are_filled_only_if_wanted_and_only_those_of_the_cell_itself(published):
    ring = mask((10, 20, 9, 12)) & ~mask((12, 23, 3, 4))
    open_ring = mask((30, 0, 9, 12)) & ~mask((32, 0, 3, 4))  # the hole reaches the edge of the image
    published.add(cells=[rows_of(ring), rows_of(open_ring)])
    np.testing.assert_array_equal(published.convert().labels, ring + 2 * open_ring)
    filled = published.convert(fill_holes=True).labels
    np.testing.assert_array_equal(filled, mask((10, 20, 9, 12)) + 2 * open_ring)


def test_run_lengths_that_leave_the_image_name_table_and_image(published):
    name = published.add(cells=["366080 2"])
    with pytest.raises(LabelReadError, match=f"train.csv.*image {name}.*mask 0"):
        published.convert()


@pytest.mark.parametrize(
    ("sample", "group"),
    [
        ("shsy5y[diff]_E10-4_Vid-1_2019-06-16", "shsy5y[diff]_E10"),
        ("astros[cereb]_A2-2", "astros[cereb]_A2"),
        ("cort[oka-high]_B5-3_Vid2", "cort[oka-high]_B5"),
        ("something else", "something else"),
    ],
)
def test_groups_are_plate_and_well(published, sample, group):
    published.add(sample=sample)
    assert published.locate().items[0].group == group


def test_missing_halves_are_problems_and_other_folders_are_not_looked_at(published):
    good, lost = published.add(), published.add(png=False)
    double = published.add(sample="shsy5y[diff]_A1-1")
    published.rows[-1]["sample_id"] = "shsy5y[diff]_A2-1"
    for name in ("train/ffffffffffff.png", "test/7ae19de7bc2a.png", "train_semi_supervised/astro[hippo]_1.png"):
        published.write_png(name)
    published.write()
    reasons = {
        lost: rf"train\.csv.*train/{lost}\.png.*not there",
        double: r"different width, height, cell_type, sample_id.*train\.csv",
        "ffffffffffff": r"train/ffffffffffff\.png.*no row.*train\.csv",
    }
    SARTORIUS.check_found(published.folder, [good], reasons)


def test_an_empty_row_is_an_image_without_cells(published):
    published.add(cells=[""])
    assert not published.convert().labels.any()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("id,annotation\na,1 2\n", "columns expected but not found"),
        ("id,annotation,width,height,cell_type,sample_id\na,1 2,wide,520,cort,c\n", "invalid literal"),
        ("", "No columns to parse"),
    ],
)
def test_another_table_is_refused(published, content, reason):
    published.add()
    published.write()
    (published.folder / "train.csv").write_text(content)
    with pytest.raises(DatasetError, match=rf"train.csv.*columns id, annotation.*{reason}"):
        SARTORIUS.locate(published.folder)


def test_each_cell_type_has_testing_images_and_whole_wells_in_one_place(published):
    for plate in ("shsy5y[diff]", "cort[debris]", "astro[hippo]"):
        for well in range(20):
            for place in (1, 2):
                published.add(sample=f"{plate}_C{well}-{place}")
    items = published.locate().items
    given = SARTORIUS.split(hold_out(items, 0.1, 0), 5, 0)
    assert [item.name for item in given] == [item.name for item in items]
    assert len({(item.group, item.section, item.fold) for item in given}) == 60
    for cell_type in ("shsy5y", "cort", "astro"):
        of_type = [item for item in given if item.subsets == (cell_type,)]
        assert sum(item.section == "testing" for item in of_type) == 4
        assert {item.fold for item in of_type} == {None, 0, 1, 2, 3, 4}
    assert SARTORIUS.split(hold_out(items[::-1], 0.1, 0), 5, 0) == given[::-1]
    assert SARTORIUS.split(hold_out(items, 0.1, 1), 5, 1) != given


def test_from_published_files_to_datalists(published, tmp_path, shuffled_listing):
    excluded = published.add(name="03b27b381a5f", sample="cort[debris]_H1-1")
    assert excluded in read_facts("sartorius").excluded
    wrong = published.add(size=(HEIGHT, WIDTH))
    for plate in ("cort[debris]", "astro[hippo]"):
        for well in range(4):
            published.add(sample=f"{plate}_C{well}-1")
    published.write()
    prepared, lists = SARTORIUS.prepare_in_any_order(
        shuffled_listing,
        tmp_path / "raw",
        tmp_path,
        problems=[Problem(wrong, Like("image.*520x704.*labels.*704x520"))],
        n_folds=2,
        test_share=0.25,
    )
    assert sorted(lists) == ["sartorius", "sartorius_astro", "sartorius_cort"]
    assert Like("03b27b381a5f.*left out.*its annotations are wrong") in prepared.remarks
    datalist = lists["sartorius"]
    assert (len(datalist["training"]), len(datalist["testing"])) == (6, 2)
    labels = read_labels(tmp_path / "out1" / datalist["testing"][0]["label"])
    assert (labels[0, :4].tolist(), labels[1, :3].tolist(), labels.sum()) == ([1, 1, 1, 0], [2, 2, 0], 7)
