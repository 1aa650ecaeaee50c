"""The table of measurements, against hand-made answers and scikit-image."""

import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage
from skimage.measure import label, regionprops_table

from cellbundle import synthetic
from cellbundle.errors import ArrayError, ConfigError
from cellbundle.instances.measure import COLUMNS, INTENSITY_COLUMNS, LENGTH_COLUMNS, measure

from ..hand_made import digits

BOX = ("top", "left", "bottom", "right")
SKIMAGE = {"y": "centroid-0", "x": "centroid-1", "equivalent_diameter": "equivalent_diameter_area"}
SKIMAGE |= {name: f"bbox-{k}" for k, name in enumerate(BOX)}
INTEGERS = ("label", *BOX, "area")


def reference(labels, image=None):
    """The same table by scikit-image, the image in double precision: it sums in the precision of the image."""
    names = {name: SKIMAGE.get(name, name) for name in COLUMNS}
    if image is not None:
        image = np.moveaxis(image, 0, -1).astype(np.float64)
        for c in range(image.shape[-1]):
            names |= {f"{name}_{c}": f"{name.replace('_sd', '_std')}-{c}" for name in INTENSITY_COLUMNS}
    with np.errstate(invalid="ignore"):
        table = regionprops_table(labels, image, sorted({name.split("-")[0] for name in names.values()}))
    return pd.DataFrame({name: table[skimage_name] for name, skimage_name in names.items()})


def assert_equals_skimage(labels, image=None):
    table, expected = measure(labels, image), reference(labels, image)
    assert list(table) == list(expected)
    for name in table.columns.difference(["orientation", "axis_minor_length"]):
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-6, atol=1e-6, err_msg=name)
    major, minor = table["axis_major_length"], table["axis_minor_length"]
    # There the minor axis of a line is the square root of a rounding error.
    error = np.abs(minor - expected["axis_minor_length"])
    assert (error <= 1e-6 * np.maximum(major, 1)).all()
    # There a rounding error decides between a quarter turn to the left and to the right, which are the same axis,
    # and about the angle of a shape that has no major axis.
    turned = (table["orientation"] - expected["orientation"])[minor < major * (1 - 1e-9)]
    np.testing.assert_allclose(np.remainder(turned + 1, np.pi), 1, atol=1e-6)


def blobs(shape, sigma, seed):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    return label(smooth > 0.5 * smooth.std(), connectivity=1).astype(np.int32)


def noise(labels, n_channels=2, seed=0):
    return np.random.default_rng(seed).normal(100, 30, (n_channels, *labels.shape)).astype(np.float32)


def test_table_by_hand():
    labels = digits("55...", "55...", ".....", ".222.")
    image = np.stack([np.arange(20).reshape(4, 5), labels]).astype(np.float32)
    table = measure(labels, image)
    assert table["label"].tolist() == [2, 5]
    assert table[["y", "x"]].to_numpy().tolist() == [[3, 2], [0.5, 0.5]]
    assert table[list(BOX)].to_numpy().tolist() == [[3, 1, 4, 4], [0, 0, 2, 2]]
    assert table["area"].tolist() == [3, 4]
    assert table["perimeter"].tolist() == [1, 4]
    assert table["axis_major_length"].tolist() == pytest.approx([4 * math.sqrt(2 / 3), 2])
    assert table["axis_minor_length"].tolist() == [0, 2]
    assert table["orientation"].tolist() == [math.pi / 2, -math.pi / 4]
    assert table["eccentricity"].tolist() == [1, 0]
    assert table["solidity"].tolist() == [1, 1]
    assert table["equivalent_diameter"].tolist() == pytest.approx([math.sqrt(12 / math.pi), math.sqrt(16 / math.pi)])
    assert table["intensity_mean_0"].tolist() == [17, 3]
    assert table["intensity_min_0"].tolist() == [16, 0]
    assert table["intensity_max_0"].tolist() == [18, 6]
    assert table["intensity_sd_0"].tolist() == pytest.approx([math.sqrt(2 / 3), math.sqrt(6.5)])
    assert table["intensity_mean_1"].tolist() == [2, 5]
    assert table["intensity_sd_1"].tolist() == [0, 0]


