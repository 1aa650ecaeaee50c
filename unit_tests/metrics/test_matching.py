"""Overlap table and one-to-one matching."""

import itertools
from dataclasses import fields

import numpy as np
import pytest

from cellbundle.errors import ArrayError, CellBundleError, ConfigError
from cellbundle.metrics import Overlap, match, overlap_table


def random_maps(seed, n_true=9, n_pred=9, shape=(12, 14)):
    """Maps whose instances overlap in many ways (each pixel draws its id near that of its block)."""
    rng = np.random.default_rng(seed)
    blocks = np.arange(np.prod(shape)).reshape(shape) // (np.prod(shape) // max(n_true, n_pred))
    maps = [(blocks + rng.integers(0, 3, shape)) % (n + 1) for n in (n_true, n_pred)]
    return maps[0].astype(np.int32), maps[1].astype(np.int32)


def table(iou):
    """Overlap with about these IoU: areas 10**6, so that n shared pixels give n / (2e6 - n)."""
    iou = np.asarray(iou, float)
    shared = np.rint(2e6 * iou / (1 + iou)).astype(np.int64)
    rows, cols = np.nonzero(shared)
    areas = [np.full(n, 10**6) for n in iou.shape]
    ids = [np.arange(1, n + 1) for n in iou.shape]
    return Overlap(*ids, *areas, rows, cols, shared[rows, cols])


def best_by_force(iou, threshold):
    """(matches, IoU sum) of the best of all one-to-one assignments; for at most 5 x 5."""
    short = iou if iou.shape[0] <= iou.shape[1] else iou.T
    rows = np.arange(short.shape[0])
    best = (0, 0.0)
    for cols in itertools.permutations(range(short.shape[1]), short.shape[0]):
        values = short[rows, list(cols)]
        values = values[values >= threshold]
        best = max(best, (values.size, round(float(values.sum()), 9)))
    return best


def test_overlap_table_by_hand():
    true = np.array([[5, 5, 0], [5, 9, 9]])
    pred = np.array([[7, 0, 0], [7, 7, 2]], np.uint16)
    overlap = overlap_table(true, pred)
    assert overlap.true_ids.tolist() == [5, 9]
    assert overlap.pred_ids.tolist() == [2, 7]
    assert overlap.true_areas.tolist() == [3, 2]
    assert overlap.pred_areas.tolist() == [1, 3]
    pairs = zip(overlap.true_index.tolist(), overlap.pred_index.tolist(), overlap.intersection.tolist(), strict=True)
    assert list(pairs) == [(0, 1, 2), (1, 0, 1), (1, 1, 1)]
    assert overlap.iou.tolist() == [2 / 4, 1 / 2, 1 / 4]


def test_overlap_table_of_volumes_and_views():
    true = np.random.default_rng(1).integers(0, 5, (3, 8, 8))
    flipped = overlap_table(true[:, ::-1], true[:, ::-1])
    assert flipped.true_areas.tolist() == overlap_table(true, true).true_areas.tolist()
    assert np.all(match(flipped, 1.0).iou == 1)


@pytest.mark.parametrize(
    ("true", "pred", "message"),
    [
        (
            np.zeros((2, 3), int),
            np.zeros((3, 2), int),
            r"same shape.*true.*\(2, 3\).*pred.*\(3, 2\)",
        ),
        (np.zeros((2, 2), np.float32), np.zeros((2, 2), int), r"integer id.*true.*float32.*pred"),
        (np.zeros((2, 2), int), np.zeros((2, 2), bool), r"integer id.*pred.*bool"),
        (np.array([[0, -1]]), np.array([[0, 1]]), "negative.* -1, "),
        (np.array([[0, 1]]), np.array([[0, -(2**40)]]), "negative.* -1099511627776, "),
    ],
)
def test_bad_maps_are_refused(true, pred, message):
    with pytest.raises(ArrayError, match=message) as caught:
        overlap_table(true, pred)
    assert isinstance(caught.value, CellBundleError)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_bad_thresholds_are_refused(threshold):
    with pytest.raises(ConfigError, match=r"IoU.*\(0, 1\]"):
        match(table([[0.5]]), threshold)


