"""The 2018 Data Science Bowl: no nucleus is lost, whatever its mask looks like."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from cellbundle.datasets.convert import file_hash
from cellbundle.datasets.model import Problem
from cellbundle.datasets.sets import dsb2018
from cellbundle.io import read_image, read_labels

from ..words import Like
from .contract import save
from .running import pack, run

SHAPE = (24, 40)
Y, X = np.indices(SHAPE)


def disc(y, x, radius):
    return (Y - y) ** 2 + (X - x) ** 2 <= radius**2


def prepared_labels(raw, output, **options):
    """Label maps by name."""
    prepared = run(raw, output, **options)
    return prepared, {item.name: read_labels(output / "labels" / f"{item.name}.tif") for item in prepared.items}


def same_partition(labels, masks):
    """Whether each mask is just the pixels of one id; later masks do not matter to the ids."""
    ids = [set(labels[mask]) for mask in masks]
    return all(len(one) == 1 for one in ids) and [int((labels == i.copy().pop()).sum()) for i in ids] == [
        int(mask.sum()) for mask in masks
    ]


def test_every_mask_becomes_one_instance(stage1, tmp_path):
    touching = [disc(8, 8, 4), (X > 12) & (X < 20) & (Y > 3) & (Y < 12), disc(8, 22, 2)]
    disconnected = [disc(4, 4, 2) | disc(18, 30, 2), disc(12, 20, 3)]
    raw = stage1(tmp_path / "raw", {"one": [disc(8, 8, 3)], "touching": touching, "parts": disconnected})
    prepared, labels = prepared_labels(raw, tmp_path / "out")
    assert not prepared.problems
    assert labels["one"].max() == 1
    assert (labels["one"] == disc(8, 8, 3)).all()
    assert same_partition(labels["touching"], touching)
    assert same_partition(labels["parts"], disconnected)


def test_three_hundred_masks_need_and_get_sixteen_bits(stage1, tmp_path):
    masks = [(2 * (i // 20) == Y) & (2 * (i % 20) == X) for i in range(240)] + [(Y == 23) & (i == X) for i in range(30)]
    _, labels = prepared_labels(stage1(tmp_path / "raw", {"many": masks}), tmp_path / "out")
    assert same_partition(labels["many"], masks)
    assert tifffile.imread(tmp_path / "out/labels/many.tif").dtype == np.uint16


def test_a_pixel_of_two_masks_goes_to_the_smaller_one(stage1, tmp_path):
    large, small = disc(10, 10, 6), disc(10, 16, 1)
    _, labels = prepared_labels(stage1(tmp_path / "raw", {"a": [large, small]}), tmp_path / "out")
    assert (large & small).sum() == 2
    assert same_partition(labels["a"], [small, large & ~small])


def test_a_copy_of_a_mask_is_one_nucleus_and_is_remarked(stage1, tmp_path):
    raw = stage1(tmp_path / "raw", {"a": [disc(10, 10, 4), disc(10, 10, 4), disc(10, 30, 2)]})
    prepared, labels = prepared_labels(raw, tmp_path / "out")
    assert labels["a"].max() == 2
    assert Like("1 of 3 masks.*copies") in prepared.remarks


def test_images_keep_their_pixels_and_ids(twelve, tmp_path):
    prepared, labels = prepared_labels(twelve, tmp_path / "out")
    assert [int(labels[f"{n:02d}aa"].max()) for n in range(12)] == list(range(1, 13))
    source = Image.open(twelve / "stage1_train/03aa/images/03aa.png")
    assert (read_image(tmp_path / "out/images/03aa.png").data == np.moveaxis(np.asarray(source)[..., :3], -1, 0)).all()
    assert len(prepared.items) == 12


def test_the_archive_in_an_archive_gives_the_same(twelve, tmp_path):
    inner = tmp_path / "stage1_train.zip"
    pack(twelve, inner)
    (tmp_path / "packed").mkdir()
    with zipfile.ZipFile(tmp_path / "packed/data-science-bowl-2018.zip", "w") as archive:
        archive.write(inner, "stage1_train.zip")
        archive.writestr("stage1_sample_submission.csv", "ImageId,EncodedPixels\n")
    run(twelve, tmp_path / "out")
    run(tmp_path / "packed/data-science-bowl-2018.zip", tmp_path / "out2")
    run(tmp_path / "packed", tmp_path / "out3")
    hashes = [pd.read_csv(tmp_path / out / "manifest.csv").set_index("path") for out in ("out", "out2", "out3")]
    for other in hashes[1:]:
        pd.testing.assert_series_equal(hashes[0].sha256.drop("report.html"), other.sha256.drop("report.html"))


def test_an_image_without_masks_is_an_error_and_the_others_are_there(twelve, tmp_path):
    for path in (twelve / "stage1_train/05aa/masks").iterdir():
        path.unlink()
    (twelve / "stage1_train/06aa/images/06aa.png").unlink()
    prepared, labels = prepared_labels(twelve, tmp_path / "out")
    assert [problem.name for problem in prepared.problems] == ["05aa", "06aa"]
    assert prepared.problems[0].reason == Like("1 images.*0 masks")
    assert len(labels) == 10


def test_a_mask_of_another_size_is_named(twelve, tmp_path):
    Image.new("L", (5, 4), 255).save(twelve / "stage1_train/04aa/masks/ff.png")
    prepared, _ = prepared_labels(twelve, tmp_path / "out")
    assert prepared.problems == [Problem("04aa", Like(r"ff\.png.*4x5.*20x30"))]


def test_folders_without_any_masks_are_no_errors(twelve, tmp_path):
    shutil.copytree(twelve / "stage1_train", twelve / "stage1_test")
    for masks in (twelve / "stage1_test").glob("*/masks"):
        shutil.rmtree(masks)
    for folder in (twelve / "stage1_test").iterdir():
        folder.rename(folder.with_name(f"test{folder.name}"))
    prepared, _ = prepared_labels(twelve, tmp_path / "out")
    assert prepared.problems == []
    assert len(prepared.items) == 12
    assert Like("^12 images.* stage1_test/test00aa") in prepared.remarks


def test_known_images_have_the_split_by_field(stage1, tmp_path):
    known = {"00071198d059ba7f": ("f000", 1), "003cee89357d9fe1": ("f001", 0)}
    raw = stage1(tmp_path / "raw", {name + "0" * 48: [disc(5, 5, 3)] for name in known} | {"other": [disc(9, 9, 3)]})
    prepared, _ = prepared_labels(raw, tmp_path / "out")
    found = {item.name[:16]: (item.group, item.fold) for item in prepared.items}
    assert {name: found[name] for name in known} == known
    assert {item.section for item in prepared.items} == {"training"}
    assert Like("1 images.*field") in prepared.remarks


def test_the_table_of_fields_splits_none():
    table = pd.read_csv(dsb2018.FIELDS, dtype=str, keep_default_na=False)
    assert len(table) == 570
    assert table.id.is_unique
    assert (table.groupby("field")[["section", "fold"]].nunique() == 1).all(axis=None)
    assert table.section.value_counts().to_dict() == {"training": 455, "testing": 115}


def test_the_subset_of_stardist_keeps_its_sections(tmp_path):
    for section, names in {"train": "abcdef", "test": "xy"}.items():
        for number, name in enumerate(names):
            labels = (disc(8, 8, 4) * 1 + disc(8, 25, 3) * 300).astype(np.uint16)
            save(tmp_path / f"dsb2018/{section}/masks/{name}.tif", labels)
            save(tmp_path / f"dsb2018/{section}/images/{name}.tif", (labels + number).astype(np.uint8))
    prepared, labels = prepared_labels(tmp_path, tmp_path / "out")
    assert prepared.variant == "stardist"
    assert {item.name: item.section for item in prepared.items}["x"] == "testing"
    assert (labels["a"] == disc(8, 8, 4) * 1 + disc(8, 25, 3) * 2).all()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Every fourth real image in the published layout."""
    source = Path(os.environ.get("CELLBUNDLE_TEST_DATA", ""), "dsb2018")
    if not (source / "metadata.csv").is_file():
        pytest.skip("needs the images of DSB2018 in $CELLBUNDLE_TEST_DATA")
    raw = tmp_path_factory.mktemp("real")
    metadata = pd.read_csv(source / "metadata.csv").iloc[::4]
    for name in metadata.id:
        folder = raw / "stage1_train" / name
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        Image.open(source / "images" / f"{name}.png").convert("RGBA").save(folder / "images" / f"{name}.png")
        labels = read_labels(source / "labels" / f"{name}.png")
        for label in range(1, labels.max() + 1):
            Image.fromarray((labels == label).astype(np.uint8) * 255).save(folder / "masks" / f"{label * 37 % 509}.png")
    return raw, metadata


