"""Polygons hold exactly the pixels of their instances, in valid rings."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import draw

from cellbundle.errors import ArrayError
from cellbundle.instances.painting import paint_contours
from cellbundle.instances.polygons import contours, outlines


def fill(rings, shape):
    """Pixels whose centre is inside an odd number of rings."""
    mask = np.zeros(shape, bool)
    for ring in rings:
        x, y = np.array(ring).T - 0.5
        mask[draw.polygon(y, x, shape)] ^= True
    return mask


def area(ring):
    x, y = ring.astype(np.int64).T
    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2


def discs(shape, count, seed):
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for label in range(1, count + 1):
        centre = rng.integers(0, shape)
        labels[draw.disk(centre, rng.integers(2, 9), shape=shape)] = label
    return labels


def noise(shape, highest, seed):
    return np.random.default_rng(seed).integers(0, highest + 1, shape)


RING = np.pad(np.pad(np.zeros((3, 3), int), 2, constant_values=1), 1)
MAPS = {
    "one pixel": np.ones((1, 1), int),
    "one pixel inside": np.pad([[1]], 2),
    "whole image": np.ones((3, 7), int),
    "one row": np.array([[1, 1, 0, 2, 1]]),
    "diagonal touch": np.eye(3, dtype=int),
    "checkerboard of two": np.indices((5, 6)).sum(0) % 2 + 1,
    "ring": RING,
    "cell in a ring": np.where(np.pad([[1]], 4) == 1, 2, RING),
    "own part in a ring": np.where(np.pad([[1]], 4) == 1, 1, RING),
    "ring in a ring": np.pad(RING, 2, constant_values=1),
    "hole that touches its edge in a corner": np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]]),
    "two holes that touch in a corner": np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]]),
    "absent id": np.array([[0, 3], [1, 1]]),
    "gap between types": np.array([[0, 2], [1, 1]], np.uint64),
    "discs": discs((60, 90), 60, 0),
    "noise": noise((40, 50), 5, 1),
    "noise of one": noise((40, 50), 1, 2),
    "noise over the edge of bytes": noise((30, 40), 400, 3),
}


@pytest.mark.parametrize("labels", MAPS.values(), ids=MAPS.keys())
def test_polygons_hold_exactly_the_pixels(labels):
    polygons = outlines(labels)
    assert len(polygons) == labels.max()
    for label, parts in enumerate(polygons, start=1):
        components, count = ndimage.label(labels == label)
        assert len(parts) == count
        assert sum(area(ring) for part in parts for ring in (part.exterior, *part.holes)) == (labels == label).sum()
        for part in parts:
            filled = fill([part.exterior, *part.holes], labels.shape)
            inside = components[filled]
            assert inside[0] > 0
            np.testing.assert_array_equal(filled, components == inside[0])


@pytest.mark.parametrize("labels", MAPS.values(), ids=MAPS.keys())
def test_rings_are_simple(labels):
    for parts in outlines(labels):
        for part in parts:
            assert area(part.exterior) > 0
            assert all(area(hole) < 0 for hole in part.holes)
            for ring in (part.exterior, *part.holes):
                assert ring.dtype == np.int32
                assert len(np.unique(ring, axis=0)) == len(ring)  # no corner twice
                horizontal = (np.roll(ring, -1, axis=0) - ring)[:, 1] == 0
                assert np.all(horizontal != np.roll(horizontal, 1))  # every corner turns


def test_parts_and_rings_by_hand():
    [[part], [upper, lower]] = outlines(np.array([[2, 1, 1, 1], [0, 1, 2, 1], [0, 1, 1, 1]]))
    np.testing.assert_array_equal(part.exterior, [[1, 0], [4, 0], [4, 3], [1, 3]])
    np.testing.assert_array_equal(part.holes, [[[3, 1], [2, 1], [2, 2], [3, 2]]])
    np.testing.assert_array_equal(upper.exterior, [[0, 0], [1, 0], [1, 1], [0, 1]])
    np.testing.assert_array_equal(lower.exterior, [[2, 1], [3, 1], [3, 2], [2, 2]])


@pytest.mark.parametrize("labels", MAPS.values(), ids=MAPS.keys())
def test_contours_painted_are_the_parts_without_their_holes(labels):
    found = contours(labels)
    assert len(found) == labels.max()
    for label, parts in enumerate(found, start=1):
        components, count = ndimage.label(labels == label)
        sizes = np.bincount(components.ravel())
        order = [components[y, x] for (x, y), *_ in parts]
        assert sorted(order) == list(range(1, count + 1))
        assert np.all(np.diff(sizes[order]) <= 0)  # the largest first
        for component, contour in zip(order, parts, strict=True):
            assert contour.dtype == np.int32
            painted = paint_contours([contour], labels.shape).labels
            np.testing.assert_array_equal(painted, ndimage.binary_fill_holes(components == component))


def test_contours_of_instances_in_one_part_without_holes_give_back_the_map():
    labels = discs((60, 90), 60, 0)
    for label, parts in enumerate(outlines(labels), start=1):
        if len(parts) != 1 or parts[0].holes:
            labels[labels == label] = 0
    painted = paint_contours([parts[0] if parts else np.empty((0, 2)) for parts in contours(labels)], labels.shape)
    assert len(np.unique(labels)) > 20
    np.testing.assert_array_equal(painted.labels, labels)
    assert painted.lost == sorted(set(range(labels.max())) - set((labels - 1).ravel().tolist()))


@pytest.mark.parametrize("labels", MAPS.values(), ids=MAPS.keys())
def test_contours_are_those_of_opencv(labels):
    cv2 = pytest.importorskip("cv2")
    for label, parts in enumerate(contours(labels), start=1):
        components, _ = ndimage.label(labels == label)
        for contour in parts:
            mask = components == components[contour[0, 1], contour[0, 0]]
            (theirs,), _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            assert sorted(contour.tolist()) == sorted(theirs[:, 0].tolist())


def test_contours_by_hand():
    pixel, line, (large, small) = contours(np.array([[1, 0, 3, 0, 0], [0, 0, 0, 3, 3], [0, 2, 2, 2, 3]]))
    assert [corners.tolist() for corners in pixel] == [[[0, 0]]]
    assert [corners.tolist() for corners in line] == [[[1, 2], [3, 2]]]
    assert large.tolist() == [[3, 1], [4, 1], [4, 2]]  # the pixel that touches it in a corner is a part of its own
    assert small.tolist() == [[2, 0]]


def test_the_largest_part_is_that_of_most_pixels_not_of_the_longest_outline():
    labels = np.ones((5, 10), int)
    labels[:, 5] = labels[1:4, 1:4] = labels[4, 6:] = 0  # a frame of 16 pixels around 9, and a block of 16 + 1
    labels[4, 9] = 1
    (first, second), *_ = contours(labels)
    assert (first[0].tolist(), second[0].tolist()) == ([6, 0], [0, 0])


def test_no_instances():
    for find in (outlines, contours):
        assert find(np.zeros((4, 5), int)) == []
        assert find(np.zeros((0, 5), int)) == []
    assert contours(np.array([[2, 0]]))[0] == []


@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_view_and_any_number_of_threads_give_the_same(monkeypatch, threads):
    labels = discs((200, 200), 400, 4)
    expected = outlines(labels)
    monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", threads)
    turned = outlines(np.ascontiguousarray(labels[:, ::-1])[:, ::-1])
    for mine, theirs in zip(turned, expected, strict=True):
        assert [part.exterior.tolist() for part in mine] == [part.exterior.tolist() for part in theirs]


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.zeros((2, 3)), "integer"), (np.full((2, 3), 7), r"id 7 .*\(2, 3\)"), (-np.eye(3, dtype=int), "negative")],
)
def test_refused_labels(labels, message):
    with pytest.raises(ArrayError, match=message):
        outlines(labels)
