"""NeurIPS 2022: pairs whatever the suffix, kinds of images, tuning as fold 0, parts without labels."""

import numpy as np
import pytest
import tifffile

from cellbundle.errors import DatasetError, ImageReadError
from cellbundle.io import read_image

from ..words import Like
from .contract import DataSet, check_labels, save

NEURIPS = DataSet("neurips2022")
SHAPE = (20, 30)


def pixels(seed, *channels, dtype=np.uint8):
    """(H, W) or (H, W, C) values over the whole range of the type."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (*SHAPE, *channels), dtype, endpoint=True)


def ids(n):
    """n columns of cells with ids 3, 6, 9, ..., so that no decoder can make them up."""
    labels = np.zeros(SHAPE, np.uint16)
    for i in range(n):
        labels[2:15, 2 * i] = 3 * (i + 1)
    return labels


KINDS = {
    "cell_00001.png": pixels(1),
    "cell_00002.bmp": pixels(2, 3),
    "cell_00003.tif": pixels(3, dtype=np.uint16),
    "cell_00004.tiff": pixels(4, 3, dtype=np.uint16),
    "cell_00005.PNG": pixels(5, 4),
}


def write(folder, name, image, n_cells=None):
    """An image with its label map of ``n_cells``."""
    path = folder / "images" / name
    save(path, image, photometric="rgb" if image.ndim == 3 else "minisblack")
    if n_cells is not None:
        save(folder / "labels" / f"{path.stem}_label.tiff", ids(n_cells))
    return path


@pytest.fixture
def published(tmp_path):
    raw = tmp_path / "raw"
    for n, (name, image) in enumerate(KINDS.items(), start=1):
        write(raw / "Training-labeled", name, image, n)
    for number in (1, 2):
        write(raw / "Tuning", f"cell_{number:05d}.tiff", pixels(20 + number), 2)
        write(raw / "Testing" / "Public", f"OpenTest_{number:03d}.tif", pixels(30 + number, 3), 3)
    write(raw / "Testing" / "Hidden", "TestHidden_001.png", pixels(40))
    write(raw / "release-part1", "unlabeled_cell_00000.png", pixels(50))
    return raw


def test_folders_become_a_datalist(published, tmp_path):
    _, lists = NEURIPS.prepare(published, tmp_path / "out", n_folds=3)
    assert list(lists) == ["neurips2022"]
    datalist = lists["neurips2022"]
    names = ["cell_00001.png", "cell_00002.bmp", "cell_00003.tif", "cell_00004.tiff", "cell_00005.png"]
    folds = {entry["image"].removeprefix("images/"): entry["fold"] for entry in datalist["training"]}
    assert list(folds) == [*names, "tuning_cell_00001.tiff", "tuning_cell_00002.tiff"]
    assert {folds[name] for name in names} == {1, 2}
    assert folds["tuning_cell_00001.tiff"] == folds["tuning_cell_00002.tiff"] == 0
    assert datalist["testing"] == [
        {"image": f"images/{name}.tif", "label": f"labels/{name}.tif", "group": name}
        for name in ("OpenTest_001", "OpenTest_002")
    ]


def test_every_kind_of_image_keeps_its_values_and_ids(published, tmp_path):
    NEURIPS.prepare(published, tmp_path / "out")
    for n, (name, image) in enumerate(KINDS.items(), start=1):
        stem, suffix = name.lower().split(".")
        written = read_image(tmp_path / "out" / "images" / f"{stem}.{suffix}")
        expected = image[None] if image.ndim == 2 else np.moveaxis(image[..., :3], -1, 0)
        np.testing.assert_array_equal(written.data, expected)
        assert written.dtype == image.dtype
        check_labels(tmp_path / "out", stem, ids(n) // 3)


def test_without_tuning_the_training_images_make_all_folds(published):
    items = [item for item in NEURIPS.locate(published).items if not item.name.startswith("tuning")]
    split = NEURIPS.split(items, 5, 0)
    assert sorted(item.fold for item in split if item.section == "training") == [0, 1, 2, 3, 4]
    assert [item.name for item in split if item.section == "testing"] == ["OpenTest_001", "OpenTest_002"]


def test_the_split_does_not_depend_on_the_order_of_directories(published, shuffled_listing):
    expected = NEURIPS.split(NEURIPS.locate(published).items, 3, 0)
    for seed in range(3):
        shuffled_listing(seed)
        assert NEURIPS.split(NEURIPS.locate(published).items, 3, 0) == expected


def test_broken_pairs_are_reported(published):
    training = published / "Training-labeled"
    (training / "labels" / "cell_00001_label.tiff").unlink()
    (training / "images" / "cell_00002.bmp").unlink()
    write(training, "cell_00003.png", pixels(9))
    (published / "Tuning" / "labels" / "cell_00001_label.tiff").unlink()
    (training / "images" / "Thumbs.db").touch()
    reasons = {
        "cell_00001": r"Training-labeled/images/cell_00001\.png.*no label file",
        "cell_00002": r"Training-labeled/labels/cell_00002_label\.tiff.*no image",
        "cell_00003": r"images/cell_00003\.png, .*images/cell_00003\.tif, .*labels/cell_00003_label\.tiff.*keep one",
        "tuning_cell_00001": r"Tuning/images/cell_00001\.tiff.*no label file",
    }
    names = ["OpenTest_001", "OpenTest_002", "cell_00004", "cell_00005", "tuning_cell_00002"]
    NEURIPS.check_found(published, names, reasons)


def test_a_part_without_any_labels_is_left_out(published):
    for path in (published / "Tuning" / "labels").iterdir():
        path.unlink()
    found = NEURIPS.locate(published)
    assert found.problems == []
    assert found.remarks == [Like(r"\b2 images.*tuning.*no labels.*left out")]
    assert all(item.fold is None for item in found.items)


def test_nothing_where_the_data_set_has_its_files(tmp_path):
    write(tmp_path / "other", "cell_00001.png", pixels(1), 2)
    with pytest.raises(DatasetError, match=r"no image or label file.*layout"):
        NEURIPS.locate(tmp_path)


def test_transparency_that_a_tiff_does_not_name_is_dropped(tmp_path):
    image = pixels(1, 4, dtype=np.uint16)
    path = write(tmp_path / "Training-labeled", "a.tif", pixels(1), 2)
    tifffile.imwrite(path, image, photometric="rgb", extrasamples=["unspecified"])
    assert len(read_image(path).data) == 4
    sample = NEURIPS.convert_only(tmp_path)
    assert sample.image.dtype == np.uint16
    np.testing.assert_array_equal(sample.image, np.moveaxis(image[..., :3], -1, 0))


@pytest.mark.parametrize("axes", ["ZYX", "TYX"])
def test_channels_that_a_tiff_calls_a_stack_are_read(tmp_path, axes):
    image = pixels(2, 3, dtype=np.uint16).transpose(2, 0, 1)
    path = write(tmp_path / "Training-labeled", "a.tif", pixels(1), 2)
    tifffile.imwrite(path, image, imagej=True, metadata={"axes": axes})
    with pytest.raises(ImageReadError):
        read_image(path)
    sample = NEURIPS.convert_only(tmp_path)
    np.testing.assert_array_equal(sample.image, image)
    np.testing.assert_array_equal(sample.labels, ids(2))


def test_colours_last_in_a_tiff_without_axes_are_read(tmp_path):
    image = pixels(3, 3, dtype=np.uint16)
    path = write(tmp_path / "Training-labeled", "a.tif", pixels(1), 2)
    tifffile.imwrite(path, image, photometric="minisblack", imagej=True, metadata={"axes": "ZYX"})
    sample = NEURIPS.convert_only(tmp_path)
    np.testing.assert_array_equal(sample.image, np.moveaxis(image, -1, 0))


def test_an_image_that_fits_its_labels_in_no_way_is_refused(tmp_path):
    path = write(tmp_path / "Training-labeled", "a.tif", pixels(1), 2)
    tifffile.imwrite(path, np.zeros((5, 7, 9), np.uint8), imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(ImageReadError, match=r"a\.tif.*z-stack"):
        NEURIPS.convert_only(tmp_path)


def test_a_readable_image_is_copied_unchanged(published):
    item = next(item for item in NEURIPS.locate(published).items if item.name == "cell_00005")
    assert NEURIPS.convert(item).image == published / "Training-labeled" / "images" / "cell_00005.PNG"
