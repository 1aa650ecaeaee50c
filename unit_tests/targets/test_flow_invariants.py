"""Flow targets: what must not change them, and what they always are."""

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from cellbundle.kernels.diffusion import GENTLE
from cellbundle.synthetic import KINDS
from cellbundle.targets.flows import labels_to_flows

from .label_maps import cells, lengths

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


def test_a_cell_has_the_flow_that_it_has_across_borders_when_it_is_alone():
    labels = cells(touching=0.7)
    labels[:, 90:] = 99  # a large one sets the steps of all in cellpose
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
