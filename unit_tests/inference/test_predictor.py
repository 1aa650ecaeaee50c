"""From arrays and files to instances."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import skimage.data
import tifffile
from PIL import Image

import cellbundle
from cellbundle.bundles import find_bundle, list_bundles
from cellbundle.errors import ArrayError, ConfigError, DependencyError, ImageReadError
from cellbundle.inference.predictor import Predictor, choose_tile
from cellbundle.instances.measure import measure
from cellbundle.io import read_image
from cellbundle.synthetic import generate


@pytest.fixture(scope="module")
def predictor():
    return Predictor("cell_unet", device="cpu")


@pytest.fixture(scope="module")
def picture():
    return generate("fluorescence", (96, 128), 12, diameter=16, seed=3)


def test_an_array_and_its_file_give_the_same(tmp_path, picture):
    pixels, truth = picture
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    from_array, from_file = cellbundle.predict(pixels), cellbundle.predict(str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(from_array.labels, from_file.labels)
    pd.testing.assert_frame_equal(from_array.table, from_file.table)
    assert abs(len(from_array) - truth.max()) <= 3
    assert from_array.labels.dtype == np.int32


def test_the_table_is_that_of_measure_with_scores(picture):
    instances = cellbundle.predict(picture[0])
    assert list(instances.table.columns[:2]) == ["label", "score"]
    assert instances.table["score"].between(0.5, 1).all()
    expected = measure(instances.labels, picture[0][None].astype(np.float32))
    pd.testing.assert_frame_equal(instances.table.drop(columns="score"), expected)


def test_the_bundle_is_loaded_once(picture, monkeypatch):
    cellbundle.predict(picture[0], diameter=18)
    monkeypatch.setattr("cellbundle.inference.predictor.Predictor", None)
    cellbundle.predict(picture[0], diameter=18)


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3), (3, 40, 50), (2, 40, 50), (40, 50, 1)])
def test_arrays_of_clear_axes(shape):
    assert cellbundle.predict(np.zeros(shape, np.uint8)).labels.shape == (40, 50)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 40, 3)), r"\(3, 40, 3\).*unclear.*axes="),
        (np.zeros((2, 3, 40, 50)), r"\(2, 3, 40, 50\).*unclear.*axes="),
        (np.zeros((0, 5)), "no pixels"),
        (np.full((4, 4), np.nan), "only NaN"),
        (np.zeros((4, 4), complex), "complex128.*real numbers"),
        ([[1, 2]], "list.*NumPy array"),
    ],
)
def test_what_is_no_image(array, message):
    with pytest.raises(ImageReadError, match=message):
        cellbundle.predict(array)


def test_more_channels_than_the_bundle_takes(picture):
    image = np.stack([np.zeros_like(picture[0])] * 4 + [picture[0]])
    with pytest.raises(ArrayError, match=r"1 to 3 channels.* 5;.*channels="):
        cellbundle.predict(image, axes="CYX")
    chosen = cellbundle.predict(image, axes="CYX", channels=[4])
    np.testing.assert_array_equal(chosen.labels, cellbundle.predict(picture[0]).labels)


def odd_images(pixels):
    """Name and bytes of images that are unusual and valid."""
    eight = (pixels / pixels.max() * 255).astype(np.uint8)
    rgb = np.stack([eight] * 3, axis=-1)
    tiffs = {
        "constant": np.full((20, 30), 7, np.uint8),
        "one pixel": np.full((1, 1), 7, np.uint16),
        "a row": eight[:1],
        "a column": eight[:, :1],
        "very thin": np.tile(eight[50:52], (1, 20)),
        "float": pixels.astype(np.float32) / 1e3 - 5,
        "double": pixels.astype(np.float64),
        "int16": pixels.astype(np.int16) - 300,
        "uint32": pixels.astype(np.uint32) * 1000,
        "big-endian": pixels.astype(">u2"),
        "12 bits": (pixels >> 4).astype(np.uint16),
    }
    for name, array in tiffs.items():
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, photometric="minisblack")
        yield f"{name}.tif", buffer.getvalue()
    grey = Image.fromarray(eight)
    alpha = Image.fromarray(np.dstack([rgb, 255 - eight]))
    pictures = {
        "1 bit.png": Image.fromarray(eight > 60),
        "grey.jpg": grey,
        "rgba.png": alpha,
        "palette.png": Image.fromarray(rgb).quantize(64),
        "cmyk.tif": Image.fromarray(rgb).convert("CMYK"),
        "cmyk.jpg": Image.fromarray(rgb).convert("CMYK"),
        "Ünïcode nämé.BMP": Image.fromarray(rgb),
    }
    for name, image in pictures.items():
        buffer = io.BytesIO()
        image.save(buffer, format={"jpg": "JPEG", "tif": "TIFF"}.get(name[-3:], name[-3:].upper()))
        yield name, buffer.getvalue()


def test_odd_images_are_segmented(tmp_path, predictor, picture):
    empty = {"constant.tif", "one pixel.tif"}
    for name, content in odd_images(picture[0]):
        (tmp_path / name).write_bytes(content)
        image = read_image(tmp_path / name)
        instances = predictor(image.data)
        assert instances.labels.shape == image.data.shape[1:], name
        if name in empty:
            assert len(instances) == 0, name
        elif min(instances.labels.shape) > 50:
            assert len(instances) > 5, name


def test_ome_and_tiled_and_pyramidal_tiffs(tmp_path, predictor, picture):
    stack = np.stack([picture[0]] * 3)
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": "CYX"}, photometric="minisblack")
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as writer:
        writer.write(picture[0], tile=(32, 32), subifds=1)
        writer.write(picture[0][::2, ::2], tile=(32, 32), subfiletype=1)
    for name in ("a.ome.tif", "pyramid.tif"):
        assert len(predictor(read_image(tmp_path / name).data)) > 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diameter": 0}, "diameter.* 0, .*above 0"),
        ({"rescale": -1}, "rescale.* -1, .*above 0"),
        ({"diameter": 9, "rescale": 2}, "diameter and rescale.*choose one"),
        ({"tile": 100}, r"\[100, 100\].*multiples of 32"),
        ({"min_score": 80}, "min_score.* 80, .* 0 .* 1$"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        Predictor("cell_unet", **options)


@pytest.mark.parametrize("bundle", ["hover_uni", "swin_unet"])
def test_a_bundle_without_a_smallest_score(bundle):
    with pytest.raises(ConfigError, match=f"{bundle} .*min_score"):
        Predictor(bundle, min_score=0.5)


def test_another_diameter_of_a_loaded_bundle_is_as_that_of_a_new_one(predictor, picture):
    image = picture[0][None].astype(np.float32)
    before = predictor.segment(image).labels
    other = predictor.at_diameter(12)
    expected = Predictor("cell_unet", device="cpu", diameter=12)
    assert (other.scale, other.inferer.scale) == (expected.scale, expected.inferer.scale)
    np.testing.assert_array_equal(other.segment(image).labels, expected.segment(image).labels)
    np.testing.assert_array_equal(predictor.segment(image).labels, before)
    assert predictor.diameter == 18
    with pytest.raises(ConfigError, match=r"magnification.*tiles.*pixels"):
        predictor.at_diameter(0.01)


def test_a_lower_score_keeps_more_cells(predictor):
    """Tissue is full of nuclei of which the network is not sure."""
    image = skimage.data.immunohistochemistry()[:256, :256].transpose(2, 0, 1).astype(np.float32)
    by_default, all_of_them = predictor.segment(image), Predictor("cell_unet", device="cpu", min_score=0).segment(image)
    assert len(all_of_them.scores) > len(by_default.scores)
    assert all_of_them.scores.min() < 0.8
    assert (by_default.scores >= 0.8).all()
    assert all_of_them.labels[by_default.labels > 0].all()


def test_images_of_one_shape_share_a_call_of_the_network(predictor, picture, monkeypatch):
    images = [picture[0][None].astype(np.float32), picture[0][None, ::-1].astype(np.float32).copy()]
    expected = [predictor.segment(image) for image in images]
    calls, inferer = [], predictor.inferer

    def counted(inputs, network):
        calls.append(len(inputs))
        return inferer(inputs, network)

    monkeypatch.setattr(predictor, "inferer", counted)
    found = predictor.segment_batch(images)
    assert calls == [2]
    for one, other in zip(found, expected, strict=True):
        assert np.count_nonzero(one.labels != other.labels) <= 5  # rounding
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)


def test_rescaling_and_diameter_change_the_magnification():
    assert Predictor("cell_unet", rescale=2).scale == 2 * Predictor("cell_unet").scale
    assert Predictor("cell_unet", diameter=36).scale == Predictor("cell_unet").scale / 2


@pytest.mark.parametrize(
    ("free", "tile"), [(0.2, [256, 512]), (2.9, [256, 512]), (3.1, [256, 1280]), (100, [256, 1280])]
)
def test_the_tile_fits_the_memory(monkeypatch, free, tile):
    import psutil
    import torch

    class Memory:
        available = free * 2**30

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    assert choose_tile(torch.device("cpu"), [256, 1280]) == tile
    assert Predictor("cell_unet", device="cpu").tile == max(tile)


def test_bundles_are_found_by_path_by_variable_and_by_name(tmp_path, monkeypatch):
    root = find_bundle("cell_unet")
    assert find_bundle(root) == root
    (tmp_path / "mine").symlink_to(root)
    monkeypatch.setenv("CELLBUNDLE_BUNDLES", str(tmp_path))
    assert find_bundle("mine") == root
    assert {"mine", "cell_unet"} <= {info.name for info in list_bundles()}
    with pytest.raises(ConfigError, match=r"no bundle 'nope'.*cell_unet"):
        find_bundle("nope")


def test_two_bundles_in_one_process(tmp_path, picture):
    """Each has its own package ``scripts``."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(find_bundle("cell_unet"), copy)
    with (copy / "scripts" / "network.py").open("a") as file:
        file.write("\nSECOND = True\n")
    first, second = Predictor("cell_unet"), Predictor(copy)
    import sys

    module = sys.modules[type(second.network).__module__]
    assert module.SECOND
    image = picture[0][None].astype(np.float32)
    np.testing.assert_array_equal(first.segment(image)[0], second.segment(image)[0])
    assert Predictor("cell_unet").network is not second.network


