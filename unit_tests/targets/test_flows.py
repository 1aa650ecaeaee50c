"""Flow targets: directions by hand, invariants, threads and forks, and cellpose as an oracle."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import uniform_filter
from torch.utils.data import DataLoader

from cellbundle.errors import ArrayError
from cellbundle.kernels.diffusion import GENTLE
from cellbundle.synthetic import generate
from cellbundle.targets.flows import labels_to_flows

KINDS = ["fluorescence", "phase", "he"]
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


def digits(*rows):
    """Label map from strings of digits; a dot is background."""
    return np.array([[int(c) if c != "." else 0 for c in row] for row in rows])


def arrows(*rows):
    """Flow field (2, H, W) from strings of arrows."""
    return np.array([[ARROWS[c] for c in row] for row in rows]).transpose(2, 0, 1)


def assert_flows(flows, expected):
    known = np.isfinite(expected)
    np.testing.assert_allclose(flows[known], expected[known], atol=1e-6)


def lengths(flows):
    return np.hypot(*flows.astype(np.float64))


def cells(kind="phase", touching=0.5, seed=0, size=(96, 120)):
    return generate(kind, size, 20, diameter=18, touching=touching, seed=seed)[1]


# Hand-made maps

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
        (np.zeros((4, 5), np.float32), r"got shape \(4, 5\) dtype float32"),
        (np.zeros((4, 5), bool), r"got shape \(4, 5\) dtype bool"),
        (np.zeros((1, 4, 5), np.int32), r"got shape \(1, 4, 5\) dtype int32"),
        (np.zeros(5, np.int64), r"got shape \(5,\) dtype int64"),
        (np.array([[0, -1]]), "negative ids, got -1"),
    ],
)
def test_bad_maps_are_refused(labels, message):
    with pytest.raises(ArrayError, match=message):
        labels_to_flows(labels)


# Invariants

both_rules = pytest.mark.parametrize("across_borders", [True, False])


@both_rules
@pytest.mark.parametrize("kind", KINDS)
def test_length_is_1_inside_and_0_outside(kind, across_borders):
    labels = cells(kind)
    flows = labels_to_flows(labels, across_borders=across_borders)
    assert flows.dtype == np.float32
    assert flows.flags.c_contiguous
    np.testing.assert_allclose(lengths(flows), labels > 0, atol=1e-6)


@both_rules
@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "u8", ">i4"])
def test_ids_and_their_type_do_not_matter(dtype, across_borders):
    labels = cells()
    expected = labels_to_flows(labels, across_borders=across_borders)
    largest = min(np.iinfo(dtype).max, 2**62)
    ids = np.linspace(largest, largest // 2, labels.max()).astype(np.uint64)  # gaps, reversed order, huge
    assert len(set(ids.tolist())) == labels.max()
    renamed = np.concatenate([[0], ids]).astype(dtype)[labels]
    np.testing.assert_array_equal(labels_to_flows(renamed, across_borders=across_borders), expected)


@both_rules
@pytest.mark.parametrize("view", [lambda a: a[::2, ::2], lambda a: a[::-1], lambda a: a[5:50, 7:40], np.asfortranarray])
def test_memory_layout_does_not_matter(view, across_borders):
    labels = cells()
    labels.flags.writeable = False
    flows = labels_to_flows(view(labels), across_borders=across_borders)
    np.testing.assert_array_equal(flows, labels_to_flows(view(labels).copy(order="C"), across_borders=across_borders))


@both_rules
def test_flows_move_with_the_cells(across_borders):
    labels = cells()
    moved = labels_to_flows(np.pad(labels, ((3, 70), (41, 2))), across_borders=across_borders)
    expected = np.pad(labels_to_flows(labels, across_borders=across_borders), ((0, 0), (3, 70), (41, 2)))
    np.testing.assert_array_equal(moved, expected)


@both_rules
@pytest.mark.parametrize("seed", [1, 2])
def test_flows_turn_with_the_cells(seed, across_borders):
    labels = cells(seed=seed)
    turned = labels_to_flows(labels.T, across_borders=across_borders)
    expected = labels_to_flows(labels, across_borders=across_borders)[::-1].transpose(0, 2, 1)
    np.testing.assert_allclose(turned, expected, atol=1e-3)  # single precision; see kernels/diffusion.py


def test_cells_without_contact_do_not_see_each_other():
    labels = cells(touching=0)
    flows = [labels_to_flows(labels, across_borders=across_borders, n_steps=80) for across_borders in (True, False)]
    np.testing.assert_array_equal(*flows)


def test_a_cell_has_the_flow_that_cellpose_gives_it_alone():
    labels = cells(touching=0.7)
    labels[:, 150:] = 99  # a large one sets the steps of all in cellpose
    flows = labels_to_flows(labels)
    for name in np.unique(labels)[1:]:
        alone = np.where(labels == name, name, 0)
        np.testing.assert_array_equal(np.where(labels == name, flows, 0), labels_to_flows(alone, across_borders=True))


def test_the_centre_of_a_disc_has_no_direction():
    for radius in range(1, 10):
        y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        disc = (y**2 + x**2 <= radius**2).astype(int)
        assert lengths(labels_to_flows(disc))[radius, radius] < 1e-6


def test_single_precision_is_left_where_it_is_not_enough():
    """A nearly symmetric cell: the slope in its middle is a tiny part of the temperature."""
    labels = np.zeros((83, 83), np.int32)
    labels[1:-1, 1:-1] = 1
    labels[1, 1:40] = 0  # one row of the far border makes all the difference
    flows = labels_to_flows(labels)
    heat = np.zeros(labels.shape)  # the same diffusion, plainly
    for _ in range(2 * (81 + 81 + 2)):
        heat[41, 41] += 1
        heat = uniform_filter(heat, 3, mode="constant") * (labels > 0)
    gradient = np.stack([np.roll(heat, -1, axis) - np.roll(heat, 1, axis) for axis in (0, 1)])
    slope = np.abs(gradient).max(0)[labels > 0] / heat[labels > 0]
    assert 0 < slope.min() < GENTLE
    expected = np.where(labels > 0, gradient / np.hypot(*gradient), 0)
    np.testing.assert_allclose(flows, expected, atol=1e-6)


@pytest.mark.parametrize("width", [1, 3, 5])
def test_long_thin_cells_have_flow_up_to_their_ends(width):
    labels = np.zeros((width + 2, 602), np.int32)
    labels[1:-1, 1:-1] = 1
    length = lengths(labels_to_flows(labels))[(width + 1) // 2]
    assert (length[1:290] > 0.99).all()
    assert (length[312:-1] > 0.99).all()


# Threads and processes


def grid_of_cells():
    """Enough cells and rows for two threads."""
    tile = digits("......", ".111..", ".1111.", ".111..", "..1...", "......")
    labels = np.tile(tile, (90, 8))
    labels[labels > 0] += 10 * (np.arange(90)[:, None].repeat(6, 0) * 8 + np.arange(8).repeat(6))[labels > 0]
    return labels


def test_the_number_of_threads_does_not_matter(monkeypatch):
    labels, results = grid_of_cells(), []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", threads)
        results.append(labels_to_flows(labels, across_borders=False))
    np.testing.assert_allclose(lengths(results[0]), labels > 0, atol=1e-6)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


class Flows:
    """Data set that computes targets in the process that asks for them."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return labels_to_flows(np.roll(self.labels, index, axis=1))


