"""From cell logit and flow to instances: round trips, options, holes, damaged input."""

import numpy as np
import pytest

from cellbundle.decode.flows import FLOW_SCALE, decode_flows, drop_inconsistent, mean_probability
from cellbundle.kernels.follow import SEED_COUNT
from cellbundle.metrics import image_scores, match, overlap_table
from cellbundle.synthetic import KINDS
from cellbundle.targets.flows import labels_to_flows

from .flow_predictions import LOGIT, TWO, discs, drawn, noisy, perfect

# Round trips


@pytest.mark.parametrize("across_borders", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind, across_borders):
    for seed in (0, 1):
        labels = drawn(kind, seed)
        found = decode_flows(perfect(labels, across_borders), across_borders=across_borders)
        scores = image_scores(labels, found)
        iou = match(overlap_table(labels, found), 0.5).iou
        assert scores["ap50"] == 1
        assert iou.mean() > 0.96
        assert iou.min() > 0.75
        assert found.dtype == np.int32
        assert found.flags.c_contiguous
        assert np.unique(found).tolist() == list(range(labels.max() + 1))
        assert not (found[labels == 0]).any()


@pytest.mark.parametrize("flow_threshold", [0.4, None])
@pytest.mark.parametrize("damage", ["swapped axes", "upside down", "outwards"])
def test_a_wrong_flow_does_not_survive_the_round_trip(damage, flow_threshold):
    labels = drawn("phase", 0)
    prediction = perfect(labels)
    if damage == "swapped axes":
        prediction = prediction[[0, 2, 1]]
    elif damage == "upside down":
        prediction[1] *= -1
    else:
        prediction[1:] *= -1
    assert image_scores(labels, decode_flows(prediction, flow_threshold=flow_threshold))["ap50"] < 0.3


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (1, 40), (40, 1), (2, 30), (30, 2), (0, 5), (5, 0), (0, 0)])
def test_tiny_images(shape):
    empty = decode_flows(np.zeros((3, *shape), np.float32))
    assert empty.shape == shape
    assert empty.dtype == np.int32
    assert not empty.any()
    labels = np.ones(shape, np.int32)
    found = decode_flows(perfect(labels), min_size=0)
    assert found.shape == shape
    if labels.size > 12:
        assert found.max() == 1
        assert (found > 0).mean() > 0.95
    elif labels.size <= SEED_COUNT:
        assert not found.any()


def test_two_cells_in_an_image_of_one_row():
    labels = np.zeros((1, 60), np.int32)
    labels[:, 2:24], labels[:, 24:50] = 1, 2
    for rule in (True, False):
        np.testing.assert_array_equal(decode_flows(perfect(labels, rule), across_borders=rule), labels)
        np.testing.assert_array_equal(decode_flows(perfect(labels.T, rule), across_borders=rule), labels.T)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_type_and_layout_of_the_prediction_do_not_matter(dtype):
    prediction = perfect(drawn("he", 2))
    expected = decode_flows(prediction)
    layouts = [prediction, np.asfortranarray(prediction), prediction.transpose(1, 2, 0).copy().transpose(2, 0, 1)]
    for layout in layouts:
        given = layout.astype(dtype)
        before = given.copy()
        found = decode_flows(given)
        assert image_scores(expected, found)["pq"] > (0.99 if dtype == "f2" else 0.99999)
        np.testing.assert_array_equal(given, before)


def test_the_number_of_threads_does_not_matter(monkeypatch):
    prediction = noisy(drawn("phase", 3, (160, 200)), 0)
    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", threads)
        results.append(decode_flows(prediction))
    assert results[0].max() > 10
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


# Options


def test_cell_threshold():
    prediction = perfect(TWO)
    prediction[0][TWO == 1] = 1.5
    np.testing.assert_array_equal(decode_flows(prediction, cell_threshold=1.4) > 0, decode_flows(prediction) > 0)
    np.testing.assert_array_equal(decode_flows(prediction, cell_threshold=1.5), TWO == 2)  # above, not equal
    assert decode_flows(prediction, cell_threshold=LOGIT).max() == 0


