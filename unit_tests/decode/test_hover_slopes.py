"""The default way from nuclear logit and distances to instances: slopes, joined parts, round trips, bad input."""

import numpy as np
import pytest
from scipy import ndimage

from cellbundle.decode import hover as decode
from cellbundle.decode.hover import PUBLISHED, border_drop, decode_hover, join_parts
from cellbundle.errors import ConfigError
from cellbundle.metrics import image_scores
from cellbundle.synthetic import KINDS, generate
from cellbundle.targets.hover import labels_to_hover

from .hover_predictions import perfect


def noisy(labels, strength, seed=0):
    """Errors that neighbouring pixels share, of a standard deviation, on the distances."""
    errors = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(3, *labels.shape)), (0, 2, 2))
    errors *= strength / errors.std()
    errors[0] = 0
    return (perfect(labels) + errors).astype(np.float32)


def drawn(kind="phase", seed=0, diameter=18):
    return generate(kind, (96, 128), 24, diameter=diameter, touching=0.6, seed=seed)[1]


def row(*values):
    """(2, 1, W) distances along one row."""
    return np.array([[values], np.zeros((1, len(values)))], np.float32)


def bars(*widths, height=12):
    """Label map of bars side by side."""
    return np.repeat(np.arange(1, len(widths) + 1, dtype=np.int32), widths)[None].repeat(height, 0)


# Slopes


def test_slopes_by_hand():
    drop = border_drop(row(-1, 0, 1, -1, 1, 1), np.ones((1, 6), bool), 3)
    assert drop[0].tolist() == [-1, -1, 0.5, 0, -1, 0]  # the other direction has no neighbours
    assert drop.dtype == np.float32


def test_only_pairs_of_foreground_pixels_count():
    cells = np.array([[True, True, False, True, True, False, True]])
    drop = border_drop(row(0.5, 0.25, -9, 0.5, 0.75, 9, 3), cells, 3)
    np.testing.assert_allclose(drop[0, [0, 1, 3, 4]], [0.25, 0.25, -0.25, -0.25], atol=1e-6)
    assert drop[0, 6] == -2  # alone


def test_steps_are_cut():
    drop = border_drop(row(1e38, -1e38), np.ones((1, 2), bool), 3)
    assert drop.tolist() == [[2, 2]]


@pytest.mark.parametrize("size", [3, 5, 11])
def test_sobel_filter_where_all_is_foreground(size):
    distances = np.random.default_rng(0).uniform(-0.9, 0.9, (2, 60, 70)).astype(np.float32)
    drop = border_drop(distances, np.ones((60, 70), bool), size)
    smooth, difference = np.ones(1), np.array([0.5, 0, -0.5])
    for _ in range(size - 1):
        smooth = np.convolve(smooth, [0.5, 0.5])
    for _ in range(size - 3):
        difference = np.convolve(difference, [0.5, 0.5])
    rises = np.stack(
        [
            ndimage.convolve1d(ndimage.convolve1d(values, smooth, axis=k), difference, axis=1 - k)
            for k, values in enumerate(distances)
        ]
    )
    inner = (slice(size, -size), slice(size, -size))
    np.testing.assert_allclose(drop[inner], (-rises).max(0)[inner], atol=1e-5)


# Parts


def test_parts_are_joined_where_nothing_drops():
    distances = labels_to_hover(bars(20, 14))
    parts = bars(9, 11, 14)
    np.testing.assert_array_equal(join_parts(parts, distances, 0.1, 2), bars(20, 14))
    np.testing.assert_array_equal(join_parts(parts, distances, 0.0, 1), bars(20, 14))


@pytest.mark.parametrize(("drop", "n"), [(0.25, 2), (0.35, 1)])
def test_the_drop_is_the_mean_over_the_border(drop, n):
    """0.6 along half of the border, 0 along the rest."""
    distances = np.zeros((2, 12, 20), np.float32)
    distances[0, :6, :10], distances[0, :6, 10:] = 0.3, -0.3
    assert join_parts(bars(10, 10), distances, drop, 2).max() == n


@pytest.mark.parametrize(("reach", "n"), [(1, 1), (2, 1), (3, 2)])
def test_the_reach_of_a_blurred_border(reach, n):
    distances = np.zeros((2, 12, 20), np.float32)
    distances[0] = np.interp(np.arange(20), [0, 7, 12, 19], [-1, 1, -1, 1])
    assert join_parts(bars(10, 10), distances, 1.9 * (2 * reach - 1) / 5 if n == 2 else 2.1, reach).max() == n


def test_the_walk_stays_in_the_instance():
    distances = np.zeros((2, 12, 14), np.float32)
    distances[0, :, 3], distances[0, :, 10] = 5, -5
    np.testing.assert_array_equal(join_parts(bars(4, 3, 3, 4), distances, 0.5, 9)[0], bars(4, 6, 4)[0])


def test_ids_may_be_absent():
    labels = bars(5, 5, 5) * 4
    joined = join_parts(labels, np.zeros((2, 12, 15), np.float32), 0.1, 2)
    assert (joined == 1).all()


