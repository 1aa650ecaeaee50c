"""TissueNet: tiles equal their parent, whole cells are chosen, counts come back exactly, 1.1 gives the lists of 1.0."""

import shutil

import numpy as np
import pytest

from cellbundle.datasets.model import Problem
from cellbundle.datasets.sets.tissuenet import to_counts
from cellbundle.errors import ConfigError, DatasetError, LabelReadError
from cellbundle.io import read_image, read_labels

from ..damage import Call
from ..words import Like
from .contract import DataSet

TISSUENET = DataSet("tissuenet")
SIZES = {"train": 512, "val": 256, "test": 256}
SPECIMENS = {"breast": "Breast", "lung": "Lung", "gi": "Colon", "immune": "Lymph Node"}
KINDS = {
    "train": [("breast", "mibi"), ("lung", "mibi"), ("breast", "mibi"), ("gi", "codex")],
    "val": [("breast", "mibi"), ("lung", "mibi")],
    "test": [("gi", "codex"), ("immune", "cycif")],
}


def counts_of(part):
    """(n, H, W, 2) counts; channel 1 of the first image is constant, channel 0 of the second is all zero."""
    n, size = len(KINDS[part]), SIZES[part]
    rng = np.random.default_rng(list(SIZES).index(part))
    counts = rng.integers(0, 16385, (n, size, size, 2)).astype(np.uint16)
    counts[0, ..., 1] = 11979
    counts[1, ..., 0] = 0
    return counts


