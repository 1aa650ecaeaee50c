"""Flow targets of label maps by hand: directions, empty maps, bad maps."""

import numpy as np
import pytest

from cellbundle.errors import ArrayError
from cellbundle.targets.flows import labels_to_flows

from ..hand_made import digits
from .label_maps import lengths

HALF = 0.5**0.5
ARROWS = {
    ".": (0, 0),
    "v": (1, 0),
    "^": (-1, 0),
    ">": (0, 1),
    "<": (0, -1),
    "↘": (HALF, HALF),
    "↗": (-HALF, HALF),
    "↙": (HALF, -HALF),
    "↖": (-HALF, -HALF),
    "o": (np.nan, np.nan),  # no simple direction (as in the centre of a symmetric cell): compared with nothing
}


def arrows(*rows):
    """Flow field (2, H, W) from strings of arrows."""
    return np.array([[ARROWS[c] for c in row] for row in rows]).transpose(2, 0, 1)


def assert_flows(flows, expected):
    known = np.isfinite(expected)
    np.testing.assert_allclose(flows[known], expected[known], atol=1e-6)


BY_HAND = {
    "one pixel": (digits("...", ".1.", "..."), arrows("...", "...", "...")),
    "two pixels point at each other": (digits("....", ".11."), arrows("....", ".><.")),
    "bar of 3": (digits("11100"), arrows(">o<..")),
    "bar of 4: the centre 1.5 is rounded to 2": (digits("1111"), arrows(">><<")),
    "upright bar": (digits(".1.", ".1.", ".1.", ".1.", ".1."), arrows(".v.", ".v.", ".o.", ".^.", ".^.")),
    "plus": (
        digits(".....", "..1..", ".111.", "..1..", "....."),
        arrows(".....", "..v..", ".>o<.", "..^..", "....."),
    ),
    "square": (
        digits(".....", ".111.", ".111.", ".111.", "....."),
        arrows(".....", ".↘v↙.", ".>o<.", ".↗^↖.", "....."),
    ),
    "square at the image border": (digits("111.", "111.", "111."), arrows("↘v↙.", ">o<.", "↗^↖.")),
    "corner: the centre of mass is outside, so the nearest pixel is warmed": (
        digits("1111", "1...", "1...", "1..."),
        arrows("o<<<", "^...", "^...", "^..."),
    ),
    "separate cells": (
        digits("222.9", "222.9", "222.9"),
        arrows("↘v↙.v", ">o<.o", "↗^↖.^"),
    ),
}


@pytest.mark.parametrize("across_borders", [True, False])
@pytest.mark.parametrize("name", BY_HAND)
def test_directions_by_hand(name, across_borders):
    labels, expected = BY_HAND[name]
    assert_flows(labels_to_flows(labels, across_borders=across_borders), expected)


def test_touching_cells_by_hand():
    labels = digits("111222", "111222", "111222")
    inwards = arrows("↘v↙↘v↙", ">o<>o<", "↗^↖↗^↖")
    assert_flows(labels_to_flows(labels, across_borders=False), inwards)
    across = labels_to_flows(labels, across_borders=True)
    assert_flows(across[:, 1], inwards[:, 1])
    corner = across[:, 0, 2]  # reads the equally warm corner of the neighbour, so it leans less to the left
    assert corner[0] > HALF
    assert -HALF < corner[1] < 0


def test_a_warm_neighbour_turns_the_flow_only_across_borders():
    labels = digits("1222", ".222", ".222")  # the one pixel of cell 1 sees nothing but a corner of cell 2
    assert labels_to_flows(labels, across_borders=True)[:, 0, 0].tolist() == [0, 1]
    assert labels_to_flows(labels, across_borders=False)[:, 0, 0].tolist() == [0, 0]


@pytest.mark.parametrize("sizes", [(6, 6), (5, 14), (14, 5), (3, 20)])
def test_border_pixels_of_touching_squares_point_inwards(sizes):
    a, b = sizes
    labels = np.zeros((max(sizes), a + b), np.int32)
    labels[:a, :a], labels[:b, a:] = 1, 2
    dy, dx = labels_to_flows(labels, across_borders=False)
    assert (dx[:a, a - 1] < 0).all()
    assert (dx[:b, a] > 0).all()
    assert (dy[0, labels[0] > 0] > 0).all()


def test_few_steps_warm_only_the_middle():
    flows = labels_to_flows(digits("111111111"), n_steps=1)
    assert_flows(flows, arrows("..>>o<<.."))


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 6), (6, 1), (4, 7)])
def test_empty_maps(shape):
    flows = labels_to_flows(np.zeros(shape, np.uint8))
    assert flows.shape == (2, *shape)
    assert flows.dtype == np.float32
    assert not flows.any()


def test_an_image_of_one_pixel():
    assert labels_to_flows(np.array([[5]])).tolist() == [[[0]], [[0]]]


@pytest.mark.parametrize("shape", [(6, 8), (7, 7), (1, 12), (12, 1), (2, 9)])
@pytest.mark.parametrize("across_borders", [True, False])
def test_one_cell_as_large_as_the_image(shape, across_borders):
    dy, dx = labels_to_flows(np.full(shape, 3), across_borders=across_borders)
    height, width = shape
    assert (dy[: (height - 1) // 2] > 0).all()
    assert (dy[height // 2 + 1 :] < 0).all()
    assert (dx[:, : (width - 1) // 2] > 0).all()
    assert (dx[:, width // 2 + 1 :] < 0).all()


def test_heat_reaches_only_what_is_connected_to_the_centre():
    labels = digits("111..1", "111..1", "111..1")  # centre of mass 2.25 → 2, in the left part
    flows = labels_to_flows(labels, across_borders=False)
    assert (lengths(flows)[:, :3] > 0.99).all()
    assert not flows[:, :, 5].any()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 5), np.float32), r"\(4, 5\).*float32"),
        (np.zeros((4, 5), bool), r"\(4, 5\).*bool"),
        (np.zeros((1, 4, 5), np.int32), r"\(1, 4, 5\).*int32"),
        (np.zeros(5, np.int64), r"\(5,\).*int64"),
        (np.array([[0, -1]]), "negative.* -1 "),
    ],
)
def test_bad_maps_are_refused(labels, message):
    with pytest.raises(ArrayError, match=message):
        labels_to_flows(labels)
