"""The published way from nuclear logit and distances to instances: by hand, bad input; SciPy and MONAI as oracles."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.apps.pathology.transforms.post import array as monai_post
from monai.networks.layers import GaussianFilter
from monai.transforms import SobelGradients
from PIL import Image
from scipy import ndimage
from skimage.morphology import disk, opening
from skimage.segmentation import watershed

from cellbundle.decode import hover as decode
from cellbundle.decode.hover import PUBLISHED, border_strength, decode_hover, find_markers
from cellbundle.errors import ConfigError
from cellbundle.kernels.geometry import boxes_and_areas
from cellbundle.kernels.hover import correlate_rows
from cellbundle.kernels.watershed import fill_mask_holes, flood_components, label_components
from cellbundle.labels import renumber
from cellbundle.metrics import image_scores
from cellbundle.synthetic import generate
from cellbundle.targets.hover import labels_to_hover

KINDS = ["fluorescence", "phase", "he"]
LOGIT = 3.0  # of a sure cell
SHAPES = [(1, 1), (1, 9), (9, 1), (2, 3), (17, 40), (40, 17)]


def perfect(labels):
    """What a perfect network predicts: (3, H, W) float32."""
    return np.concatenate([np.where(labels > 0, LOGIT, -LOGIT)[None], labels_to_hover(labels)]).astype(np.float32)


def published(prediction, **options):
    return decode_hover(prediction, **(PUBLISHED | options))


def noisy(labels, seed, strength=0.2):
    prediction = perfect(labels)
    noise = np.random.default_rng(seed).normal(0, strength, prediction.shape).astype(np.float32)
    noise[0] *= 5  # ragged outlines and holes
    return prediction + noise


def discs(shape, *cells):
    """Label map of discs (y, x, radius), numbered from 1."""
    labels = np.zeros(shape, np.int32)
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    for i, (y, x, radius) in enumerate(cells, 1):
        labels[(ys - y) ** 2 + (xs - x) ** 2 <= radius**2] = i
    return labels


def drawn(kind, seed, size=(96, 128)):
    return generate(kind, size, 20, diameter=20, touching=0.6, seed=seed)[1]


def random_mask(shape, seed, share=0.6):
    return (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)


def by_monai(prediction, *, kernel_size=21, marker_threshold=0.4, marker_radius=2, min_size=10, min_marker_size=10):
    """The instances of MONAI's transforms, numbered 1..N."""
    logits = np.concatenate([np.zeros_like(prediction[:1]), prediction[:1]])
    mask = monai_post.GenerateWatershedMask(min_object_size=min_size)(logits)
    border = monai_post.GenerateInstanceBorder(kernel_size)(mask, prediction[1:])
    heights = monai_post.GenerateDistanceMap()(mask, border)
    markers = monai_post.GenerateWatershedMarkers(marker_threshold, marker_radius, min_marker_size)(mask, border)
    return renumber(np.asarray(monai_post.Watershed()(heights, mask, markers))[0])[0]


TWO = discs((40, 60), (20, 20, 12), (20, 40, 11))
assert (TWO[20, 28:33] > 0).all()  # they touch


# Steps of the decoder


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
    n = label_components(mask, 0, labels)
    expected, n_expected = ndimage.label(mask)
    assert n == n_expected
    np.testing.assert_array_equal(labels, expected)
    large = np.zeros(mask.shape, np.int32)
    label_components(mask, 4, large)
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
    n = label_components(mask, 0, components)
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


# Round trips


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind):
    labels = drawn(kind, 1)
    found = published(perfect(labels), kernel_size=5)
    assert found.dtype == np.int32
    assert image_scores(labels, found)["ap50"] >= 0.95
    assert (found > 0).sum() > 0.98 * (labels > 0).sum()


def test_touching_cells_are_parted():
    found = published(perfect(TWO))
    assert found.max() == 2
    assert image_scores(TWO, found)["pq"] > 0.97


@pytest.mark.parametrize("kernel_size", [3, 21])
def test_one_cell_as_large_as_the_image(kernel_size):
    for shape in [(40, 44), (25, 80)]:
        np.testing.assert_array_equal(published(perfect(np.ones(shape, int)), kernel_size=kernel_size), 1)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (1, 7), (7, 1), (2, 30), (1, 60)])
def test_tiny_images(shape):
    empty = published(np.zeros((3, *shape), np.float32))
    assert empty.shape == shape
    assert empty.dtype == np.int32
    assert not empty.any()
    labels = np.ones(shape, np.int32)
    found = published(perfect(labels), kernel_size=3, min_size=0, min_marker_size=0)
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_array_equal(published(perfect(labels), kernel_size=3), labels if labels.size >= 10 else 0)
    assert published(perfect(labels)).shape == shape  # the filter is larger than the image


def test_two_cells_in_an_image_of_one_row():
    labels = np.repeat([0, 1, 2, 0], [2, 24, 26, 9])[None]
    found = published(perfect(labels), kernel_size=5, min_marker_size=3)
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_array_equal(published(perfect(labels.T), kernel_size=5, min_marker_size=3), labels.T)


# Options


def test_cell_threshold():
    prediction = perfect(TWO)
    prediction[0][TWO == 1] = 1.5
    assert published(prediction, cell_threshold=1.4).max() == 2
    np.testing.assert_array_equal(published(prediction, cell_threshold=1.5), TWO == 2)  # above, not equal


@pytest.mark.parametrize(("threshold", "n"), [(0.0, 0), (0.4, 2), (1.01, 1)])
def test_marker_threshold(threshold, n):
    assert published(perfect(TWO), marker_threshold=threshold).max() == n


