"""Polygons hold exactly the pixels of their instances, in valid rings."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import draw

from cellbundle.errors import ArrayError
from cellbundle.polygons import outlines


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


def test_no_instances():
    assert outlines(np.zeros((4, 5), int)) == []
    assert outlines(np.zeros((0, 5), int)) == []


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
    [(np.zeros((2, 3)), "integer"), (np.full((2, 3), 7), r"id 7 in shape \(2, 3\)"), (-np.eye(3, dtype=int), "neg")],
)
def test_refused_labels(labels, message):
    with pytest.raises(ArrayError, match=message):
        outlines(labels)