@pytest.mark.slow
def test_real_images_keep_every_instance_and_no_group_is_split(real, tmp_path, shuffled_listing):
    raw, metadata = real
    texts = []
    for seed in range(2):
        shuffled_listing(seed)
        prepared = run(raw, tmp_path / f"out{seed}", workers=2)
        texts.append((tmp_path / f"out{seed}/dsb2018.json").read_bytes())
        assert {name: record.instances for name, record in prepared.records.items()} == dict(
            zip(metadata.id, metadata.n_instances, strict=True)
        )
    assert texts[0] == texts[1]
    group = dict(zip(metadata.id, metadata.group, strict=True))
    content = json.loads(texts[0])
    places = {
        (group[Path(entry["image"]).stem], section, entry.get("fold"))
        for section, entries in content.items()
        for entry in entries
    }
    assert len(places) == metadata.group.nunique()
    assert sum(map(len, content.values())) == len(metadata)


def test_the_ready_list_agrees_with_the_table_and_with_its_hash():
    folder = Path(__file__).parents[2] / "datalists"
    content = json.loads((folder / "dsb2018.json").read_text())
    table = pd.read_csv(dsb2018.FIELDS, dtype=str, keep_default_na=False)
    found = [
        (Path(entry["image"]).stem[:16], entry["group"], section, str(entry.get("fold", "")))
        for section, entries in content.items()
        for entry in entries
    ]
    assert sorted(found) == sorted(table.itertuples(index=False, name=None))
    assert file_hash(folder / "dsb2018.json") in (folder / "README.md").read_text()