def labels_of(part):
    """(n, H, W, 2) ids: whole cells are squares of 64 pixels, each with a nucleus of 16 in its middle."""
    n, size = len(KINDS[part]), SIZES[part]
    y, x = np.indices((size, size))
    cells = 1 + 100 * (y // 64) + x // 64
    nuclei = np.where((abs(y % 64 - 32) < 8) & (abs(x % 64 - 32) < 8), 7 + 2 * cells, 0)
    return np.stack([np.stack([cells, nuclei], -1)] * n).astype(np.int32)


def meta_of(part):
    """The table of 1.1, whose test part has two rows too many."""
    header = ["filename", "experiment", "pixel_size", "screening_passed", "time_step", "specimen"]
    rows = [
        [f"{i}.npz", f"data/2020-{platform.upper()}/x", 0.5, True, None, SPECIMENS[tissue]]
        for i, (tissue, platform) in enumerate(KINDS[part])
    ]
    return np.array([header, *([header, ["?"] * 6] if part == "test" else []), *rows], object)


def write_part(raw, part, version="1.0", **changes):
    arrays = {"X": (counts_of(part) / 16384).astype(np.float32), "y": labels_of(part)}
    if version == "1.0":
        arrays |= dict(zip(("tissue_list", "platform_list"), np.array(KINDS[part]).T, strict=True))
    else:
        arrays["meta"] = meta_of(part)
    arrays |= changes
    raw.mkdir(exist_ok=True, parents=True)
    path = raw / f"tissuenet_v{version}_{part}.npz"
    np.savez(path, allow_pickle=True, **{key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    raw = tmp_path_factory.mktemp("tissuenet") / "tissuenet_1.0"
    for part in SIZES:
        write_part(raw, part)
    return raw


def locate(raw, work, version="1.0", **options):
    work.mkdir(exist_ok=True)
    return TISSUENET.locate(raw, version, work, **options)


def test_names_sections_groups_and_lists(published, tmp_path):
    items = {item.name: item for item in locate(published, tmp_path / "work").items}
    train = ["breast_mibi_train_0", "breast_mibi_train_2", "gi_codex_train_3", "lung_mibi_train_1"]
    others = ["breast_mibi_val_0", "gi_codex_test_0", "immune_cycif_test_1", "lung_mibi_val_1"]
    assert sorted(items) == sorted([f"{name}_{tile}" for name in train for tile in range(4)] + others)
    tile = items["gi_codex_train_3_2"]
    assert (tile.group, tile.section, tile.fold) == ("gi_codex_train_3", None, None)
    assert tile.subsets == ("gi_codex", "gi")
    assert (items["lung_mibi_val_1"].section, items["lung_mibi_val_1"].fold) == ("training", 0)
    assert (items["gi_codex_test_0"].section, items["gi_codex_test_0"].fold) == ("testing", None)


@pytest.mark.parametrize(("compartment", "channel"), [("whole_cell", 0), ("nucleus", 1)])
def test_tiles_are_the_quarters_of_their_parent(published, tmp_path, compartment, channel):
    found = locate(published, tmp_path / "work", compartment=compartment)
    items = {item.name: item for item in found.items}
    counts, labels = counts_of("train"), labels_of("train")[..., channel]
    for index, kind in enumerate(KINDS["train"]):
        for tile, corner in enumerate([(0, 0), (0, 256), (256, 0), (256, 256)]):
            window = tuple(slice(start, start + 256) for start in corner)
            sample = TISSUENET.convert(items[f"{'_'.join(kind)}_train_{index}_{tile}"], compartment=compartment)
            assert sample.image.dtype == np.uint16
            np.testing.assert_array_equal(sample.image[:2], np.moveaxis(counts[index][window], -1, 0))
            assert not sample.image[2].any()
            np.testing.assert_array_equal(sample.labels, labels[index][window])


def test_values_that_are_no_counts_stay(tmp_path):
    values = np.random.default_rng(0).random((2, 256, 256, 2), np.float32)
    values[0, ..., 1] = 0.5  # a channel of counts beside one of others is not converted alone
    write_part(tmp_path / "raw", "val", X=values)
    item = locate(tmp_path / "raw", tmp_path / "work").items[0]
    image = TISSUENET.convert(item).image
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, [values[0, ..., 0], values[0, ..., 1], np.zeros((256, 256))])


@pytest.mark.parametrize(
    ("counts", "scale", "expected"),
    [
        ([0, 1, 2, 9000, 16383], 16383, [0, 1, 2, 9000, 16383]),
        ([3, 5, 16001], 16001, [3, 5, 16001]),
        ([0, 128, 255], 255, [0, 128 * 64, 255 * 64]),  # the largest scale up to 16384 is 64 * 255
        ([0, 0, 0], 16384, [0, 0, 0]),
        ([8192, 8192, 8192], 16384, [8192, 8192, 8192]),
        ([0, 300, 65535], 1, [0, 300, 65535]),
    ],
)
def test_counts_come_back(counts, scale, expected):
    channel = (np.array([counts]) / scale).astype(np.float32)
    before = channel.copy()
    assert to_counts(channel).tolist() == [expected]
    np.testing.assert_array_equal(channel, before)


@pytest.mark.parametrize(
    "values", [[0.1, 0.7312345, 1 / 3], [-0.5, 0.5], [0.5, np.nan], [0, 65536], [2.5, 3.0], [1e-7]]
)
def test_other_values_have_no_counts(values):
    assert to_counts(np.array([values], np.float32)) is None


def test_version_1_1_gives_the_lists_of_1_0(published, tmp_path):
    for part in SIZES:
        write_part(tmp_path / "raw", part, "1.1")
    found = locate(tmp_path / "raw", tmp_path / "work", "1.1")
    older = locate(published, tmp_path / "older")
    assert [(i.name, i.group, i.section, i.fold, i.subsets) for i in found.items] == [
        (i.name, i.group, i.section, i.fold, i.subsets) for i in older.items
    ]
    assert found.remarks == [
        Like(r"tissuenet_v1\.1_test\.npz.*meta.*\b2 rows more.*last 2\b")
    ]  # not the rows that follow the names
    np.testing.assert_array_equal(TISSUENET.convert(found.items[5]).image, TISSUENET.convert(older.items[5]).image)


def test_columns_may_have_the_names_of_1_0(tmp_path):
    meta = np.array([["Platform", "Tissue"], ["MIBI", "skin"], ["", "Nerve / Root"]], object)
    write_part(tmp_path / "raw", "val", "1.1", meta=meta)
    found = locate(tmp_path / "raw", tmp_path / "work", "1.1")
    assert [item.name for item in found.items] == ["skin_mibi_val_0", "nerve-root_unknown_val_1"]
    assert found.remarks == [Like(r"tissuenet_v1\.1_val\.npz.*meta.*platform.*\b1 images")]


def test_a_pickle_in_meta_is_not_executed(tmp_path):
    meta = meta_of("val")
    meta[1, 0] = Call(open, str(tmp_path / "executed"), "w")
    write_part(tmp_path / "raw", "val", "1.1", meta=meta)
    with pytest.raises(DatasetError, match=r"tissuenet_v1\.1_val\.npz.*meta\.npy.*refused.*pickle"):
        locate(tmp_path / "raw", tmp_path / "work", "1.1")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"X": np.zeros((2, 512, 512, 2), np.float32)},
            r"X .*\(2, 512, 512, 2\).*\(n, 256, 256, 2\)",
        ),
        ({"y": np.zeros((1, 256, 256, 2), np.int32)}, r"y \(1, 256, 256, 2\)"),
        ({"X": np.float32(1)}, r"X .*\(\).*\(n, 256, 256, 2\)"),
        ({"X": np.array([None])}, r"_X_.*\.npy.*no array of numbers"),
        ({"y": None}, "array 'y'.* X, tissue_list, platform_list"),
        ({"platform_list": None}, "no meta.*tissue_list.*platform_list.*2 images"),
        ({"tissue_list": np.array(["breast"])}, "no meta.*tissue_list.*platform_list.*2 images"),
        ({"meta": meta_of("val")[:2]}, "meta.*2 rows.* filename,.*2 images"),
        ({"meta": meta_of("val")[:, :5]}, "meta.*3 rows.*specimen.*2 images"),
    ],
)
def test_other_content_is_refused(tmp_path, changes, message):
    write_part(tmp_path / "raw", "val", **changes)
    with pytest.raises(DatasetError, match=message) as caught:
        locate(tmp_path / "raw", tmp_path / "work")
    assert "tissuenet_v1.0_val.npz" in str(caught.value)


