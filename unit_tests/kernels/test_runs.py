"""Run lengths by hand and undone, and their compressed form against pycocotools."""

import numpy as np
import pytest

from cellbundle.kernels.runs import coco_counts, label_runs


def test_runs_by_hand():
    offsets, starts, lengths = label_runs(np.array([1, 1, 0, 2, 1, 2, 2], np.int32), 3)
    assert offsets.tolist() == [0, 2, 4, 4]
    assert starts.tolist() == [0, 4, 3, 5]
    assert lengths.tolist() == [2, 1, 1, 2]


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
@pytest.mark.parametrize("highest", [0, 1, 7, 300])
def test_runs_can_be_undone(size, highest):
    flat = np.random.default_rng(size).integers(0, highest + 1, size).astype(np.int32)
    offsets, starts, lengths = label_runs(flat, highest)
    undone = np.zeros_like(flat)
    for label in range(1, highest + 1):
        for start, length in zip(
            starts[offsets[label - 1] : offsets[label]], lengths[offsets[label - 1] : offsets[label]], strict=True
        ):
            undone[start : start + length] = label
    np.testing.assert_array_equal(undone, flat)
    assert offsets[-1] == len(starts) == np.sum((flat > 0) & (flat != np.append(0, flat[:-1])))


@pytest.mark.parametrize(
    "labels",
    [
        np.ones((1, 1), int),
        np.array([[1, 0], [0, 0]]),
        np.array([[0, 0], [0, 1]]),
        np.array([[2, 1], [1, 2]]),
        np.repeat(np.arange(6), 1000)[:, None],
        np.random.default_rng(0).integers(0, 4, (40, 70)),
        np.random.default_rng(1).integers(0, 4, (9, 5)).repeat(200, axis=0).repeat(40, axis=1),
    ],
)
def test_compressed_counts_are_those_of_pycocotools(labels):
    mask = pytest.importorskip("pycocotools.mask")
    n = int(labels.max())
    text, ends = coco_counts(*label_runs(labels.ravel(order="F").astype(np.int32), n), labels.size)
    for label in range(1, n + 1):
        expected = mask.encode(np.asfortranarray(labels == label, np.uint8))["counts"]
        assert text[ends[label - 1] : ends[label]].tobytes() == expected
