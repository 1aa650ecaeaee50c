"""YeaZ: fields are never split, dots in names stay, time series become images."""

import shutil

import numpy as np
import pytest
import tifffile

from cellbundle.datasets.model import Problem
from cellbundle.datasets.splits import hold_out
from cellbundle.errors import CellBundleError
from cellbundle.io import read_image

from ..words import Like
from .contract import DataSet, check_labels, save, sizes

YEAZ = DataSet("yeaz")
BF, PHC = "gold-standard-BF-V-1", "gold-standard-PhC-plus-2"


def cells(seed):
    labels = np.zeros((24, 30), np.uint16)
    labels[2:7, 3:9], labels[7:12, 9:15], labels[15:20, seed % 20 : seed % 20 + 6] = 4, 2, 9
    return labels


def picture(seed, shape=(24, 30)):
    return np.random.default_rng(seed).integers(0, 60000, shape, np.uint16)


def write(folder, name, image, labels):
    save(folder / f"{name}_im.tif", image, photometric="minisblack")
    save(folder / f"{name}_mask.tif", labels, photometric="minisblack")


def write_seeded(folder, name, seed):
    write(folder, name, picture(seed), cells(seed))


@pytest.fixture
def published(tmp_path):
    """Bright field: 8 fields with 2 settings and 2 crops; phase contrast: 7 fields with up to 2 crops."""
    raw, seed = tmp_path / "raw", 0
    for number in range(1, 9):
        for setting in ("1.5", "5"):
            for crop in (1, 2):
                write_seeded(raw / BF, f"wtF{number}BF_{setting}_crop_{crop}", seed := seed + 1)
    for number in range(7):
        for crop in range(1, 3 if number < 2 else 2):
            write_seeded(raw / PHC, f"FOV{number}_20p_PhC_present_crop_{crop}", seed := seed + 1)
    return raw


def test_both_archives_become_datalists(published, tmp_path):
    for folder in (BF, PHC):
        shutil.make_archive(str(tmp_path / "packed" / folder), "gztar", published, folder)
    prepared, lists = YEAZ.prepare(tmp_path / "packed", tmp_path / "out", n_folds=3)
    assert prepared.leaks == []
    assert sizes(lists) == {
        "yeaz": (36, 5),
        "yeaz_bf": (28, 4),
        "yeaz_phc": (8, 1),
    }
    entries = {entry["image"]: entry for section in lists["yeaz"].values() for entry in section}
    name = "wtF3BF_1.5_crop_2"
    assert entries[f"images/{name}.tif"]["label"] == f"labels/{name}.tif"
    assert entries[f"images/{name}.tif"]["group"] == "wtF3BF"
    assert entries["images/FOV1_20p_PhC_present_crop_2.tif"]["group"] == "FOV1_20p_PhC_present"
    for content in lists.values():
        held = {entry["group"] for entry in content["testing"]}
        assert held.isdisjoint(entry["group"] for entry in content["training"])


@pytest.mark.parametrize("subset", [BF, PHC])
def test_one_subset_alone(published, tmp_path, subset):
    shutil.rmtree(published / (PHC if subset == BF else BF))
    prepared, lists = YEAZ.prepare(published, tmp_path / "out", n_folds=3)
    assert list(lists) == ["yeaz"]
    assert {item.section for item in prepared.items} == {"training", "testing"}


def test_fields_stay_together_for_every_seed(published):
    items = YEAZ.locate(published).items
    for seed in range(10):
        done = YEAZ.split(hold_out(items, 0.15, seed), 5, seed)
        assert [item.name for item in done] == [item.name for item in items]
        places = {(item.group, item.section, item.fold) for item in done}
        assert len(places) == len({item.group for item in items}) == 15
        assert sum(item.section == "testing" and item.subsets == ("bf",) for item in done) == 4