@pytest.mark.parametrize("share", [0.9, 0.0])
def test_a_truncated_file_is_refused(published, tmp_path, share):
    content = (published / "tissuenet_v1.0_val.npz").read_bytes()
    (tmp_path / "tissuenet_v1.0_val.npz").write_bytes(content[: int(share * len(content))])
    with pytest.raises(DatasetError, match=r"tissuenet_v1\.0_val\.npz.*damaged.*download"):
        locate(tmp_path, tmp_path / "work")


@pytest.mark.parametrize("ids", [np.full((2, 256, 256, 2), -1), np.full((2, 256, 256, 2), 0.5)])
def test_labels_that_are_no_ids_are_refused(tmp_path, ids):
    write_part(tmp_path / "raw", "val", y=ids)
    item = locate(tmp_path / "raw", tmp_path / "work").items[1]
    with pytest.raises(LabelReadError, match=r"image 1.*whole numbers"):
        TISSUENET.convert(item)


def test_missing_and_repeated_files_are_problems(published, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        shutil.copy(published / "tissuenet_v1.0_val.npz", tmp_path / "raw" / folder)
    shutil.copy(published / "tissuenet_v1.0_test.npz", tmp_path / "raw")
    found = locate(tmp_path / "raw", tmp_path / "work")
    assert [item.name for item in found.items] == ["gi_codex_test_0", "immune_cycif_test_1"]
    assert found.problems == [
        Problem("tissuenet_v1.0_train.npz", Like("is missing")),
        Problem("tissuenet_v1.0_val.npz", Like(r"a/tissuenet_v1\.0_val\.npz, b/tissuenet_v1\.0_val\.npz.*keep one")),
    ]


def test_another_compartment_is_refused(published, tmp_path):
    with pytest.raises(ConfigError, match=r"compartment.*'cytoplasm'.*whole_cell, nucleus"):
        locate(published, tmp_path, compartment="cytoplasm")


def test_published_archive_becomes_datalists(published, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    shutil.make_archive(str(raw / "tissuenet_v1.0"), "zip", published)
    prepared, lists = TISSUENET.prepare(raw, tmp_path / "out", n_folds=3)
    assert prepared.leaks == []
    kinds = ["breast", "breast_mibi", "gi", "gi_codex", "immune", "immune_cycif", "lung", "lung_mibi"]
    assert list(lists) == ["tissuenet", *(f"tissuenet_{kind}" for kind in kinds)]
    folds = {entry["image"]: entry["fold"] for entry in lists["tissuenet_breast_mibi"]["training"]}
    first = folds["images/breast_mibi_train_0_0.tif"]
    assert folds == {"images/breast_mibi_val_0.tif": 0} | {
        f"images/breast_mibi_train_{parent}_{tile}.tif": fold
        for parent, fold in ((0, first), (2, 3 - first))
        for tile in range(4)
    }
    assert {first, 3 - first} == {1, 2}
    assert lists["tissuenet_immune"]["testing"] == [
        {
            "image": "images/immune_cycif_test_1.tif",
            "label": "labels/immune_cycif_test_1.tif",
            "group": "immune_cycif_test_1",
        }
    ]
    image = read_image(tmp_path / "out" / "images" / "gi_codex_train_3_1.tif")
    np.testing.assert_array_equal(image.data[:2], np.moveaxis(counts_of("train")[3, :256, 256:], -1, 0))
    labels = read_labels(tmp_path / "out" / "labels" / "gi_codex_train_3_1.tif")
    np.testing.assert_array_equal(np.unique(labels), np.arange(1, 17))


def test_without_validation_images_the_training_images_make_all_folds(published, tmp_path):
    items = [item for item in locate(published, tmp_path / "work").items if "_train_" in item.name]
    folds = {item.group: item.fold for item in TISSUENET.split(items, 2, 0) if item.subsets[0] == "breast_mibi"}
    assert sorted(folds.values()) == [0, 1]
