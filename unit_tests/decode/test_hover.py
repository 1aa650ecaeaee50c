"""The published way from nuclear logit and distances to instances: round trips, options, bad input."""

import numpy as np
import pytest

from cellbundle.decode import hover as decode
from cellbundle.errors import ConfigError
from cellbundle.metrics import image_scores
from cellbundle.synthetic import KINDS

from .hover_predictions import LOGIT, TWO, discs, drawn, noisy, perfect, published

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
    with pytest.raises(ConfigError, match=f"kernel_size.* {kernel_size};.*odd.* 3 "):
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
