"""Photographs with an EXIF orientation, and labels that were drawn on one of the two pictures."""

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from cellbundle.cli import main
from cellbundle.datalists.validate import inspect_datalist
from cellbundle.datasets import prepare
from cellbundle.errors import ImageReadError
from cellbundle.io import read_image, read_labels
from cellbundle.io.images.orientation import TAG, remark_on_orientation, turn
from cellbundle.synthetic import generate

from ..words import Like

ORIENTATIONS = range(1, 9)


def save(path, array, orientation):
    """An image with an EXIF orientation."""
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, extratags=[(TAG, "H", 1, orientation, True)])
        return
    exif = Image.Exif()
    exif[TAG] = orientation
    Image.fromarray(array).save(path, exif=exif)


@pytest.fixture
def photograph():
    """(H, W) image and labels of a square field."""
    image, labels = generate("fluorescence", (128, 128), n_cells=12, seed=1)
    return (image / image.max() * 250).astype(np.uint8), labels


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_an_image_is_turned_as_pillow_turns_it(tmp_path, orientation, suffix):
    array = np.random.default_rng(0).integers(0, 255, (16, 24), np.uint8)
    path = tmp_path / f"a{suffix}"
    save(path, array, orientation)
    with Image.open(path) as image:
        stored, expected = np.asarray(image), np.asarray(ImageOps.exif_transpose(image))
    read = read_image(path)
    assert read.orientation == orientation
    turned = read_image(path, exif="apply")
    assert turned.orientation == 1
    assert turned.data.flags.c_contiguous
    if suffix != ".tif":  # Pillow turns these itself
        np.testing.assert_array_equal(read.data[0], stored)
        np.testing.assert_array_equal(turned.data[0], expected)
    np.testing.assert_array_equal(turned.data, turn(read.data, orientation))


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_no_image_is_decoded_before_its_size_is_checked(tmp_path, monkeypatch, mode):
    Image.new(mode, (400, 400)).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageReadError, match="more than max_pixels"):
        read_image(tmp_path / "a.png", max_pixels=100)


def test_damaged_orientations_are_none(tmp_path):
    array = np.zeros((4, 6), np.uint8)
    for number, value in enumerate((0, 9, 65535)):
        for suffix in ("jpg", "tif"):
            save(tmp_path / f"{number}.{suffix}", array, value)
            read = read_image(tmp_path / f"{number}.{suffix}", exif="apply")
            assert (read.data.shape, read.orientation) == ((1, 4, 6), 1)
    tifffile.imwrite(tmp_path / "two.tif", array, extratags=[(TAG, "H", 2, (6, 6), True)])
    assert read_image(tmp_path / "two.tif", exif="apply").data.shape == (1, 4, 6)


@pytest.mark.parametrize("orientation", ORIENTATIONS[1:])
@pytest.mark.parametrize("applied", [True, False])
def test_labels_of_the_other_picture_are_remarked(photograph, orientation, applied):
    image, labels = photograph
    turned = turn(labels, orientation)
    right, wrong = (turned, labels) if applied else (labels, turned)
    assert remark_on_orientation(image[None], right, orientation, applied=applied) is None
    remark = remark_on_orientation(image[None], wrong, orientation, applied=applied)
    assert f"use exif={'ignore' if applied else 'apply'}" in remark


def test_nothing_is_said_where_nothing_is_known(photograph):
    image, labels = photograph
    assert remark_on_orientation(image[None], labels[::-1], 1, applied=False) is None
    assert remark_on_orientation(image[None], np.zeros_like(labels), 3, applied=False) is None
    assert remark_on_orientation(np.zeros((1, 128, 128)), labels, 3, applied=False) is None
    noise = np.random.default_rng(0).random((1, 128, 128))
    assert remark_on_orientation(noise, labels, 3, applied=False) is None


@pytest.fixture
def raw(tmp_path, photograph):
    """Photographs of orientations 3 and 6; labels were drawn on the turned pictures."""
    folder = tmp_path / "raw"
    folder.mkdir()
    image, labels = photograph
    for name, orientation, part in (("square", 3, slice(None)), ("wide", 6, slice(96))):
        save(folder / f"{name}.png", image[part], orientation)
        upright = np.ascontiguousarray(turn(labels[part], orientation).astype(np.uint8))
        Image.fromarray(upright).save(folder / f"{name}_masks.png")
    return folder


def test_a_preparation_notices_labels_of_turned_pictures(raw, tmp_path):
    prepared = prepare("custom", raw, tmp_path / "out", workers=1)
    (problem,) = prepared.problems
    assert problem.name == "wide"
    assert problem.reason == Like("image.*96x128.*labels.*128x96.*exif=apply.*EXIF orientation 6")
    (remark,) = [one for one in prepared.remarks if one.startswith("square: ")]
    assert "EXIF orientation 3" in remark
    found = inspect_datalist(tmp_path / "out" / "custom.json", tmp_path / "out").findings
    assert "orientation" in [one.kind for one in found]


def test_a_preparation_turns_pictures(raw, tmp_path, photograph):
    out = tmp_path / "out"
    prepared = prepare("custom", raw, out, workers=1, options={"exif": "apply"})
    assert prepared.problems == []
    assert not [one for one in prepared.remarks if "labels fit" in one]
    for name, orientation in (("square", 3), ("wide", 6)):
        image = read_image(out / "images" / f"{name}.tif")
        assert (image.dtype, image.orientation) == (np.uint8, 1)
        np.testing.assert_array_equal(image.data, read_image(raw / f"{name}.png", exif="apply").data)
        labels = read_labels(out / "labels" / f"{name}.tif")
        assert abs(image.data[0][labels > 0].mean() - image.data[0][labels == 0].mean()) > 20, orientation


def test_predict_turns_photographs_and_does_not_mix_both(tmp_path, photograph, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    save(folder / "a.png", photograph[0][:96], 6)

    def predict(*options):
        with pytest.raises(SystemExit) as exit_:
            main(["predict", str(folder), "--output", str(out), "--save", "labels", "--device", "cpu", *options])
        return exit_.value.code

    assert predict() == 0
    stored = read_labels(out / "a_labels.tif")
    assert predict("--exif", "apply") == 2
    assert "exif" in capsys.readouterr().err
    assert predict("--exif", "apply", "--overwrite") == 0
    turned = read_labels(out / "a_labels.tif")
    assert (stored.shape, turned.shape) == ((96, 128), (128, 96))
    assert abs(int(stored.max()) - int(turned.max())) <= 1
