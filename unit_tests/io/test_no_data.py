"""Values that stand for no data: the cells stay, and the value and its share are said."""

import csv
import logging
import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellbundle.cli import main
from cellbundle.inference.predictor import Predictor
from cellbundle.io import read_image
from cellbundle.io.images.no_data import clipped_channels, replace_no_data
from cellbundle.synthetic import generate

from ..words import Like

GDAL_NODATA = 42113
SIDE = 256
N = 20


def pixels(form, share):
    """(H, W) mask of a share of the pixels."""
    mask = np.zeros((SIDE, SIDE), bool)
    if form == "frame":
        width = round(SIDE * (1 - np.sqrt(1 - share)) / 2)
        mask[:width] = mask[-width:] = mask[:, :width] = mask[:, -width:] = True
    elif form == "corner":
        y, x = np.mgrid[:SIDE, :SIDE]
        mask = y + x < SIDE * np.sqrt(2 * share)
    elif form == "rectangle":
        side = round(SIDE * np.sqrt(share))
        mask[60 : 60 + side, 60 : 60 + side] = True
    else:
        mask = np.random.default_rng(0).random(mask.shape) < share
    return mask


@pytest.fixture(scope="module")
def cells():
    """An image in [0, 1] with 20 cells, and its label map."""
    image, labels = generate("fluorescence", (SIDE, SIDE), n_cells=N, seed=3)
    return image / image.max(), labels


@pytest.fixture(scope="module")
def predictor():
    return Predictor(device="cpu")


def image_of(cells, dtype):
    """The image with the range that its type has in practice."""
    low, high = {"u1": (10, 70), "i1": (5, 115), "u2": (1500, 4500), "i2": (200, 20200)}.get(dtype, (100, 5000))
    return (low + (high - low) * cells).astype(dtype)


EXTREMES = [
    ("f4", -3.4028235e38),
    ("f4", 3.4028235e38),
    ("f4", np.nan),
    ("f4", np.inf),
    ("f8", -1.7e308),
    ("f4", -9999),
    ("f4", 9.96921e36),
    ("i2", -9999),
    ("i2", -32768),
    ("i4", -(2**31)),
    ("i1", -128),
    ("i8", -(2**63)),
]


@pytest.mark.parametrize("share", [0.02, 0.27])
@pytest.mark.parametrize(("dtype", "value"), EXTREMES)
def test_extreme_values_cost_no_cell(cells, predictor, tmp_path, caplog, dtype, value, share):
    image, labels = cells
    array, mask = image_of(image, dtype), pixels("frame", share)
    array[mask] = value
    tifffile.imwrite(tmp_path / "a.tif", array)
    with caplog.at_level(logging.WARNING, "cellbundle"):
        read = read_image(tmp_path / "a.tif")
    (found,) = read.no_data
    assert found.share == pytest.approx(mask.mean())
    assert found.value == pytest.approx(np.float32(value)) or not np.isfinite(np.float32(value))
    assert f"{100 * mask.mean():.3g} %" in caplog.text
    assert read.data.min() == np.float32(array[~mask].min())
    n = predictor.segment(read.data).labels.max()
    visible = [label for label in range(1, N + 1) if (labels[~mask] == label).sum() > 30]
    assert abs(n - len(visible)) <= 1


@pytest.mark.parametrize("share", [0.02, 0.27, 0.5])
@pytest.mark.parametrize(("dtype", "value"), [("f4", np.nan), ("f4", -9999), ("i2", -32768)])
def test_scattered_pixels_cost_no_cell(cells, predictor, dtype, value, share):
    array, mask = image_of(cells[0], dtype)[None], pixels("scattered", share)
    array[0][mask] = value
    data, (found,) = replace_no_data(array.astype(np.float32), np.dtype(dtype))
    assert found.share == pytest.approx(mask.mean())
    assert abs(predictor.segment(data).labels.max() - N) <= 1


