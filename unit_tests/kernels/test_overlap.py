"""Compaction of ids and the table of shared pixels, against plain NumPy."""

import numpy as np
import pytest

from cellbundle.kernels.overlap import DENSE_IDS, compact_ids, count_overlaps


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        ([[0, 1, 1], [2, 0, 3]], np.uint8),
        ([[255, 255], [0, 7]], np.uint8),
        ([[65535, 0], [1, 1]], np.uint16),
        ([[DENSE_IDS + 1, 0], [1, DENSE_IDS + 1]], np.int32),
        ([[2**40, 2**40, 0], [3, 3, 2**40]], np.int64),
        ([[2**63 + 5, 0, 1]], np.uint64),
        ([[7, 7]], ">i4"),
        ([[2**31 - 1, 4]], np.int32),
        (np.zeros((0, 4)), np.int32),
    ],
)
def test_compact_ids_can_be_undone(labels, dtype):
    labels = np.array(labels, dtype=dtype)
    indices, ids = compact_ids(labels)
    assert indices.dtype == np.int32
    assert ids[0] == 0
    assert np.all(np.diff(ids.astype(object)) > 0)
    assert ids.size <= max(labels.size, DENSE_IDS) + 1
    np.testing.assert_array_equal(ids[indices], labels.ravel())


def test_compact_ids_of_a_cropped_view():
    labels = np.arange(24, dtype=np.int32).reshape(4, 6)[1:3, ::2]
    indices, ids = compact_ids(labels)
    np.testing.assert_array_equal(ids[indices], [6, 8, 10, 12, 14, 16])


def test_count_overlaps_by_hand():
    true = np.array([1, 1, 0, 2, 2, 1], np.int32)
    pred = np.array([3, 3, 3, 0, 1, 3], np.int32)
    true_areas, pred_areas, rows = count_overlaps(0, true.size, true, pred, 3, 4)
    assert true_areas.tolist() == [1, 3, 2]
    assert pred_areas.tolist() == [1, 1, 0, 4]
    assert rows.tolist() == [[1, 3, 3], [2, 1, 1]]


def test_count_overlaps_equals_a_dense_histogram():
    true, pred = np.random.default_rng(0).integers(0, [[40], [30]], (2, 5000), dtype=np.int32)
    dense = np.zeros((40, 30), np.int64)
    np.add.at(dense, (true, pred), 1)
    true_areas, pred_areas, rows = count_overlaps(0, true.size, true, pred, 40, 30)
    np.testing.assert_array_equal(true_areas, dense.sum(1))
    np.testing.assert_array_equal(pred_areas, dense.sum(0))
    sparse = np.zeros_like(dense)
    sparse[rows[:, 0], rows[:, 1]] = rows[:, 2]
    dense[0] = dense[:, 0] = 0
    np.testing.assert_array_equal(sparse, dense)


def test_count_overlaps_of_nothing():
    empty = np.zeros(0, np.int32)
    true_areas, pred_areas, rows = count_overlaps(0, 0, empty, empty, 1, 1)
    assert true_areas.tolist() == pred_areas.tolist() == [0]
    assert rows.shape == (0, 3)
