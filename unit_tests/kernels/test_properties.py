"""Moments, perimeters, hulls and intensities of single instances, against hand-made answers and scikit-image."""

import math

import numpy as np
import pytest
from skimage import measure as skimage_measure
from skimage.morphology import convex_hull_image, disk

from cellbundle.kernels.geometry import boxes_and_areas
from cellbundle.kernels.properties import (
    convex_area,
    ellipse,
    measure_intensities,
    measure_shapes,
    moments,
    perimeter,
    row_reach,
)

from ..hand_made import digits

ROOT = math.sqrt(2)


def random_windows(n, largest, seed):
    """Random (h, w) instances of id 1 without empty margins, of all densities, next to instances of id 2."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        height, width = rng.integers(1, largest, 2)
        window = np.where(rng.random((height, width)) < rng.uniform(0.01, 1), 1, 2).astype(np.int32)
        window[rng.integers(height), rng.integers(width)] = 1
        rows, columns = np.nonzero((window == 1).any(1))[0], np.nonzero((window == 1).any(0))[0]
        yield window[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def test_row_reach_by_hand():
    right, left = row_reach(digits(".11.1", ".....", "1...2", "..1.."), 1)
    assert right.tolist() == [4, -1, 0, 2]
    assert left.tolist() == [3, -1, 4, 2]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["1"], 1),
        (["1111"], 4),
        (["1..1"], 4),  # the gap is in the hull
        (["1", ".", "1"], 3),
        (["1.", ".1"], 2),
        (["1..", ".1.", "..1"], 3),
        (["1..", "...", "..1"], 3),  # the row between them is in the hull, too
        (["111", "1.1", "111"], 9),
        (["1..", "1..", "111"], 6),  # the middle of the diagonal is inside, the corner is not
        ([".1.", "111", ".1."], 5),
        (["12", "11"], 3),  # other instances do not count
        (["1....", "....1"], 6),
    ],
)
def test_convex_area_by_hand(rows, expected):
    assert convex_area(digits(*rows), 1) == expected


@pytest.mark.parametrize("largest", [4, 12, 60])
def test_convex_areas_equal_those_of_skimage_to_the_pixel(largest):
    for window in random_windows(100, largest, seed=largest):
        assert convex_area(window, 1) == convex_hull_image(window == 1).sum()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["1"], 0),
        (["11"], 0),
        (["111"], 1),
        (["11", "11"], 4),
        (["111", "111", "111"], 8),
        ([".1.", "111", ".1."], 4 * ROOT),
        (["11111", "1...1", "1...1", "1...1", "11111"], 16),
        (["1111", "1221", "1221", "1111"], 12),  # the outline of the hole is the same pixels
    ],
)
def test_perimeter_by_hand(rows, expected):
    assert perimeter(digits(*rows), 1) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("largest", [4, 12, 60])
def test_perimeters_equal_those_of_skimage(largest):
    for window in random_windows(100, largest, seed=largest):
        assert perimeter(window, 1) == pytest.approx(skimage_measure.perimeter(window == 1, 4), rel=1e-12)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["1"], (0, 0, 0, 0, 0)),
        (["111"], (0, 1, 2 / 3, -2 / 3, 0)),
        (["1", "1"], (0.5, 0, 0.25, 0.25, 0)),
        (["11", "11"], (0.5, 0.5, 0.5, 0, 0)),
        (["1..", ".1.", "..1"], (1, 1, 4 / 3, 0, 2 / 3)),
        (["..1", ".1.", "1.."], (1, 1, 4 / 3, 0, -2 / 3)),
        (["1...1"], (0, 2, 4, -4, 0)),
    ],
)
def test_moments_by_hand(rows, expected):
    assert moments(digits(*rows), 1) == pytest.approx(expected, abs=1e-15)


def test_moments_equal_those_of_numpy():
    for window in random_windows(100, 40, seed=3):
        y, x = np.nonzero(window == 1)
        covariance = np.cov(y, x, bias=True) if len(y) > 1 else np.zeros((2, 2))
        expected = (
            y.mean(),
            x.mean(),
            np.trace(covariance),
            covariance[0, 0] - covariance[1, 1],
            covariance[0, 1],
        )
        assert moments(window, 1) == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("top", [3, 7, 2001])
def test_symmetric_shapes_have_no_covariance_to_the_last_bit(top):
    trapezium = np.zeros((3, top), np.int32)  # its centroid is not a binary fraction
    trapezium[0], trapezium[1, 1:-1], trapezium[2, 1:-1] = 1, 1, 1
    assert moments(trapezium, 1)[4] == 0
    assert moments(np.ascontiguousarray(trapezium.T), 1)[4] == 0
    corner = np.ones((top, top), np.int32)
    corner[1:, 1:] = 0
    assert moments(corner, 1)[3] == 0


def test_moments_of_a_large_instance_do_not_overflow():
    side = 5000
    variance = (side**2 - 1) / 12
    expected = ((side - 1) / 2, (side - 1) / 2, 2 * variance, 0, 0)
    assert moments(np.ones((side, side), np.uint8), 1) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("trace", "difference", "covariance", "expected"),
    [
        (0, 0, 0, (0, 0, -math.pi / 4, 0)),
        (2, 0, 0, (4, 4, -math.pi / 4, 0)),
        (5, 3, 0, (8, 4, 0, math.sqrt(3) / 2)),  # upright
        (5, -3, 0, (8, 4, math.pi / 2, math.sqrt(3) / 2)),  # flat
        (4, 0, 2, (8, 0, math.pi / 4, 1)),  # down to the right
        (4, 0, -2, (8, 0, -math.pi / 4, 1)),
    ],
)
def test_ellipse_by_hand(trace, difference, covariance, expected):
    assert ellipse(float(trace), float(difference), float(covariance)) == pytest.approx(expected, abs=1e-15)


def test_every_chunk_writes_its_own_rows():
    labels = digits("1.22", "1.22", "....", "333.")
    boxes, areas = boxes_and_areas(labels, 3)
    whole, parts = np.full((3, 8), np.nan), np.full((3, 8), np.nan)
    ids = np.arange(1, 4)
    measure_shapes(0, 3, labels, boxes, ids, whole)
    measure_shapes(1, 2, labels, boxes, ids, parts)
    assert np.isnan(parts[[0, 2]]).all()
    measure_shapes(0, 1, labels, boxes, ids, parts)
    measure_shapes(2, 3, labels, boxes, ids, parts)
    np.testing.assert_array_equal(parts, whole)
    np.testing.assert_array_equal(whole[:, 7], areas)
    assert whole[:, :2].tolist() == [[0.5, 0], [0.5, 2.5], [3, 1]]


def test_ids_may_be_any_rows_of_the_map():
    labels = digits("7.44", "7.44")
    boxes = np.array([[0, 2, 2, 4], [0, 0, 2, 1]])
    shapes = np.empty((2, 8))
    measure_shapes(0, 2, labels, boxes, np.array([4, 7]), shapes)
    assert shapes[:, 7].tolist() == [4, 2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_intensities_by_hand(dtype):
    labels = digits("11.", "122")
    image = np.array([[[1, 2, 99], [6, 5, 7]], [[-1, -1, 99], [-1, 0, 0.5]]], dtype)
    values = np.empty((2, 2, 4))
    measure_intensities(0, 2, labels, boxes_and_areas(labels, 2)[0], np.array([1, 2]), image, values)
    expected = [
        [[3, 1, 6, math.sqrt(14 / 3)], [-1, -1, -1, 0]],
        [[6, 5, 7, 1], [0.25, 0, 0.5, 0.25]],
    ]
    np.testing.assert_allclose(values, expected, rtol=1e-15)


@pytest.mark.parametrize("values", [[1, np.nan, 2], [np.nan, 1, 2], [1, 2, np.nan], [np.inf, -np.inf, np.nan]])
def test_nan_spreads_within_its_instance_and_channel_only(values):
    labels = digits("11122")
    image = np.array([[[*values, 4, 4]], [[1, 2, 3, 4, 5]]], np.float32)
    result = np.empty((2, 2, 4))
    measure_intensities(0, 2, labels, boxes_and_areas(labels, 2)[0], np.array([1, 2]), image, result)
    assert np.isnan(result[0, 0]).all()
    assert np.isfinite(result[0, 1]).all()
    assert np.isfinite(result[1]).all()


def test_a_disc_is_a_disc():
    disc = disk(20).astype(np.int32)
    shapes = np.empty((1, 8))
    measure_shapes(0, 1, disc, np.array([[0, 0, 41, 41]]), np.array([1]), shapes)
    y, x, length, major, minor, _, eccentricity, hull = shapes[0]
    assert (y, x, eccentricity, hull) == (20, 20, 0, convex_hull_image(disc).sum())
    assert major == minor == pytest.approx(40, rel=0.01)
    assert length == pytest.approx(2 * math.pi * 20, rel=0.05)