def test_narrow_gaps_get_the_nearest_value_and_large_parts_the_smallest():
    array = np.arange(40 * 40, dtype=np.float32).reshape(1, 40, 40)
    gap, hole, edge = (0, slice(20, 26), slice(None)), (0, slice(5, 15), slice(5, 15)), (0, slice(None), slice(39, 40))
    array[gap] = array[hole] = array[edge] = np.nan
    data, _ = replace_no_data(array, array.dtype)
    np.testing.assert_array_equal(data[0, 20:26, :39], np.repeat(array[0, [19, 26], :39], 3, axis=0))
    assert (data[hole] == 0).all()
    assert (data[edge] == 0).all()


@pytest.mark.parametrize("form", ["frame", "rectangle"])
@pytest.mark.parametrize(("dtype", "value"), [("u2", 0), ("u2", 65535), ("u1", 255), ("f4", 1e5)])
@pytest.mark.parametrize("share", [0.02, 0.27])
def test_constant_frames_cost_no_cell(cells, predictor, form, dtype, value, share):
    array, mask = image_of(cells[0], dtype)[None], pixels(form, share)
    array[0][mask] = value
    data, (found,) = replace_no_data(array.astype(np.float32), np.dtype(dtype))
    assert (found.value, found.share) == (value, pytest.approx(mask.mean()))
    np.testing.assert_array_equal(data[0][~mask], array[0][~mask])
    assert (data[0][mask] == array[0][~mask].min()).all()
    visible = [label for label in range(1, N + 1) if (cells[1][~mask] == label).sum() > 30]
    assert abs(predictor.segment(data).labels.max() - len(visible)) <= 1


def test_the_corners_of_a_turned_image(cells):
    array = image_of(cells[0], "u2")[None].astype(np.float32)
    array[0][pixels("corner", 0.05)] = 0
    _, (found,) = replace_no_data(array, np.dtype("u2"))
    assert found.value == 0


def with_value(cells, dtype, value, form="scattered", share=0.02):
    array = image_of(cells[0], dtype)
    array[pixels(form, share)] = value
    return array


def test_the_value_of_a_tag_is_no_data_whatever_it_is(cells, tmp_path):
    array = with_value(cells, "u2", 1499)
    path = tmp_path / "a.tif"
    for text, values in (("1499", [1499]), ("nan", []), ("7", []), ("many", [])):
        tifffile.imwrite(path, array, extratags=[(GDAL_NODATA, "s", 0, text, True)])
        assert [one.value for one in read_image(path).no_data] == values


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("f4", [-1]),  # a real intensity
        ("f4", [-9999, -9000]),  # not far from all others
        ("i2", [-32768, -30000]),
        ("i1", [-128, -120]),
        ("u1", [255]),  # saturated pixels
        ("i2", [32767]),
        ("u2", [0]),  # dead ones
        ("f4", [1e6]),
    ],
)
def test_real_intensities_stay(cells, dtype, values):
    array = image_of(cells[0], dtype)
    for number, value in enumerate(values):
        array[pixels("scattered", 0.02) & (np.arange(SIDE) % len(values) == number)] = value
    data = array[None].astype(np.float32)
    assert replace_no_data(data, array.dtype) == (data, [])


@pytest.mark.parametrize("turned", range(4))
@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_strip_is_found_on_every_side(cells, turned, width):
    array = image_of(cells[0], "u2")
    array[:width] = 0
    data = np.ascontiguousarray(np.rot90(array, turned))[None].astype(np.float32)
    (found,) = replace_no_data(data, np.dtype("u2"))[1]
    assert (found.value, found.share) == (0, width / SIDE)


