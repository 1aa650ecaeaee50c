"""The steps from nuclear logit and distances to instances: by hand, and against torch, SciPy and scikit-image."""

import numpy as np
import pytest
import torch
from monai.networks.layers import GaussianFilter
from monai.transforms import SobelGradients
from scipy import ndimage
from skimage.morphology import disk, opening
from skimage.segmentation import watershed

from cellbundle.decode import hover as decode
from cellbundle.decode.hover import border_strength, find_markers
from cellbundle.instances.labels import renumber
from cellbundle.kernels.geometry import boxes_and_areas
from cellbundle.kernels.hover import correlate_rows
from cellbundle.kernels.watershed import fill_mask_holes, flood_components, number_components
from cellbundle.targets.hover import labels_to_hover

from .hover_predictions import SHAPES, TWO


def random_mask(shape, seed, share=0.6):
    return (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)


@pytest.mark.parametrize("mirrored", [True, False])
def test_correlation_rounds_as_torch_does(mirrored):
    image = np.random.default_rng(0).random((160, 203), np.float32)  # torch filters small images in another way
    tensor = torch.from_numpy(image)[None]
    if mirrored:
        smooth, difference = decode._sobel_weights(21)
        expected = SobelGradients(21)(tensor)[0]
        found = decode._correlate(image, difference, smooth, mirrored=True)
    else:
        weights = decode._gaussian_weights(1.0)
        expected = GaussianFilter(2, 1.0)(tensor[None])[0, 0]
        found = decode._correlate(image, weights, weights, mirrored=False)
    assert (found == expected.numpy()).mean() > 0.99  # all, where torch uses oneDNN
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mirrored", [True, False])
def test_correlation_beyond_the_image(shape, mirrored):
    image = np.random.default_rng(0).random(shape, np.float32)
    down, across, out = np.array([1.0, 2, 3, 4, 5]), np.array([0.5, -1, 0, 0, 2]), np.empty(shape, np.float32)
    correlate_rows(0, shape[0], image, down, across, mirrored, out)
    mode = "mirror" if mirrored else "constant"
    expected = ndimage.correlate1d(ndimage.correlate1d(image, down, 0, mode=mode), across, 1, mode=mode)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [*SHAPES, (0, 4), (4, 0)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_components_are_those_of_scipy(shape, seed):
    mask = random_mask(shape, seed)
    labels = np.zeros(mask.shape, np.int32)
    n = number_components(mask, 0, 0, labels)
    expected, n_expected = ndimage.label(mask)
    assert n == n_expected
    np.testing.assert_array_equal(labels, expected)
    large = np.zeros(mask.shape, np.int32)
    number_components(mask, 0, 4, large)
    expected[np.bincount(expected.ravel(), minlength=1)[expected] < 4] = 0
    np.testing.assert_array_equal(large, renumber(expected)[0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.4, 0.7, 0.9])
def test_holes_are_those_of_scipy(shape, share):
    mask = random_mask(shape, 3, share)
    expected = ndimage.binary_fill_holes(mask, np.ones((3, 3)))
    fill_mask_holes(mask)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [0, 1, 2, 3, 6])
def test_markers_are_opened_with_a_disc(shape, radius):
    mask = ndimage.binary_fill_holes(random_mask(shape, radius, 0.95), np.ones((3, 3)))
    expected, _ = ndimage.label(opening(mask, disk(radius)))
    np.testing.assert_array_equal(find_markers(mask.copy(), radius, 0), expected)


def flooded(heights, markers, mask):
    """``flood_components`` over all components of a mask."""
    components = np.zeros(mask.shape, np.int32)
    n = number_components(mask, 0, 0, components)
    labels = np.zeros_like(components)
    flood_components(0, n, components, boxes_and_areas(components, n)[0], heights, markers, labels)
    return labels


@pytest.mark.parametrize("seed", range(12))
def test_watershed_is_that_of_skimage(seed):
    """Levels are equal often, levels of markers never: their order would depend on all the image in skimage."""
    rng = np.random.default_rng(seed)
    mask = random_mask((30, 40), seed, 0.8)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(rng.integers(0, (30, 40), (12, 2)).T)] = rng.permutation(12) + 1
    heights = rng.integers(0, 5, mask.shape, np.int32) * 100
    heights[markers > 0] += np.arange((markers > 0).sum(), dtype=np.int32)
    np.testing.assert_array_equal(flooded(heights, markers, mask), watershed(-heights, markers, mask=mask))


def test_watershed_by_hand():
    heights = np.array([[9, 5, 4, 3, 8, 8, 7]], np.int32)
    markers = np.array([[2, 0, 0, 0, 0, 0, 5]], np.int32)
    assert flooded(heights, markers, np.ones((1, 7), np.uint8)).tolist() == [[2, 2, 2, 5, 5, 5, 5]]  # 5 is there first
    assert flooded(heights, markers, np.array([[1, 1, 1, 0, 1, 0, 1]], np.uint8)).tolist() == [[2, 2, 2, 0, 0, 0, 5]]


def test_equal_markers_flood_in_the_order_of_their_pixels():
    heights, markers = np.zeros((1, 5), np.int32), np.array([[7, 0, 0, 0, 3]], np.int32)
    assert flooded(heights, markers, np.ones((1, 5), np.uint8)).tolist() == [[7, 7, 7, 3, 3]]


def test_borders_are_where_distances_drop():
    border = border_strength(labels_to_hover(TWO), 5)
    assert border.dtype == np.float32
    assert 0 <= border.min() < 0.05
    assert border.max() == 1
    assert border[20, 20] < 0.4
    assert border[20, 40] < 0.4
    assert border[20, 30] > 0.7


def test_a_constant_map_has_no_borders():
    distances = labels_to_hover(TWO)
    distances[1] = 7
    across = border_strength(distances, 5)
    distances[1] = -0.3
    np.testing.assert_array_equal(border_strength(distances, 5), across)
    assert (across.min(), across.max()) == (0, 1)
    assert not border_strength(np.full((2, 8, 9), 0.3), 5).any()
