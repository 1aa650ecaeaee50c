"""Synthetic images: exact labels, determinism, touching share, files."""

import json

import numpy as np
import pytest
import tifffile
from monai.auto3dseg.utils import datafold_read
from PIL import Image
from scipy import ndimage

from cellbundle.errors import ConfigError
from cellbundle.synthetic import generate, render, write_dataset

KINDS = ("fluorescence", "phase", "he")


def touching_ids(labels):
    """Ids that share a 4-neighbour boundary with another id."""
    found = set()
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        contact = (a != b) & (a > 0) & (b > 0)
        found |= set(a[contact]) | set(b[contact])
    return found


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"),
    [("fluorescence", (96, 130), np.uint16), ("phase", (96, 130), np.uint8), ("he", (96, 130, 3), np.uint8)],
)
def test_shapes_and_dtypes(kind, shape, dtype):
    image, labels = generate(kind, (96, 130), n_cells=8)
    assert (image.shape, image.dtype) == (shape, dtype)
    assert (labels.shape, labels.dtype) == ((96, 130), np.int32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_each_id_is_one_component(kind, seed):
    _, labels = generate(kind, touching=0.6, seed=seed)
    assert labels.max() == 40
    for cell, window in enumerate(ndimage.find_objects(labels), start=1):
        _, n_parts = ndimage.label(labels[window] == cell)
        assert n_parts == 1


@pytest.mark.parametrize("touching", [0, 0.3, 0.8])
def test_share_of_touching_cells(touching):
    _, labels = generate("fluorescence", (512, 512), n_cells=100, touching=touching)
    assert labels.max() == 100
    assert len(touching_ids(labels)) / 100 == pytest.approx(touching, abs=0.1 if touching else 0)


@pytest.mark.parametrize("diameter", [12.0, 40.0])
def test_cells_have_the_wanted_size(diameter):
    _, labels = generate("fluorescence", (512, 512), n_cells=40, diameter=diameter, touching=0)
    median = np.median(np.bincount(labels.ravel())[1:])
    assert 2 * np.sqrt(median / np.pi) == pytest.approx(diameter, rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_seed_decides(kind):
    first, again, other = (generate(kind, (64, 64), n_cells=4, seed=seed) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("kind", "sign"), [("fluorescence", 1), ("phase", -1), ("he", -1)])
def test_cells_stand_out(kind, sign):
    image, labels = generate(kind)
    grey = image.astype(float).reshape(*labels.shape, -1).mean(-1)
    assert sign * (grey[labels > 0].mean() - grey[labels == 0].mean()) > grey[labels == 0].std() / 2


def test_no_cells():
    image, labels = generate("fluorescence", (64, 64), n_cells=0)
    assert not labels.any()
    assert image.std() > 0


@pytest.mark.parametrize("touching", [0, 1])
def test_full_field_has_fewer_cells(touching):
    _, labels = generate("he", (64, 64), n_cells=36, diameter=12, touching=touching)
    assert 10 < labels.max() < 36
    assert np.array_equal(np.unique(labels[labels > 0]), np.arange(1, labels.max() + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_strips_join_without_a_seam(kind, monkeypatch):
    monkeypatch.setattr(render, "_expose", lambda rng, kind, clean: clean)
    whole, _ = generate(kind, (200, 64), n_cells=8, diameter=12)
    monkeypatch.setattr(render, "STRIP_ROWS", 70)
    strips, _ = generate(kind, (200, 64), n_cells=8, diameter=12)
    np.testing.assert_allclose(strips, whole, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "dapi"}, "kind.*'dapi'.*fluorescence, phase, he"),
        ({"size": (0, 10)}, r"size.*\(0, 10\).*height, width"),
        ({"size": (10, 10, 3)}, r"size.*\(10, 10, 3\).*height, width"),
        ({"diameter": 1}, "diameter.* 1;.*at least 4"),
        ({"touching": 30}, "touching.* 30;.* 0 and 1"),
        ({"n_cells": 10_000}, "n_cells.* 10000;.* 0 to 145 "),
        ({"n_cells": -1}, "n_cells.* -1;.* 0 to 145 "),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        generate(**({"kind": "he"} | arguments))


def test_dataset(tmp_path):
    path = write_dataset(tmp_path, n_training=5, n_testing=2, size=(64, 80), seed=1)
    datalist = json.loads(path.read_text())
    everything = datalist["training"] + datalist["testing"]
    assert [entry["fold"] for entry in datalist["training"]] == [0, 1, 2, 3, 0]
    assert [entry["image"] for entry in everything] == sorted(entry["image"] for entry in everything)
    assert len({entry["group"] for entry in everything}) == 7
    training, validation = datafold_read(str(path), str(tmp_path), fold=0)
    assert (len(training), len(validation)) == (3, 2)
    for entry in everything:
        labels = tifffile.imread(tmp_path / entry["label"])
        is_tiff = entry["image"].endswith(".tif")
        image = (
            tifffile.imread(tmp_path / entry["image"]) if is_tiff else np.asarray(Image.open(tmp_path / entry["image"]))
        )
        assert (labels.shape, labels.dtype) == ((64, 80), np.uint16)
        assert labels.max() > 0
        assert (image.shape[:2], image.dtype) == ((64, 80), np.uint16 if is_tiff else np.uint8)


def test_dataset_follows_the_seed(tmp_path):
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_dataset(tmp_path / name, 1, 1, kinds=["phase"], size=(48, 48), seed=seed)
        contents.append([p.read_bytes() for p in sorted((tmp_path / name).rglob("*.png"))])
    assert contents[0] == contents[1] != contents[2]


def test_dataset_without_kinds(tmp_path):
    with pytest.raises(ConfigError, match=r"kinds.*fluorescence, phase, he"):
        write_dataset(tmp_path, kinds=[])