def test_drawn_images_stay(cells):
    """Cells on a background of one value: it looks like a frame, but the cells are not in one piece."""
    labels = cells[1]
    thresholded = np.where(labels > 0, image_of(cells[0], "u2"), 0)
    mask = np.where(labels > 0, 255, 0)
    levels = 100 * (labels > 0) + 100 * (labels > 10)
    for array, dtype in ((thresholded, "u2"), (mask, "u1"), (255 - mask, "u1"), (levels, "u1"), (labels, "i4")):
        data = array[None].astype(np.float32)
        assert replace_no_data(data, np.dtype(dtype)) == (data, [])
    assert replace_no_data(np.zeros((1, 9, 9), np.float32), np.dtype("u1"))[1] == []
    assert replace_no_data(np.full((1, 9, 9), 255, np.float32), np.dtype("u1"))[1] == []


def test_a_frame_of_a_colour_image_is_one_of_all_channels(cells):
    array = np.stack([image_of(cells[0], "u2")] * 3).astype(np.float32)
    array[0][pixels("frame", 0.1)] = 0
    assert replace_no_data(array, np.dtype("u2"))[1] == []
    array[:, pixels("frame", 0.1)] = 0
    assert [one.value for one in replace_no_data(array, np.dtype("u2"))[1]] == [0]


def test_an_image_of_nothing_else_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((9, 9), -3.4028235e38, np.float32))
    with pytest.raises(Exception, match=r"a\.tif.*no data.*100 %.* -3"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_a_clipped_channel_is_said(cells, tmp_path, caplog, dtype):
    array = image_of(cells[0], dtype)
    limit = array.dtype.type(np.percentile(array, 92))
    tifffile.imwrite(tmp_path / "whole.tif", array)
    tifffile.imwrite(tmp_path / "clipped.tif", np.minimum(array, limit))
    with caplog.at_level(logging.WARNING, "cellbundle"):
        read_image(tmp_path / "whole.tif")
        assert caplog.text == ""
        assert read_image(tmp_path / "clipped.tif").data.max() == limit
    share = f"{100 * (array >= limit).mean():.3g}"
    assert re.search(rf"clipped\.tif.*channel 0.*clipped.* {share} %.* {re.escape(f'{limit:g}')}, ", caplog.text)


def test_a_white_background_and_drawn_images_are_not_clipped(cells):
    white = np.minimum(300 - image_of(cells[0], "u1").astype(np.float32), 255)
    drawn = np.where(cells[1] > 0, 255, 0).astype(np.float32)
    assert clipped_channels(np.stack([white, drawn])) == {}


def test_a_picture_in_the_transparency_is_said(cells, tmp_path, caplog):
    alpha = image_of(cells[0], "u1")
    for name, colour in (("hidden", np.zeros_like(alpha)), ("normal", alpha)):
        Image.fromarray(np.stack([colour, colour, colour, alpha], -1)).save(tmp_path / f"{name}.png")
    with caplog.at_level(logging.WARNING, "cellbundle"):
        read_image(tmp_path / "normal.png")
        assert caplog.text == ""
        read_image(tmp_path / "hidden.png")
    assert re.search(r"hidden\.png.*constant.*transparency", caplog.text)


def test_predict_says_value_and_share_in_its_table_also_when_it_continues(cells, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", with_value(cells, "f4", -9999, "frame"))
    tifffile.imwrite(folder / "b.tif", image_of(cells[0], "u2"))
    command = ["predict", str(folder), "--output", str(out), "--save", "measurements,labels", "--device", "cpu"]
    for _ in range(2):
        with pytest.raises(SystemExit) as exit_:
            main(command)
        assert exit_.value.code == 0
        with (out / "images.csv").open() as file:
            rows = {row["image"]: row for row in csv.DictReader(file)}
        assert rows["a.tif"]["no_data"] == Like("^1.56 % .*-9999$")
        assert rows["b.tif"]["no_data"] == ""
        assert abs(int(rows["a.tif"]["cells"]) - int(rows["b.tif"]["cells"])) <= 1
    assert re.search(r"a\.tif: 1\.56 % .*-9999.*no data", capsys.readouterr().err)
    with (out / "measurements.csv").open() as file:
        assert min(float(row["intensity_mean_0"]) for row in csv.DictReader(file) if row["image"] == "a.tif") > 100