# Round trips


@pytest.mark.parametrize("diameter", [8, 18, 36])
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind, diameter):
    labels = generate(kind, (96, 128), 400 // diameter, diameter=diameter, touching=0.6, seed=1)[1]
    found = decode_hover(perfect(labels))
    assert found.dtype == np.int32
    scores = image_scores(labels, found)
    assert scores["ap50"] >= 0.9
    assert abs(scores["n_pred"] - scores["n_true"]) <= 1
    assert scores["pq"] >= 0.9


def test_noise_costs_less_than_in_the_published_way():
    scores = []
    for kind in KINDS:
        labels = drawn(kind, 3, diameter=12)
        prediction = noisy(labels, 0.15)
        scores.append([image_scores(labels, decode_hover(prediction, **o))["ap50"] for o in ({}, PUBLISHED)])
    ours, published = np.mean(scores, axis=0)
    assert ours > 0.9
    assert ours > published + 0.05


def test_what_else_is_in_the_image_does_not_matter():
    labels = bars(12, 12)
    alone = decode_hover(perfect(np.pad(labels, 8)))
    steep = np.pad(labels, ((8, 8), (8, 60)))
    steep[4:24:4, 60:62], steep[4:24:4, 62:64] = 3, 4
    together = decode_hover(perfect(steep))
    np.testing.assert_array_equal(together[:, :40], alone)


def test_small_nuclei_side_by_side():
    labels = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((4, 4), np.int32))
    np.testing.assert_array_equal(decode_hover(perfect(labels)), labels)
    assert decode_hover(perfect(labels), **PUBLISHED).max() == 0


# Options


def test_components_without_a_marker():
    labels = np.zeros((30, 60), np.int32)
    labels[5:25, 5:25], labels[10:14, 40:44] = 1, 2
    prediction = perfect(labels)
    np.testing.assert_array_equal(decode_hover(prediction, min_marker_size=50), labels)
    np.testing.assert_array_equal(decode_hover(prediction, min_marker_size=50, keep_unmarked=False), labels == 1)
    np.testing.assert_array_equal(decode_hover(prediction, min_marker_size=50, min_size=17), labels == 1)


def test_ids_are_consecutive():
    labels = drawn("he", 5)
    for options in ({}, {"keep_unmarked": False}, {"merge_drop": None}, {"marker_radius": 2}):
        found = decode_hover(noisy(labels, 0.2), **options)
        assert np.array_equal(np.unique(found), np.arange(found.max() + 1))


def test_published_settings_name_every_option_but_the_thresholds_of_the_foreground():
    options = set(decode_hover.__kwdefaults__)
    assert options - set(PUBLISHED) == {"cell_threshold", "merge_reach"}
    assert not set(PUBLISHED) - options


def test_unknown_rules_are_refused():
    with pytest.raises(ConfigError, match=r"border_rule.*'sobel'.*'slope' or 'image'"):
        decode_hover(perfect(bars(5, 5)), border_rule="sobel")


@pytest.mark.parametrize("kernel_size", [1, 4])
def test_bad_kernel_sizes_are_refused(kernel_size):
    with pytest.raises(ConfigError, match=f"kernel_size.* {kernel_size};.*odd.* 3 "):
        decode_hover(perfect(bars(5, 5)), kernel_size=kernel_size)


# Input that is empty, damaged or of another type


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (1, 7), (7, 1), (2, 30), (40, 44)])
def test_one_cell_as_large_as_the_image(shape):
    labels = np.ones(shape, np.int32)
    np.testing.assert_array_equal(decode_hover(perfect(labels), min_size=0), labels)
    assert not decode_hover(-np.ones((3, *shape), np.float32)).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.filterwarnings("error")
def test_bad_distances_count_as_0(bad):
    labels = drawn()
    prediction = perfect(labels)
    prediction[1, 12, 20] = prediction[2, 30, 40] = 0
    expected = decode_hover(prediction)
    prediction[1, 12, 20] = prediction[2, 30, 40] = bad
    np.testing.assert_array_equal(decode_hover(prediction), expected)
    prediction[1:] = bad
    np.testing.assert_array_equal(decode_hover(prediction) > 0, labels > 0)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_type_and_layout_of_the_prediction_do_not_matter(dtype):
    prediction = noisy(drawn(), 0.1).astype("f2").astype("f4")
    expected = decode_hover(prediction)
    for layout in (prediction, np.asfortranarray(prediction)):
        given = layout.astype(dtype)
        given.flags.writeable = False
        np.testing.assert_array_equal(decode_hover(given), expected)


def test_the_number_of_threads_does_not_matter(monkeypatch):
    for name in ("MIN_COMPONENTS_PER_THREAD", "MIN_ROWS_PER_THREAD", "MIN_PAIRS_PER_THREAD"):
        monkeypatch.setattr(decode, name, 2)
    prediction, results = noisy(drawn("he", 3), 0.2), []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", threads)
        results.append(decode_hover(prediction))
    assert results[0].max() > 5
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
