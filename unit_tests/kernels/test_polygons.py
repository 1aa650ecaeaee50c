"""Corners and loops by hand; pixels that lie outside, against a flood fill."""

import numpy as np
import pytest
from scipy import ndimage

from cellbundle.kernels.geometry import boxes_and_areas
from cellbundle.kernels.polygons import find_corners, group_corners, join_edges, mark_outer_pixels, trace_outlines


def joined_corners(labels):
    """All corners of a map, read in two parts."""
    labels = np.array(labels, np.int32)
    height, width = labels.shape
    corners = np.concatenate([find_corners(0, 2, labels), find_corners(2, height + 1, labels)])
    join_edges(corners, width)
    return corners


def trace(labels):
    """Rows first, size, part, is_hole of each instance, and the points."""
    labels = np.array(labels, np.int32)
    n = int(labels.max())
    corners, offsets = group_corners(joined_corners(labels), n)
    marks = np.full((len(corners), 2), -1, np.int32)
    points = np.empty((len(corners), 2), np.int32)
    loops = np.empty((len(corners) // 4, 4), np.int32)
    n_loops = np.zeros(n, np.int32)
    trace_outlines(0, n, labels, corners, offsets, marks, points, loops, n_loops)
    assert (marks[:, 0] >= 0).all()
    return [loops[first : first + m].tolist() for first, m in zip(offsets[:-1] // 4, n_loops, strict=True)], points


def test_corners_come_row_by_row_with_their_vertical_partners():
    corners = joined_corners([[1, 1], [0, 1]])
    assert corners.tolist() == [[0, 0, 1, 2], [2, 0, 1, 5], [0, 1, 1, 0], [1, 1, 1, 4], [1, 2, 1, 3], [2, 2, 1, 1]]


def test_a_diagonal_touch_is_two_corners_the_left_edge_first():
    falling = joined_corners([[1, 0], [0, 1]])
    assert falling[3:5].tolist() == [[1, 1, 1, 1], [1, 1, 1, 6]]
    rising = joined_corners([[0, 1], [1, 0]])
    assert rising[3:5].tolist() == [[1, 1, 1, 7], [1, 1, 1, 0]]


def test_four_instances_meet_in_one_point():
    corners = joined_corners([[1, 2], [3, 4]])
    assert sorted(corners[(corners[:, :2] == 1).all(axis=1), 2]) == [1, 2, 3, 4]


def test_groups_keep_the_order_and_the_partners():
    corners = joined_corners([[2, 2, 1], [1, 1, 1]])
    grouped, offsets = group_corners(corners, 2)
    assert offsets.tolist() == [0, 6, 10]
    assert grouped[:, 2].tolist() == [1] * 6 + [2] * 4
    assert np.all(np.diff(grouped[:6, 1] * 10 + grouped[:6, 0]) > 0)
    np.testing.assert_array_equal(grouped[grouped[:, 3], 3], np.arange(10))
    np.testing.assert_array_equal(grouped[grouped[:, 3], 0], grouped[:, 0])


def test_a_ring_is_cut_where_it_meets_a_corner_again():
    [loops], points = trace([[1, 1, 1], [1, 0, 1], [1, 1, 0]])
    assert sorted(row[1:] for row in loops) == [[4, 0, 1], [6, 0, 0]]
    hole = next(row for row in loops if row[3])
    assert sorted(points[hole[0] : hole[0] + 4].tolist()) == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_holes_know_their_part():
    frame = np.pad(np.zeros((3, 3), int), 1, constant_values=1)
    nested = np.pad(np.pad(frame, 1), 1, constant_values=1)  # a frame in a frame
    [loops], _ = trace(np.concatenate([nested, np.zeros((9, 1), int), np.pad(frame, ((0, 4), (0, 0)))], axis=1))
    assert sorted(row[2:] for row in loops) == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]


@pytest.mark.parametrize("seed", range(4))
def test_outer_pixels_touch_what_a_fill_from_outside_reaches(seed):
    labels = np.random.default_rng(seed).integers(0, 3, (20, 30)).astype(np.int32)
    n = int(labels.max())
    marked = np.zeros(labels.shape, bool)
    mark_outer_pixels(0, n, labels, boxes_and_areas(labels, n)[0], marked)
    expected = np.zeros(labels.shape, bool)
    for label in range(1, n + 1):
        mask = np.pad(labels == label, 1)
        outside = ~ndimage.binary_fill_holes(mask)
        expected |= (mask & ndimage.binary_dilation(outside))[1:-1, 1:-1]
    np.testing.assert_array_equal(marked, expected)
