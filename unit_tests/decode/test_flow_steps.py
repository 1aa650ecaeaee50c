"""The steps from cell logit and flow to instances, by hand."""

import numpy as np
import pytest

from cellbundle.decode import flows as decode
from cellbundle.decode.flows import FLOW_SCALE, drop_by_area, drop_inconsistent, group_by_sink
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
from cellbundle.metrics import image_scores
from cellbundle.targets.flows import labels_to_flows

from .flow_predictions import TWO


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