def test_labels_are_the_published_ones(published, tmp_path):
    YEAZ.prepare(published, tmp_path / "out", n_folds=3)
    check_labels(tmp_path / "out", "wtF1BF_1.5_crop_2", np.searchsorted([0, 2, 4, 9], cells(2)))
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "images" / "wtF1BF_1.5_crop_2.tif").data[0], picture(2))


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("wtF11BF_5_crop_1", "wtF11BF"),
        ("cdc20F10BF_1.5_crop_2", "cdc20F10BF"),
        ("2020_3_24_AS20_1_AS18_Pos11_crop_1", "2020_3_24_AS20_1_AS18_Pos11"),
        ("Ahmad_frame_16_crop_4", "Ahmad"),
        ("Ahmad_frame_19_crop_1", "Ahmad"),
        ("d_reexport2_crop_3", "d_reexport2"),
    ],
)
def test_groups_are_fields(tmp_path, name, field):
    write_seeded(tmp_path / BF, name, 1)
    assert [item.group for item in YEAZ.locate(tmp_path).items] == [field]


@pytest.mark.parametrize("imagej", [True, False])
def test_frames_of_a_time_series_become_images(tmp_path, imagej):
    images, labels = picture(5, (3, 24, 30)), np.stack([cells(seed) for seed in (1, 6, 11)])
    folder = tmp_path / "raw" / PHC
    write_seeded(folder, "other_crop_1", 1)
    for kind, values in (("im", images), ("mask", labels)):
        metadata = {"axes": "TYX"} if imagej else None
        path = folder / f"movie_crop_1_{kind}.tif"
        tifffile.imwrite(path, values, photometric="minisblack", imagej=imagej, metadata=metadata)
    prepared, _ = YEAZ.prepare(tmp_path / "raw", tmp_path / "out", n_folds=2)
    assert [item.name for item in prepared.items] == [*(f"movie_crop_1_t00{i}" for i in range(3)), "other_crop_1"]
    assert {item.group for item in prepared.items[:3]} == {"movie"}
    assert len({(item.section, item.fold) for item in prepared.items[:3]}) == 1
    for frame in range(3):
        name = f"movie_crop_1_t00{frame}"
        np.testing.assert_array_equal(read_image(tmp_path / f"out/images/{name}.tif").data[0], images[frame])
        check_labels(tmp_path / "out", name, np.searchsorted([0, 2, 4, 9], labels[frame]))


def test_broken_pairs_are_reported(published):
    (published / BF / "wtF1BF_5_crop_1_mask.tif").unlink()
    write(published / PHC, "movie_crop_1", picture(1, (3, 24, 30)), cells(1))
    write(published / PHC, "torn_crop_1", picture(1), cells(1))
    (published / PHC / "torn_crop_1_mask.tif").write_bytes(b"<html>")
    found = YEAZ.locate(published)
    assert len(found.items) == 40
    assert found.problems == [
        Problem("wtF1BF_5_crop_1", Like(rf"{BF}/wtF1BF_5_crop_1_im\.tif.*no label file")),
        Problem("movie_crop_1", Like(r"movie_crop_1_im\.tif.* 3 frames.*label file 1")),
        Problem("torn_crop_1", Like(r"torn_crop_1_mask\.tif.*TIFF")),
    ]


def test_bad_frames_are_refused(tmp_path):
    values = np.stack([cells(1), cells(2)])
    write(tmp_path / PHC, "movie_crop_1", picture(1, (2, 24, 30)), values.astype(np.float32))
    first, second = YEAZ.locate(tmp_path).items
    with pytest.raises(CellBundleError, match=r"movie_crop_1_mask\.tif.*2-D integer.*float32"):
        YEAZ.convert(first)
    whole = first.image.read_bytes()
    first.image.write_bytes(whole[: len(whole) - 500])
    tifffile.imwrite(first.labels[0], values)
    with pytest.raises(CellBundleError, match=r"movie_crop_1_im\.tif.*frame 1 "):
        YEAZ.convert(second)


def test_each_subset_gives_its_share_of_testing_images(published):
    items = YEAZ.split(hold_out(YEAZ.locate(published).items, 0.25, 0), 3, 0)
    assert sum(item.section == "testing" for item in items if item.subsets == ("bf",)) == 8


def test_the_order_of_directories_changes_nothing(published, tmp_path, shuffled_listing):
    YEAZ.prepare_in_any_order(shuffled_listing, published, tmp_path)
