"""Omnipose: flows are no images, stems come again, and fields are in two subsets."""

import shutil

import numpy as np
import pytest

from cellbundle.datasets.model import Problem
from cellbundle.io import read_image

from ..words import Like
from .contract import DataSet, check_labels, save, sizes

OMNIPOSE = DataSet("omnipose")
RODS = np.zeros((20, 24), np.uint8)
RODS[2:5, 3:15], RODS[8:18, 5:8] = 3, 7


def write(folder, stem, seed=0, labels=RODS):
    save(folder / f"{stem}.tif", np.random.default_rng(seed).random(labels.shape, np.float32))
    save(folder / f"{stem}_masks.tif", labels)
    save(folder / f"{stem}_flows.tif", np.zeros((5, *labels.shape), np.float32))


@pytest.fixture
def published(tmp_path):
    """Two species with the same stems, four images each, and worms without species."""
    raw, seeds = tmp_path / "raw", iter(range(100))
    for subset in ("bact_fluor", "bact_phase"):
        for part, stems in (("train", "ijkl"), ("test", "ix")):
            for species in "ab":
                for stem in stems:
                    write(raw / subset / f"{part}_sorted" / species, stem, next(seeds))
    for part in ("train", "test"):
        for number in range(3):
            write(raw / "worm" / part, f"c_elegans_{number}", next(seeds))
            write(raw / "worm_high_res" / part, f"c_elegans_{number}", next(seeds))
    return raw