SHAPES = {
    "pixel": digits("1"),
    "pixel in a corner": digits("...", "...", "..1"),
    "row": digits(".....", ".111."),
    "column": digits("1", "1", "1", "1"),
    "diagonal": np.eye(30, dtype=np.int32),
    "other diagonal": np.eye(9, dtype=np.int32)[::-1],
    "disconnected": digits("1....", ".....", "...11"),
    "disconnected in the corners": digits("1...", "....", "....", "...1"),
    "ring": digits("111", "1.1", "111"),
    "two holes and a cell": digits("11111", "1.121", "11111"),
    "square": digits("....", ".11.", ".11."),
    "cross": digits(".1.", "111", ".1."),
    "corner": digits("1..", "1..", "111"),
    "triangle": digits("..1..", ".111.", "11111"),
    "whole image": np.ones((20, 33), np.int32),
    "touching": digits("1122", "1332", "4432"),
    "one in the other": digits("1111", "1221", "1221", "1111"),
    "gaps": digits("..7", "3.7", "3.9"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_odd_shapes_equal_skimage(name):
    assert_equals_skimage(SHAPES[name], noise(SHAPES[name]))


@pytest.mark.parametrize("name", ["pixel", "row", "column", "diagonal", "other diagonal", "square", "cross", "corner"])
def test_orientations_of_regular_shapes_equal_skimage(name):
    labels = SHAPES[name]
    assert measure(labels)["orientation"].tolist() == reference(labels)["orientation"].tolist()


@pytest.mark.parametrize("kind", ["fluorescence", "phase", "he"])
def test_synthetic_cells_equal_skimage(kind):
    image, labels = synthetic.generate(kind, (200, 230), 50, seed=4)
    channels = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    assert_equals_skimage(labels, channels.astype(np.float32))


@pytest.mark.parametrize("sigma", [0.5, 1, 2, 5])
def test_random_blobs_equal_skimage(sigma):
    labels = blobs((120, 97), sigma, seed=5)
    assert labels.max() > 5
    assert_equals_skimage(labels, noise(labels))


def test_random_disconnected_instances_equal_skimage():
    labels = np.random.default_rng(6).integers(0, 30, (24, 31)).astype(np.int32)
    assert_equals_skimage(labels, noise(labels))


def test_orientation_does_not_depend_on_the_position():
    trapezium = digits("1111111", ".11111.", ".11111.")
    labels = np.zeros((40, 40), np.int32)
    for k, (y, x) in enumerate([(0, 0), (5, 3), (13, 17), (37, 33)]):
        labels[y : y + 3, x : x + 7] = trapezium * (k + 1)
    assert measure(labels)["orientation"].tolist() == [math.pi / 2] * 4


def test_real_label_maps_equal_skimage(real_data):
    paths = sorted(real_data("dsb2018", "labels").glob("*.png"))
    assert paths
    for path in paths[::10]:
        labels = np.array(Image.open(path)).astype(np.int32)
        assert_equals_skimage(labels, noise(labels, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.uint64, ">i4", ">u2"])
def test_all_integer_types_give_the_same_table(dtype):
    labels = blobs((40, 40), 2, seed=7)
    expected = measure(labels)
    table = measure(labels.astype(dtype))
    pd.testing.assert_frame_equal(table, expected, check_dtype=False, check_exact=True)
    assert table["label"].dtype == (np.uint64 if dtype is np.uint64 else np.int64)


@pytest.mark.parametrize(("dtype", "high"), [(np.int64, 2**62), (np.uint64, 2**64 - 1), (np.int32, 2**31 - 1)])
def test_very_large_ids(dtype, high):
    labels = digits("11.2", "11.2", "3..2")
    ids = np.array([0, 70_000, 2**30, high], dtype)
    table, expected = measure(ids[labels], noise(labels)), measure(labels, noise(labels))
    assert table["label"].tolist() == [70_000, 2**30, high]
    pd.testing.assert_frame_equal(table.drop(columns="label"), expected.drop(columns="label"), check_exact=True)


def test_layout_in_memory_does_not_matter():
    labels = blobs((60, 50), 2, seed=8)
    image = noise(labels, 3)
    expected = measure(labels, image)
    wide = np.zeros((120, 100), np.int32)
    wide[::2, ::2] = labels
    channels_last = np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 0, -1)), -1, 0)
    frozen, frozen_image = labels.copy(), image.copy()
    frozen.flags.writeable = frozen_image.flags.writeable = False
    for same, same_image in [
        (wide[::2, ::2], channels_last),
        (np.asfortranarray(labels), image),
        (frozen, frozen_image),
    ]:
        pd.testing.assert_frame_equal(measure(same, same_image), expected, check_exact=True)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, np.float16, np.float64, ">f4"])
def test_images_of_any_real_type(dtype):
    labels = blobs((30, 30), 2, seed=9)
    image = noise(labels).astype(dtype)
    pd.testing.assert_frame_equal(measure(labels, image), measure(labels, image.astype(np.float64)))