@pytest.mark.parametrize(("min_size", "kept"), [(0, 3), (29, 3), (30, 2), (400, 0)])
def test_min_size(min_size, kept):
    labels = discs((50, 60), (10, 10, 3), (10, 30, 5), (32, 40, 10))
    assert np.bincount(labels.ravel())[1:].tolist() == [29, 81, 317]
    assert published(perfect(labels), kernel_size=3, marker_radius=1, min_size=min_size).max() == kept


def test_foreground_without_a_marker_is_left_out():
    labels = discs((50, 60), (10, 10, 3), (32, 40, 10))
    found = published(perfect(labels), kernel_size=5, min_marker_size=100)
    np.testing.assert_array_equal(found, labels == 2)
    np.testing.assert_array_equal(published(perfect(labels), kernel_size=5, marker_radius=5), labels == 2)


@pytest.mark.filterwarnings("error")
def test_no_smoothing():
    assert image_scores(TWO, published(perfect(TWO), smoothing=0.0))["pq"] > 0.97


@pytest.mark.parametrize("kernel_size", [1, 4, -3])
def test_bad_kernel_sizes_are_refused(kernel_size):
    with pytest.raises(ConfigError, match=f"kernel_size is {kernel_size}; give an odd number"):
        published(perfect(TWO), kernel_size=kernel_size)


# Input that is empty, damaged or of another type


@pytest.mark.parametrize("logit", [-LOGIT, 0.0, -np.inf, np.nan])
def test_background_only(logit):
    prediction = noisy(TWO, 0)
    prediction[0] = logit
    assert not published(prediction).any()


@pytest.mark.parametrize("logit", [LOGIT, np.inf])
def test_without_distances_every_component_is_one_instance(logit):
    prediction = np.zeros((3, *TWO.shape), np.float32)
    prediction[0] = np.where(TWO > 0, logit, -LOGIT)
    np.testing.assert_array_equal(published(prediction), TWO > 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.filterwarnings("error")
def test_bad_distances_count_as_0(bad, dtype):
    prediction = perfect(TWO).astype(dtype)
    prediction[1, 12, 20] = prediction[2, 30, 40] = 0
    expected = published(prediction)
    prediction[1, 12, 20] = bad
    prediction[2, 30, 40] = bad * (10 if dtype == "f8" else 1)
    np.testing.assert_array_equal(published(prediction), expected)
    prediction[1:] = bad
    np.testing.assert_array_equal(published(prediction), TWO > 0)


@pytest.mark.filterwarnings("error")
def test_nan_logits_are_background():
    prediction = perfect(TWO)
    prediction[0, 10, 14] = prediction[0, 0, 0] = np.nan
    prediction[0, 20, 20] = np.inf
    found = published(prediction)
    assert found[10, 14] == 0
    assert found[20, 20] > 0
    assert image_scores(TWO, found)["pq"] > 0.95


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_type_and_layout_of_the_prediction_do_not_matter(dtype):
    prediction = noisy(drawn("he", 2), 0).astype("f2").astype("f4")
    expected = published(prediction)
    for layout in (prediction, np.asfortranarray(prediction), prediction.transpose(1, 2, 0).copy().transpose(2, 0, 1)):
        given = layout.astype(dtype)
        given.flags.writeable = False
        np.testing.assert_array_equal(published(given), expected)


def test_the_number_of_threads_does_not_matter(monkeypatch):
    monkeypatch.setattr(decode, "MIN_COMPONENTS_PER_THREAD", 2)
    monkeypatch.setattr(decode, "MIN_ROWS_PER_THREAD", 16)
    prediction, results = noisy(drawn("phase", 3), 0), []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", threads)
        results.append(published(prediction))
    assert results[0].max() > 5
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


# MONAI as an oracle


@pytest.mark.parametrize("strength", [0.02, 0.2, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_same_instances_as_monai(kind, strength):
    prediction = noisy(drawn(kind, 7), 1, strength)
    expected = by_monai(prediction)
    assert expected.max() > 5
    np.testing.assert_array_equal(published(prediction), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 5},
        {"kernel_size": 5, "marker_threshold": 0.6, "marker_radius": 1, "min_marker_size": 3},
        {"kernel_size": 11, "marker_radius": 4, "min_size": 200},
    ],
)
def test_same_instances_as_monai_with_other_options(options):
    prediction = noisy(drawn("phase", 8), 2)
    expected = by_monai(prediction, **options)
    assert expected.max() > 3
    np.testing.assert_array_equal(published(prediction, **options), expected)


def test_a_marker_around_another_component_takes_it_in():
    """As in MONAI: holes of markers are filled wherever they lie."""
    ring = discs((90, 90), (45, 45, 40), (45, 45, 20), (45, 45, 8))
    prediction = perfect(np.where(ring == 2, 0, ring))
    prediction[1:] = np.random.default_rng(0).normal(0, 0.01, (2, 90, 90))
    options = {"kernel_size": 3, "marker_threshold": 0.99}
    expected = by_monai(prediction, **options)
    assert expected[45, 45] == expected[45, 10] == 1
    np.testing.assert_array_equal(published(prediction, **options), expected)


def test_same_instances_as_monai_on_real_outlines():
    folder = Path(os.environ.get("CELLBUNDLE_TEST_DATA", ".")) / "dsb2018"
    if "CELLBUNDLE_TEST_DATA" not in os.environ or not folder.exists():
        pytest.skip("CELLBUNDLE_TEST_DATA has no dsb2018")
    entries = json.loads((folder / "dsb2018_datalist.json").read_text())["training"][:200:40]
    for seed, entry in enumerate(entries):
        labels = np.array(Image.open(folder / entry["label"])).astype(np.int32)[:256, :256]
        prediction = noisy(labels, seed)
        expected = by_monai(prediction)
        assert expected.max() > 0
        np.testing.assert_array_equal(published(prediction), expected)