def test_exactly_half_counts_at_half():
    overlap = overlap_table(np.array([[1, 1, 0]]), np.array([[1, 0, 0]]))
    assert overlap.iou.tolist() == [0.5]
    assert len(match(overlap, 0.5)) == 1
    assert len(match(overlap, 0.51)) == 0


def test_a_tie_at_half_is_one_match():
    halves = overlap_table(np.array([[1, 1, 0]]), np.array([[4, 8, 0]]))
    assert halves.iou.tolist() == [0.5, 0.5]
    assert len(match(halves, 0.5)) == 1
    swapped = overlap_table(np.array([[4, 8, 0]]), np.array([[1, 1, 0]]))
    assert len(match(swapped, 0.5)) == 1


@pytest.mark.parametrize(
    ("iou", "threshold", "expected"),
    [
        ([[0.4, 0.3], [0.35, 0.0]], 0.25, [(0, 1), (1, 0)]),  # two matches, though the best pair is given up
        ([[0.4, 0.3], [0.35, 0.0]], 0.35, [(0, 0)]),  # 0.3 is out, so the better of the two
        ([[0.45, 0.3], [0.3, 0.4]], 0.2, [(0, 0), (1, 1)]),  # as many either way: the larger sum
        ([[0.3, 0.4, 0.25]], 0.2, [(0, 1)]),
        ([[0.3], [0.4], [0.25]], 0.2, [(1, 0)]),
        ([[0.6, 0.3]], 0.51, [(0, 0)]),
        ([[0.2]], 0.3, []),
    ],
)
def test_match_by_hand(iou, threshold, expected):
    matches = match(table(iou), threshold)
    assert list(zip(matches.true_index.tolist(), matches.pred_index.tolist(), strict=True)) == expected


@pytest.mark.parametrize("seed", range(30))
def test_match_is_the_best_assignment(seed):
    rng = np.random.default_rng(seed)
    iou = rng.uniform(0, 0.5, rng.integers(1, 6, 2)) * (rng.random() < 0.8)
    overlap = table(iou)
    dense = np.zeros(iou.shape)
    dense[overlap.true_index, overlap.pred_index] = overlap.iou
    matches = match(overlap, 0.2)
    count, total = best_by_force(dense, 0.2)
    assert len(matches) == count
    assert matches.iou.sum() == pytest.approx(total, abs=1e-8)
    assert np.unique(matches.true_index).size == np.unique(matches.pred_index).size == count


@pytest.mark.parametrize("seed", range(10))
def test_counts_agree_with_stardist(seed):
    stardist = pytest.importorskip("stardist.matching")
    true, pred = random_maps(seed, n_true=9 + seed % 3)
    overlap = overlap_table(true, pred)
    for threshold in (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.6):
        assert len(match(overlap, threshold)) == stardist.matching(true, pred, thresh=threshold).tp


def test_the_number_of_threads_does_not_matter(monkeypatch):
    monkeypatch.setattr("cellbundle.metrics.matching.MIN_PIXELS_PER_THREAD", 100)
    rng = np.random.default_rng(0)
    true, pred = (rng.integers(0, 9, (60, 70)).repeat(3, 1) for _ in range(2))
    tables = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", threads)
        tables.append(overlap_table(true, pred))
    for field in fields(Overlap):
        expected = getattr(tables[0], field.name)
        np.testing.assert_array_equal(getattr(tables[1], field.name), expected)
        np.testing.assert_array_equal(getattr(tables[2], field.name), expected)


def test_twenty_thousand_instances_need_no_dense_matrix():
    side, cell = 142, 4  # 20,164 squares; a dense float64 matrix of all pairs would take 3.2 GB
    true = np.kron(np.arange(1, side**2 + 1, dtype=np.int32).reshape(side, side), np.ones((cell, cell), np.int32))
    pred = np.roll(true, 2, 1)  # touching squares: each true one shares half with two predictions, IoU 1/3
    overlap = overlap_table(true, pred)
    assert overlap.iou.size == 2 * side**2
    assert len(match(overlap, 0.3)) == side**2