def test_forked_loader_workers_give_the_same_flows(monkeypatch):
    monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", "2")
    flows = Flows(grid_of_cells())
    expected = [flows[i] for i in range(len(flows))]  # threads have run before the fork
    loader = DataLoader(flows, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60)
    for got, want in zip(loader, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(got), want)


# cellpose as an oracle


def compare(labels):
    """Cosine of our and cellpose's flow, (H, W)."""
    dynamics = pytest.importorskip("cellpose.dynamics")
    theirs = dynamics.masks_to_flows_gpu(labels)[0]
    return (labels_to_flows(labels, across_borders=True) * theirs).sum(0)


@pytest.mark.parametrize("touching", [0, 0.7])
@pytest.mark.parametrize("kind", KINDS)
def test_same_flows_as_cellpose(kind, touching):
    labels = cells(kind, touching, seed=4)
    cosine = compare(labels)[labels > 0]
    assert cosine.mean() >= 0.9999
    assert cosine.min() >= 0.999


def is_symmetric(mask):
    """Whether a half turn around its centre does not change a mask."""
    ys, xs = np.nonzero(mask)
    window = mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    return np.array_equal(window, window[::-1, ::-1])


REAL = [
    "20468e8779c43e089dc0ff30f25e6cf3872d5aa6a0fdad6f8aca382da43e8582",  # two symmetric cells of 21 pixels
    "1c681dfa5cf7e413305d2e90ee47553a46e29cce4f6ed034c8297e511714f867",
    "92e7e86e765e05ce331c07a6d14f0a696eac7ee40058699243900f40b696d7aa",
]


@pytest.mark.parametrize("name", REAL)
def test_same_flows_as_cellpose_on_real_cells(name):
    """All agree but the centres of symmetric cells, which have no direction: rounding errors, scaled to length 1."""
    folder = os.environ.get("CELLBUNDLE_TEST_DATA")
    path = Path(folder or ".") / "dsb2018" / "labels" / f"{name}.png"
    if not folder or not path.exists():
        pytest.skip("CELLBUNDLE_TEST_DATA has no dsb2018")
    labels = np.array(Image.open(path)).astype(np.int32)
    cosine = compare(labels)
    differ = (labels > 0) & (cosine < 0.999)
    assert 0 < differ.sum() < 10
    for y, x in np.argwhere(differ):
        mask = labels == labels[y, x]
        assert is_symmetric(mask)
        assert np.argwhere(mask).mean(0).tolist() == [y, x]
    assert cosine[(labels > 0) & ~differ].mean() >= 0.9999