@pytest.mark.parametrize("with_hidden_files", [True, False])
def test_published_files_become_datalists(published, tmp_path, with_hidden_files):
    if with_hidden_files:  # Finder's, which are no species
        for folder in (published, *published.rglob("*sorted"), *published.rglob("a")):
            (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    prepared, lists = OMNIPOSE.prepare(published, tmp_path / "out", n_folds=2)
    assert sizes(lists) == {
        "omnipose": (19, 11),
        "omnipose_bact_fluor": (8, 4),
        "omnipose_bact_phase": (8, 4),
        "omnipose_worm": (3, 3),
    }
    assert [entry["image"] for entry in lists["omnipose_bact_fluor"]["testing"]] == [
        "images/bact_fluor_test_a_i.tif",
        "images/bact_fluor_test_a_x.tif",
        "images/bact_fluor_test_b_i.tif",
        "images/bact_fluor_test_b_x.tif",
    ]
    assert lists["omnipose_worm"]["testing"][0]["image"] == "images/worm_test_c_elegans_0.tif"
    assert prepared.leaks == []


def test_an_archive_is_unpacked(published, tmp_path):
    shutil.make_archive(str(tmp_path / "packed" / "datasets"), "zip", published)
    prepared, _ = OMNIPOSE.prepare(tmp_path / "packed", tmp_path / "out", n_folds=2)
    assert len(prepared.items) == 30


def test_flows_are_neither_images_nor_labels(published):
    found = OMNIPOSE.locate(published)
    assert found.problems == []
    assert len(found.items) == 30
    files = [path.name for item in found.items for path in (item.image, *item.labels)]
    assert not [name for name in files if "_flows" in name]


def test_image_and_labels_belong_together(published, tmp_path):
    labels = np.flip(RODS, 0) * 2
    write(published / "bact_phase" / "test_sorted" / "b", "i", 77, labels)
    OMNIPOSE.prepare(published, tmp_path / "out", n_folds=2)
    copy = tmp_path / "out" / "images" / "bact_phase_test_b_i.tif"
    expected = np.random.default_rng(77).random(RODS.shape, np.float32)
    np.testing.assert_array_equal(read_image(copy).data[0], expected)
    check_labels(tmp_path / "out", "bact_phase_test_b_i", np.searchsorted([0, 6, 14], labels))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_ids_of_any_type(tmp_path, dtype):
    write(tmp_path / "worm" / "train", "x", labels=RODS.astype(dtype))
    np.testing.assert_array_equal(OMNIPOSE.convert_only(tmp_path).labels, RODS)


def test_a_single_cell_is_no_binary_mask(tmp_path):
    write(tmp_path / "worm" / "train", "x", labels=np.uint8(RODS > 0))
    np.testing.assert_array_equal(OMNIPOSE.convert_only(tmp_path).labels, RODS > 0)


def test_missing_parts_are_reported(published):
    folder = published / "bact_fluor" / "train_sorted" / "a"
    (folder / "i_masks.tif").unlink()
    (folder / "j.tif").unlink()
    where = "bact_fluor/train_sorted/a"
    assert OMNIPOSE.locate(published).problems == [
        Problem("bact_fluor_train_a_i", Like(rf"{where}/i\.tif.*no label file")),
        Problem("bact_fluor_train_a_j", Like(rf"{where}/j_masks\.tif.*no image")),
    ]


def test_worms_at_high_resolution_on_request(published):
    save(published / "worm_high_res" / "train" / "c_elegans_0_masks.png", RODS)
    (published / "worm_high_res" / "train" / "c_elegans_0_masks.tif").unlink()
    assert not [item.name for item in OMNIPOSE.locate(published).items if "high_res" in item.name]
    items = {item.name: item for item in OMNIPOSE.locate(published, worm_high_res=True).items}
    assert len(items) == 36
    item = items["worm_high_res_train_c_elegans_0"]
    np.testing.assert_array_equal(OMNIPOSE.convert(item).labels, RODS)
    assert item.group == items["worm_train_c_elegans_0"].group


def test_worms_alone(published, tmp_path):
    for subset in ("bact_fluor", "bact_phase"):
        shutil.rmtree(published / subset)
    prepared, lists = OMNIPOSE.prepare(published, tmp_path / "out", n_folds=3)
    assert prepared.variant == "worm"
    assert list(lists) == ["omnipose"]


POSITIONS = {
    "A22 s_flex_a22_xy5": ["A22/s_flex_a22_t12xy5c1_tile10_phase", "A22/s_flex_a22_t12xy5c1_tile9_cyto"],
    "bthai bthai_f_xy1": ["bthai/bthai_f_t001xy1_tile_3", "bthai/bthai_f_t010xy1_tile7"],
    "bthai xy5": ["bthai/xy5_001", "bthai/xy5_008"],
    "cex cex_xy2": ["cex/cex_t1xy2c1_Tile5", "cex/cex_t1xy2c1_Tile9"],
    "cex cex_xy3": ["cex/cex_xy3c1_tile_1", "cex/cex_xy3c1_tile_16"],
    "PSVB PSVB_b_xy1": ["PSVB/PSVB_b_t-1xy1_tile3", "PSVB/PSVB_b_t-1xy1_tile16"],
    "serratia Serratia_Ecoli_xy2": ["serratia/Serratia_Ecoli_T14XY2C1_tile9", "serratia/Serratia_Ecoli_T14XY2C1_tile6"],
    "streptomyces streptomyces_xy17": ["streptomyces/streptomyces_XY17_3", "streptomyces/streptomyces_XY17_4"],
    "train hpylori Hpylori_ensemble_4": ["hpylori/Hpylori_ensemble_4"],
}


def test_groups_are_stage_positions_and_stay_in_one_fold(tmp_path):
    for seed, path in enumerate(path for paths in POSITIONS.values() for path in paths):
        species, stem = path.split("/")
        for subset in ("bact_fluor", "bact_phase"):
            write(tmp_path / "raw" / subset / "train_sorted" / species, stem, seed + 50 * (subset == "bact_phase"))
    prepared, _ = OMNIPOSE.prepare(tmp_path / "raw", tmp_path / "out", n_folds=4)
    groups = {item.name: item.group for item in prepared.items}
    assert groups == {
        f"{subset}_train_{path.replace('/', '_')}": group
        for group, paths in POSITIONS.items()
        for path in paths
        for subset in ("bact_fluor", "bact_phase")
    }
    assert len({(item.group, item.fold) for item in prepared.items}) == len(POSITIONS)
    assert {item.fold for item in prepared.items} == {0, 1, 2, 3}


def test_both_subsets_have_a_field_in_the_same_fold(tmp_path):
    tiles = {("bact_phase", 1): 3, ("bact_phase", 2): 1, ("bact_fluor", 1): 1, ("bact_fluor", 2): 2}  # of a position
    for seed, ((subset, position), n) in enumerate(tiles.items()):
        for tile in range(n):
            write(tmp_path / subset / "train_sorted" / "cex", f"cex_xy{position}c1_tile{tile}", 10 * seed + tile)
    items = OMNIPOSE.split(OMNIPOSE.locate(tmp_path).items, 2, 0)
    assert {(item.group, item.fold) for item in items} == {("cex cex_xy1", 0), ("cex cex_xy2", 1)}
    assert {item.subsets for item in items} == {("bact_phase",), ("bact_fluor",)}


def test_a_field_in_training_and_testing_is_named(tmp_path):
    for seed, (part, tile) in enumerate([("train", 1), ("train", 2), ("test", 3)]):
        write(tmp_path / "raw" / "bact_phase" / f"{part}_sorted" / "A22", f"a22_t1xy5_tile{tile}", seed)
    prepared, _ = OMNIPOSE.prepare(tmp_path / "raw", tmp_path / "out", n_folds=2)
    assert prepared.leaks == [Like("group 'A22 a22_xy5' .*fold 0 and testing")]


def test_the_order_of_directories_changes_nothing(published, tmp_path, shuffled_listing):
    OMNIPOSE.prepare_in_any_order(shuffled_listing, published, tmp_path)
