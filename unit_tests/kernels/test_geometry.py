"""Boxes, centres and holes of label maps, against hand-made answers and SciPy."""

import numpy as np
import pytest
from scipy import ndimage

from cellbundle.kernels.geometry import boxes_and_areas, centre_pixel, fill_holes

from ..hand_made import digits


def filled(labels):
    result = labels.copy()
    fill_holes(result, boxes_and_areas(labels, int(labels.max(initial=0)))[0])
    return result


def test_boxes_and_areas_by_hand():
    labels = digits("1.44", "11.4", "....", "..1.")
    boxes, areas = boxes_and_areas(labels, 5)
    assert boxes.tolist() == [[0, 0, 4, 3], [0] * 4, [0] * 4, [0, 2, 2, 4], [0] * 4]
    assert areas.tolist() == [4, 0, 0, 3, 0]


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (3, 3)])
def test_boxes_of_nothing(shape):
    boxes, areas = boxes_and_areas(np.zeros(shape, np.int32), 0)
    assert boxes.shape == (0, 4)
    assert areas.shape == (0,)


def test_boxes_and_areas_equal_those_of_scipy():
    labels = (np.random.default_rng(0).integers(0, 40, (30, 41)) * (np.arange(41) % 5 > 1)).astype(np.int32)
    boxes, areas = boxes_and_areas(labels, 39)
    slices = ndimage.find_objects(labels, 39)
    assert boxes.tolist() == [[y.start, x.start, y.stop, x.stop] for y, x in slices]
    assert areas.tolist() == np.bincount(labels.ravel(), minlength=40)[1:].tolist()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["1"], (0, 0)),
        (["11"], (0, 0)),  # 0.5 is rounded to even
        (["1111"], (0, 2)),  # 1.5, too
        (["111", "111", "111"], (1, 1)),
        (["111", "1..", "1.."], (0, 1)),  # the mean (0.6, 0.6) is rounded to a pixel outside: the nearest inside, ...
        (["111", "1.1", "111"], (0, 1)),  # ... of equally near ones the first
        (["2211", "2211"], (0, 2)),  # other instances do not count
    ],
)
def test_centre_pixel_by_hand(rows, expected):
    assert centre_pixel(digits(*rows), 1) == expected


def test_centre_pixels_equal_those_of_cellpose():
    dynamics = pytest.importorskip("cellpose.dynamics")
    rng = np.random.default_rng(1)
    for _ in range(200):
        window = (rng.random(rng.integers(1, 9, 2)) < 0.4).astype(np.int32)
        if window.any():
            assert centre_pixel(window, 1) == tuple(int(v) for v in dynamics.center_of_mass(window))


HOLES = {
    "ring": (digits("111", "1.1", "111"), digits("111", "111", "111")),
    "two holes": (digits("11111", "1.1.1", "11111"), digits("11111", "11111", "11111")),
    "a corner does not open it": (digits(".11", "1.1", "111"), digits(".11", "111", "111")),
    "bay": (digits("111", "1..", "111"), digits("111", "1..", "111")),
    "bay at the image border": (digits("1.1", "111"), digits("1.1", "111")),
    "enclosed by two": (digits("112", "1.2", "112"), digits("112", "1.2", "112")),
    "a cell in the hole stays": (
        digits("11111", "1...1", "1.2.1", "1...1", "11111"),
        digits("11111", "11111", "11211", "11111", "11111"),
    ),
    "a cell that fills the hole stays": (digits("111", "121", "111"), digits("111", "121", "111")),
    "inner cell has the smaller id": (
        digits("22222", "2...2", "2.1.2", "2...2", "22222"),
        digits("22222", "22222", "22122", "22222", "22222"),
    ),
    "absent ids": (digits("333", "3.3", "333"), digits("333", "333", "333")),
    "nothing": (digits("...", "..."), digits("...", "...")),
    "too thin for a hole": (digits("11", "11"), digits("11", "11")),
}


@pytest.mark.parametrize("name", HOLES)
def test_fill_holes_by_hand(name):
    labels, expected = HOLES[name]
    np.testing.assert_array_equal(filled(labels), expected)


@pytest.mark.parametrize("outer", [2, 1])
def test_a_hole_belongs_to_the_innermost_cell_whatever_the_ids(outer):
    inner = 3 - outer
    labels = np.zeros((9, 9), np.int32)
    labels[[0, -1]] = labels[:, [0, -1]] = outer
    labels[2:7, 2:7] = inner
    labels[3:6, 3:6] = 0
    expected = np.full((9, 9), outer, np.int32)
    expected[2:7, 2:7] = inner
    np.testing.assert_array_equal(filled(labels), expected)


def test_fill_holes_equals_scipy_for_one_instance():
    rng = np.random.default_rng(2)
    for density in (0.5, 0.6, 0.7, 0.8):
        labels = (rng.random((25, 31)) < density).astype(np.int32)
        np.testing.assert_array_equal(filled(labels), ndimage.binary_fill_holes(labels))
