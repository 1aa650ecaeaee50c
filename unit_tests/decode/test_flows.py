"""From cell logit and flow to instances: by hand, round trips, damaged input, and cellpose as an oracle."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cellbundle.decode import flows as decode
from cellbundle.decode.flows import FLOW_SCALE, decode_flows, drop_by_area, drop_inconsistent, group_by_sink
from cellbundle.kernels.diffusion import mean_flow_errors
from cellbundle.kernels.follow import (
    GROW_STEPS,
    SEED_COUNT,
    SQUARE,
    bounded_pull,
    find_seeds,
    follow,
    grow_sinks,
    list_cells,
)
from cellbundle.kernels.geometry import boxes_and_areas
from cellbundle.metrics import image_scores, match, overlap_table
from cellbundle.synthetic import generate
from cellbundle.targets.flows import labels_to_flows

KINDS = ["fluorescence", "phase", "he"]
LOGIT = 5.0  # of a sure cell


def perfect(labels, across_borders=True):
    """What a perfect network predicts: (3, H, W) float32."""
    flows = labels_to_flows(labels, across_borders=across_borders)
    return np.concatenate([np.where(labels > 0, LOGIT, -LOGIT)[None], FLOW_SCALE * flows]).astype(np.float32)


def noisy(labels, seed):
    prediction = perfect(labels)
    return prediction + np.random.default_rng(seed).normal(0, 0.8, prediction.shape).astype(np.float32)


def discs(shape, *cells):
    """Label map of discs (y, x, radius), numbered from 1."""
    labels = np.zeros(shape, np.int32)
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    for i, (y, x, radius) in enumerate(cells, 1):
        labels[(ys - y) ** 2 + (xs - x) ** 2 <= radius**2] = i
    return labels


def drawn(kind, seed, size=(128, 160)):
    return generate(kind, size, 22, diameter=20, touching=0.5, seed=seed)[1]


TWO = discs((40, 50), (12, 12, 7), (26, 36, 9))


# Steps of the decoder, by hand


def pull_of(flows, cells, scale):
    height, width = cells.shape
    pull = np.zeros((2, height + 2, width + 2), np.float32)
    bounded_pull(0, height, flows, cells, scale, pull)
    return pull


def ends_of(flows, points, n_steps, tolerance=0.0):
    ys, xs = np.array(points, np.int64).T
    ends = np.full((2, len(points)), -1, np.int32)
    pull = pull_of(flows.astype(np.float32), np.ones(flows.shape[1:], np.bool_), 1.0)
    follow(0, len(points), ys, xs, pull, n_steps, tolerance, ends)
    return ends.T.tolist()


@pytest.mark.parametrize(
    ("dy", "dx", "n_steps", "expected"),
    [
        (0, 0, 9, [10, 10]),
        (0, 1, 0, [10, 10]),
        (0, 1, 3, [10, 13]),
        (-1, 0, 4, [6, 10]),
        (0.5, -0.5, 5, [12, 7]),  # 12.5 and 7.5 are truncated
        (-1, -1, 100, [0, 0]),  # stops at the border
        (9e9, 0, 1, [20, 10]),
    ],
)
def test_follow_a_constant_flow(dy, dx, n_steps, expected):
    flows = np.stack([np.full((21, 23), dy), np.full((21, 23), dx)])
    assert ends_of(flows, [(10, 10)], n_steps) == [expected]


def test_pixels_that_hardly_move_in_eight_steps_have_arrived():
    flows = np.zeros((2, 21, 23))
    flows[1] = 0.5
    assert ends_of(flows, [(10, 10)], 16, tolerance=3.9) == [[10, 18]]
    assert ends_of(flows, [(10, 10)], 16, tolerance=4.1) == [[10, 14]]


def test_pixels_of_many_groups_move_on_their_own():
    flows = np.zeros((2, 50, 60))
    flows[0] = 1
    points = [(y, x) for y in range(5, 40, 7) for x in range(2, 58)]
    assert ends_of(flows, points, 5) == [[y + 5, x] for y, x in points]


def test_pull_is_bounded_and_zero_where_nothing_may_pull():
    flows = np.array([[[1, np.nan, 3e38], [4, 5, -np.inf]], [[1, 2, 3], [-2, np.nan, 6]]], np.float32)
    cells = np.array([[True, True, True], [True, True, False]])
    pull = pull_of(flows, cells, 2.0)
    assert pull.shape == (2, 4, 5)
    assert pull[:, 1:-1, 1:-1].tolist() == [[[0.5, 0, 5], [2, 0, 0]], [[0.5, 0, 1.5], [-1, 0, 0]]]
    assert pull[:, [0, -1]].sum() == 0
    assert pull[:, :, [0, -1]].sum() == 0


def test_follow_writes_only_its_chunk():
    ends = np.full((2, 5), -1, np.int32)
    points = np.arange(5, dtype=np.int64)
    follow(1, 3, points, points, np.zeros((2, 11, 11), np.float32), 1, 0.0, ends)
    assert ends.tolist() == [[-1, 1, 2, -1, -1]] * 2


def test_cells_are_listed_square_by_square():
    cells = np.zeros((2, SQUARE + 2), np.bool_)
    cells[:, [1, SQUARE - 1, SQUARE]] = True
    ys, xs = np.empty((2, 6), np.int64)
    list_cells(cells, ys, xs)
    assert ys.tolist() == [0, 0, 1, 1, 0, 1]
    assert xs.tolist() == [1, SQUARE - 1, 1, SQUARE - 1, SQUARE, SQUARE]


def counts_at(shape, **places):
    counts = np.zeros(shape, np.int32)
    for place, count in places.items():
        y, x = place[1:].split("_")
        counts[int(y), int(x)] = count
    return counts


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ({}, []),
        ({"p3_3": SEED_COUNT}, []),
        ({"p3_3": SEED_COUNT + 1}, [(3, 3, 11)]),
        ({"p0_0": 50, "p6_8": 20}, [(0, 0, 50), (6, 8, 20)]),
        ({"p3_3": 20, "p5_5": 30}, [(5, 5, 30)]),  # the smaller one is within two pixels
        ({"p3_3": 20, "p3_6": 30}, [(3, 3, 20), (3, 6, 30)]),
        ({"p3_3": 20, "p3_4": 20}, [(3, 3, 20), (3, 4, 20)]),  # equals are both seeds
    ],
)
def test_find_seeds_by_hand(places, expected):
    where, size = find_seeds(counts_at((7, 9), **places))
    assert [(w // 9, w % 9, s) for w, s in zip(where.tolist(), size.tolist(), strict=True)] == expected


def test_grow_sinks_by_hand():
    counts = np.zeros((5, 20), np.int32)
    counts[2] = 3
    counts[2, 4] = 2  # too few: growth stops here
    counts[1, 8] = counts[0, 0] = 3
    sinks = grow_sinks(counts, np.array([2 * 20 + 9]))
    assert sinks[2].tolist() == [0] * 5 + [1] * 10 + [0] * 5
    assert sinks[1].tolist() == [0] * 8 + [1] + [0] * 11
    assert sinks[[0, 3, 4]].sum() == 0


def test_sinks_at_borders_and_of_later_seeds():
    counts = np.full((8, 8), 3, np.int32)
    sinks = grow_sinks(counts, np.array([0, 63]))
    assert sinks[:2, :2].tolist() == [[1, 1], [1, 1]]
    assert (sinks[8 - 1 - GROW_STEPS :, 8 - 1 - GROW_STEPS :] == 2).all()  # the later seed wins
    assert grow_sinks(counts, np.zeros(0, np.int64)).max() == 0


@pytest.mark.parametrize(
    ("smallest", "largest", "expected"),
    [
        (0, np.inf, [1, 1, 1, 2, 2, 3, 0]),
        (2, np.inf, [1, 1, 1, 2, 2, 0, 0]),
        (3, np.inf, [1, 1, 1, 0, 0, 0, 0]),
        (0, 2, [0, 0, 0, 1, 1, 2, 0]),
        (2, 2, [0, 0, 0, 1, 1, 0, 0]),
        (9, np.inf, [0] * 7),
    ],
)
def test_drop_by_area_by_hand(smallest, largest, expected):
    result = drop_by_area(np.array([[1, 1, 1, 4, 4, 6, 0]], np.int32), smallest, largest)
    assert result.dtype == np.int32
    assert result.tolist() == [expected]


def test_mean_flow_errors_by_hand():
    labels = np.array([[1, 1, 3, 0]], np.int32)
    flows = np.zeros((2, 1, 4), np.float32)
    predicted = np.array([[[1, 0, 3, 9]], [[2, 0, 4, 9]]], np.float32)
    boxes, _ = boxes_and_areas(labels, 3)
    for scale in (1.0, 5.0):
        errors = np.zeros(3)
        mean_flow_errors(0, 3, labels, boxes, flows, scale * predicted, scale, errors)
        assert errors.tolist() == [2.5, 0, 25]


def test_drop_inconsistent_by_hand():
    flows = FLOW_SCALE * labels_to_flows(TWO)
    flows[:, TWO == 1] *= -1  # squared distance of opposite unit vectors: 4
    centre = flows[:, TWO == 1].any(0).mean()
    assert drop_inconsistent(TWO, flows, 4 * centre - 0.01, True).tolist() == (TWO == 2).astype(int).tolist()
    np.testing.assert_array_equal(drop_inconsistent(TWO, flows, 4.01, True), TWO)
    assert drop_inconsistent(np.zeros((2, 3), np.int32), np.zeros((2, 2, 3)), 0.4, True).tolist() == [[0] * 3] * 2


def test_group_by_sink_of_two_discs():
    labels = group_by_sink(FLOW_SCALE * labels_to_flows(TWO), TWO > 0)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(np.sort([labels[12, 12], labels[26, 36]]), [1, 2])
    assert image_scores(TWO, labels)["pq"] > 0.99


@pytest.mark.parametrize(("left", "right", "expected"), [(11, 15, "11222222"), (15, 11, "11111222")])
def test_where_two_sinks_meet_the_larger_one_wins(monkeypatch, left, right, expected):
    ends = np.repeat(
        np.arange(10, 19), [left, *[3] * 7, right]
    )  # seeds at 10 and 18, joined by a bridge; a sink reaches 5 far

    def place(kernel, n_items, *args, **options):
        if kernel is follow:
            args[-1][:] = np.stack([np.zeros(n_items), ends])

    monkeypatch.setattr(decode, "run_chunks", place)
    labels = group_by_sink(np.zeros((2, 1, ends.size), np.float32), np.ones((1, ends.size), bool))[0]
    by_end = {int(end): int(label) for end, label in zip(ends, labels, strict=True)}
    first, last = by_end[10], by_end[18]
    assert first != last
    assert "".join("1" if by_end[end] == first else "2" for end in range(11, 19)) == expected


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


@pytest.mark.parametrize(("min_size", "kept"), [(0, 3), (29, 3), (30, 2), (100, 1), (400, 0)])
def test_min_size(min_size, kept):
    labels = discs((50, 60), (10, 10, 3), (10, 30, 5), (32, 40, 10))
    assert np.bincount(labels.ravel())[1:].tolist() == [29, 81, 317]
    assert decode_flows(perfect(labels), min_size=min_size).max() == kept


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


# cellpose as an oracle


def agree(prediction):
    """Our cells against cellpose's."""
    dynamics = pytest.importorskip("cellpose.dynamics")
    theirs = dynamics.compute_masks(prediction[1:], prediction[0], niter=200, min_size=15)
    return image_scores(theirs.astype(np.int32), decode_flows(prediction, max_size_fraction=0.4))


@pytest.mark.filterwarnings("ignore:Sparse invariant")
def test_same_cells_as_cellpose():
    scores = [agree(noisy(drawn(kind, seed), seed)) for kind in KINDS for seed in (7, 8)]
    assert sum(score["n_true"] for score in scores) > 100
    assert min(score["ap50"] for score in scores) == 1
    assert np.mean([score["ap90"] for score in scores]) >= 0.999


@pytest.mark.filterwarnings("ignore:Sparse invariant")
def test_same_cells_as_cellpose_on_real_outlines():
    folder = Path(os.environ.get("CELLBUNDLE_TEST_DATA", ".")) / "dsb2018"
    if "CELLBUNDLE_TEST_DATA" not in os.environ or not folder.exists():
        pytest.skip("CELLBUNDLE_TEST_DATA has no dsb2018")
    entries = json.loads((folder / "dsb2018_datalist.json").read_text())["training"][:200:40]
    for seed, entry in enumerate(entries):
        labels = np.array(Image.open(folder / entry["label"])).astype(np.int32)[:256, :256]
        scores = agree(noisy(labels, seed))
        assert scores["n_true"] > 0
        assert scores["ap50"] == 1
        assert scores["ap90"] >= 0.999