@pytest.mark.parametrize(("flow_threshold", "kept"), [(0.4, 1), (0.63, 1), (0.65, 2), (None, 2), (0.0, 0)])
def test_flow_threshold(flow_threshold, kept):
    prediction = perfect(TWO)
    prediction[1:, TWO == 1] *= 0.2  # leads to the same place, but the squared error is 0.8² = 0.64
    found = decode_flows(prediction, flow_threshold=flow_threshold)
    if kept == 1:
        np.testing.assert_array_equal(found > 0, TWO == 2)
    assert found.max() == kept


def test_the_flow_check_needs_the_rule_of_the_targets():
    labels = np.zeros((30, 60), np.int32)
    labels[2:28, 2:30], labels[13:16, 30:56] = 1, 2  # where they touch, the wide cell warms the end of the narrow one
    for rule in (True, False):
        flows = labels_to_flows(labels, across_borders=rule)
        predicted = FLOW_SCALE * flows
        assert drop_inconsistent(labels, predicted, 1e-6, rule).max() == 2
        np.testing.assert_array_equal(drop_inconsistent(labels, predicted, 1e-6, not rule), labels == 1)


@pytest.mark.parametrize(("min_score", "kept"), [(0.0, 2), (0.6, 2), (0.7, 1), (0.99, 0)])
def test_min_score(min_score, kept):
    """One cell has a probability of 0.98 everywhere, the other of 0.88 in one half and 0.50 in the other: 0.69."""
    prediction = perfect(TWO)
    prediction[0, TWO == 1] = np.log(0.98 / 0.02)
    second = np.argwhere(TWO == 2)
    for half, logit in zip(np.array_split(second, 2), (2.0, 0.01), strict=True):
        prediction[0, half[:, 0], half[:, 1]] = logit
    found = decode_flows(prediction, min_score=min_score)
    assert found.max() == kept
    if kept:
        expected = TWO > 0 if kept == 2 else TWO == 1
        np.testing.assert_array_equal(found > 0, expected)
        assert mean_probability(found, prediction[0]).min() >= min_score


@pytest.mark.parametrize(("min_size", "kept"), [(0, 3), (29, 3), (30, 2), (100, 1), (400, 0)])
def test_min_size(min_size, kept):
    labels = discs((50, 60), (10, 10, 3), (10, 30, 5), (32, 40, 10))
    assert np.bincount(labels.ravel())[1:].tolist() == [29, 81, 317]
    assert decode_flows(perfect(labels), min_size=min_size).max() == kept


@pytest.mark.parametrize(("min_share", "kept"), [(None, 0), (0.3, 3), (0.9, 2), (1.2, 1), (5.0, 0)])
def test_min_size_is_a_share_of_the_cells_where_they_are_small(min_share, kept):
    labels = discs((50, 60), (10, 10, 3), (10, 30, 5), (32, 40, 10))  # 29, 81 and 317 pixels
    assert decode_flows(perfect(labels), min_size=400, min_share=min_share).max() == kept
    assert decode_flows(perfect(labels), min_size=20, min_share=5.0).max() == 3  # never more than min_size


def test_min_size_counts_before_holes_are_filled():
    labels = discs((40, 50), (12, 12, 4), (26, 36, 9))
    prediction = perfect(labels)
    prediction[0, 10, 12] = -LOGIT
    area = int((labels == 1).sum())
    assert decode_flows(prediction, min_size=area - 1)[10, 12] > 0
    assert not decode_flows(prediction, min_size=area)[labels == 1].any()


@pytest.mark.parametrize(("fraction", "kept"), [(1.0, 2), (0.2, 2), (0.1, 1), (0.05, 0)])
def test_max_size_fraction(fraction, kept):
    share = np.bincount(TWO.ravel())[1:] / TWO.size
    assert share.round(3).tolist() == [0.074, 0.126]
    found = decode_flows(perfect(TWO), max_size_fraction=fraction)
    assert found.max() == kept
    if kept == 1:
        np.testing.assert_array_equal(found > 0, TWO == 1)