def test_inputs_stay_as_they_were():
    labels, image = digits("1.9", "1.9"), noise(np.zeros((2, 3)))
    copies = labels.copy(), image.copy()
    measure(labels, image, (1, 1))
    np.testing.assert_array_equal(labels, copies[0])
    np.testing.assert_array_equal(image, copies[1])


def test_many_chunks_equal_one(monkeypatch):
    labels = np.arange(1, 40 * 50 + 1, dtype=np.int32).reshape(40, 50).repeat(2, 0)
    image = noise(labels)
    monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", "1")
    expected = measure(labels, image)
    monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", "5")
    pd.testing.assert_frame_equal(measure(labels, image), expected, check_exact=True)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (4, 6)])
def test_no_instances(shape):
    table = measure(np.zeros(shape, np.uint16), np.zeros((2, *shape), np.float32), (0.5, 0.5))
    full = measure(np.ones((4, 6), np.uint16), np.zeros((2, 4, 6), np.float32), (0.5, 0.5))
    assert len(table) == 0
    assert table.dtypes.to_dict() == full.dtypes.to_dict()
    assert list(table) == list(full)


def test_columns_and_types():
    labels = digits("1.2")
    table = measure(labels, np.zeros((1, 1, 3), np.float32), (0.5, 0.25))
    assert list(measure(labels)) == list(COLUMNS)
    assert list(table) == [*COLUMNS, *(f"{name}_0" for name in INTENSITY_COLUMNS), "area_um2", "y_um", "x_um"]
    assert {name for name, dtype in table.dtypes.items() if dtype == np.int64} == set(INTEGERS)
    assert {name for name, dtype in table.dtypes.items() if dtype == np.float64} == set(table) - set(INTEGERS)


def test_nan_in_the_image_spreads_as_in_skimage():
    labels = digits("11.22", "11.22")
    image = noise(labels)
    image[0, 0, 1] = np.nan
    image[1, 1, 2] = np.nan  # background
    image[1, 0, 3] = np.inf
    assert_equals_skimage(labels, image)
    table = measure(labels, image)
    assert np.isnan(table["intensity_min_0"][0])
    assert np.isfinite(table.filter(like="_0")["intensity_mean_0"][1])


def test_micrometres():
    labels = blobs((50, 50), 3, seed=10)
    table = measure(labels, pixel_size_um=(0.5, 0.5))
    np.testing.assert_allclose(table["area_um2"], table["area"] / 4)
    for name in ("y", "x", *LENGTH_COLUMNS):
        np.testing.assert_allclose(table[f"{name}_um"], table[name] / 2)


@pytest.mark.parametrize(("width", "has_lengths"), [(0.504, True), (0.496, True), (0.506, False), (1.0, False)])
def test_lengths_need_square_pixels(width, has_lengths):
    table = measure(digits("11."), pixel_size_um=(0.5, width))
    assert {f"{name}_um" in table for name in LENGTH_COLUMNS} == {has_lengths}
    assert table["area_um2"].tolist() == pytest.approx([2 * 0.5 * width])
    assert table["y_um"].tolist() == [0]
    assert table["x_um"].tolist() == pytest.approx([0.5 * width])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 3), np.float32), r"\(2, 3\).*float32"),
        (np.zeros((1, 2, 3), np.int32), r"\(1, 2, 3\).*int32"),
        (np.zeros((2, 3), bool), r"\(2, 3\).*bool"),
        ([[1, 2]], r"\(1, 2\).*list"),
        (np.array([[-1, 2]]), "negative.* -1 "),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(ArrayError, match=message):
        measure(labels)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((2, 3), np.float32), r"3-D.*\(2, 3\).*float32"),
        (np.zeros((2, 3, 1), np.float32), r"labels \(2, 3\).*\(2, 3, 1\).*float32"),
        (np.zeros((1, 3, 2), np.uint8), r"labels \(2, 3\).*\(1, 3, 2\).*uint8"),
        (np.zeros((1, 2, 3), complex), r"\(1, 2, 3\).*complex128"),
        ([[[1.0, 2.0, 3.0]]], r"\(1, 1, 3\).*list"),
    ],
)
def test_bad_images(image, message):
    with pytest.raises(ArrayError, match=message):
        measure(np.zeros((2, 3), np.int32), image)


@pytest.mark.parametrize(
    "size", [0.5, (0.5,), (0.5, 0), (0.5, -1), (0.5, math.nan), (math.inf, 1), ("a", "b"), (None, 1)]
)
def test_bad_pixel_sizes(size):
    with pytest.raises(ConfigError, match=r"pixel_size_um.*µm"):
        measure(digits("1"), pixel_size_um=size)