@pytest.mark.parametrize(
    ("bundle", "package", "extra"),
    [
        ("vista2d", "segment_anything", "vista2d"),
        ("swin_unet", "timm", "swin"),
        ("hover_uni", "timm", "hover"),
        ("mask_rcnn", "timm", "mask_rcnn"),
        ("yolo_seg", "ultralytics", "yolo"),
    ],
)
def test_a_package_that_a_bundle_needs_is_missing(tmp_path, monkeypatch, bundle, package, extra):
    """The folder is a copy, because that of the repository may be imported already."""
    import shutil
    import sys

    shutil.copytree(find_bundle(bundle), tmp_path / bundle, ignore=shutil.ignore_patterns("runs", "eval"))
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError, match=rf"pip install 'cellbundle\[{extra}\]'"):
        Predictor(tmp_path / bundle, device="cpu")


SQUARES = """
import torch


class Squares(torch.nn.Module):
    def forward(self, tiles):
        boxes = torch.tensor([[4.0, 4, 12, 12], [20, 6, 30, 16]])
        answer = {"boxes": boxes, "scores": torch.tensor([0.75, 0.5]), "labels": torch.tensor([2, 1])}
        return [answer | {"masks": torch.ones(2, 28, 28)} for _ in tiles]
"""


def detector(folder, class_names):
    """A bundle whose network finds the same two squares in every tile."""
    (folder / "scripts").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "scripts" / "__init__.py").touch()
    (folder / "scripts" / "network.py").write_text(SQUARES)
    config = {
        "bundle_root": ".",
        "device": None,
        "amp": False,
        "amp_dtype": "auto",
        "scale": 1.0,
        "class_names": class_names,
        "network": {"_target_": "scripts.network.Squares"},
        "inferer": {"_target_": "cellbundle.inference.detection.DetectionInferer", "scale": "@scale"},
        "normaliser": {"_target_": "cellbundle.transforms.NormaliseIntensityd"},
        "decoder": {"_target_": "cellbundle.transforms.DecodeDetectionsd"},
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    return folder


def test_a_detector_with_classes(tmp_path):
    """Predictions are dictionaries; the names of the classes stand in the table."""
    image = np.random.default_rng(0).uniform(0, 255, (1, 20, 40)).astype(np.float32)
    predictor = Predictor(detector(tmp_path / "classes", ["round", "long"]), device="cpu")
    instances = predictor(image)
    assert instances.table[["label", "score", "class", "area"]].values.tolist() == [
        [1, 0.75, "long", 64],
        [2, 0.5, "round", 100],
    ]
    assert instances.classes == ["long", "round"]
    labels, scores = predictor.segment(image)[:2]
    np.testing.assert_array_equal(labels, instances.labels)
    assert scores.tolist() == [0.75, 0.5]
    assert len(predictor(image[:, :2, :2])) == 0
    instances = Predictor(detector(tmp_path / "no_classes", []), device="cpu")(image)
    assert "class" not in instances.table
    assert len(instances) == 2