def test_a_cell_may_fill_the_image():
    labels = np.ones((40, 44), np.int32)
    assert (decode_flows(perfect(labels)) == 1).mean() > 0.99
    assert not decode_flows(perfect(labels), max_size_fraction=0.4).any()


def test_stopping_early_gives_the_same_cells():
    labels = drawn("fluorescence", 5)
    prediction = perfect(labels, across_borders=False)
    expected = decode_flows(prediction, across_borders=False)
    assert image_scores(expected, decode_flows(prediction, across_borders=False, tolerance=1e-3))["ap_mean"] == 1


def test_too_few_steps_find_no_large_cell():
    labels = discs((90, 90), (45, 45, 40))
    assert decode_flows(perfect(labels), n_steps=200, flow_threshold=None).max() == 1
    assert image_scores(labels, decode_flows(perfect(labels), n_steps=5))["tp50"] == 0


# Holes


def test_holes_are_filled():
    labels = discs((40, 40), (20, 20, 12))
    prediction = perfect(labels)
    prediction[0, 12, 20] = prediction[0, 25:27, 24] = -LOGIT
    found = decode_flows(prediction)
    assert found[12, 20] == found[25, 24] == found[26, 24] == 1
    assert image_scores(labels, found)["pq"] > 0.98


def test_a_cell_in_a_hole_of_another_stays():
    labels = discs((60, 60), (30, 30, 25), (30, 30, 18), (30, 30, 12))
    labels[labels == 2] = 0
    assert np.unique(labels).tolist() == [0, 1, 3]
    found = decode_flows(perfect(labels), flow_threshold=None)
    assert found.max() == 2
    ring, inner = found[30, 8], found[30, 30]
    assert ring != inner
    np.testing.assert_array_equal(found == inner, labels == 3)
    assert (found[discs((60, 60), (30, 30, 24)) > 0] > 0).all()  # the gap has become the ring's


# Input that is empty or damaged


@pytest.mark.parametrize("logit", [-LOGIT, 0.0, -np.inf, np.nan])
def test_background_only(logit):
    prediction = np.ones((3, 20, 30), np.float32)
    prediction[0] = logit
    found = decode_flows(prediction)
    assert found.shape == (20, 30)
    assert found.dtype == np.int32
    assert not found.any()


@pytest.mark.parametrize("logit", [LOGIT, np.inf])
def test_foreground_without_flow_has_no_seeds(logit):
    prediction = np.zeros((3, 20, 30), np.float32)
    prediction[0] = logit
    assert not decode_flows(prediction, flow_threshold=None, min_size=0).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("channels", [[1], [2], [1, 2]])
@pytest.mark.filterwarnings("error")
def test_a_bad_flow_pixel_harms_at_most_its_cell(channels, bad):
    prediction = perfect(TWO)
    expected = decode_flows(prediction)
    elsewhere = expected != expected[12, 12]
    prediction[channels, 10, 14] = bad
    np.testing.assert_array_equal(decode_flows(prediction)[elsewhere] > 0, expected[elsewhere] > 0)
    if not np.isfinite(bad):  # stands still, so the rest of the cell still finds its centre
        assert image_scores(TWO, decode_flows(prediction, flow_threshold=None))["ap50"] == 1


@pytest.mark.filterwarnings("error")
def test_nan_logits_are_background():
    prediction = perfect(TWO)
    prediction[0, 10, 14] = prediction[0, 0, 0] = np.nan
    prediction[0, 26, 36] = np.inf
    scores = image_scores(TWO, decode_flows(prediction))
    assert scores["ap90"] == 1
    assert not decode_flows(np.full((3, 20, 20), np.nan, np.float32)).any()
    prediction[1:] = np.nan
    assert not decode_flows(prediction).any()
