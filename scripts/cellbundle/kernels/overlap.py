"""Shared pixels of two label maps: one compiled pass, a sparse table, no dense N×M matrix."""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.typed import Dict

from .compile import kernel

DENSE_IDS = 1 << 16
"""A table with this many entries is cheap for any image, so ids below it are used as they are."""
SPAN = 1024  # pixels that are looked at together; a multiple of 8


def compact_ids(labels: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int32], npt.NDArray[Any]]:
    """Replace ids by indices that are small enough to address a table.

    Moderate ids (at most the number of pixels) stay as they are; only huge ones are looked up.

    Args:
        labels: integer map of any shape, P pixels, ids >= 0 in any order and with any gaps.

    Returns:
        The (P,) indices and the (K,) ascending ids with ``ids[indices] == labels.ravel()`` and ``ids[0] == 0``.
        K is at most max(P, ``DENSE_IDS``) + 1; some of the ids may have no pixel.
    """
    flat = labels.ravel()
    largest = int(flat.max(initial=0))
    if largest <= min(max(flat.size, DENSE_IDS), np.iinfo(np.int32).max):
        return flat.astype(np.int32, copy=False), np.arange(largest + 1).astype(labels.dtype)
    # Neighbours mostly share an id: sorting one value a run is much cheaper than sorting all pixels.
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    background = np.zeros(1, flat.dtype)
    ids, indices = np.unique(np.concatenate([background, flat[starts]]), return_inverse=True)
    lengths = np.diff(starts, append=flat.size)
    return np.repeat(indices[1:].astype(np.int32), lengths), ids


@kernel
def count_overlaps(
    begin: int, stop: int, true: npt.NDArray[np.int32], pred: npt.NDArray[np.int32], n_true: int, n_pred: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count the pixels of every instance and of every pair that shares some, in pixels ``begin..stop``.

    Args:
        begin: first pixel.
        stop: pixel after the last.
        true: (P,) map, values 0..n_true-1, 0 is background. Not checked: a larger value writes out of bounds.
        pred: (P,) map, values 0..n_pred-1, 0 is background.
        n_true: length of the table of true areas.
        n_pred: length of the table of predicted areas.

    Returns:
        (n_true,) and (n_pred,) int64 areas, background included, and (K, 3) int64 rows ``true, pred, pixels`` in
        order of first appearance, without background.
    """
    true_areas = np.zeros(n_true, np.int64)
    pred_areas = np.zeros(n_pred, np.int64)
    shared = Dict.empty(types.int64, types.int64)
    marks = np.zeros(SPAN, np.uint8)
    eights = marks.view(np.uint64)
    start = begin
    # The hash table is touched once a run of pixels of one pair, not once a pixel. Where runs end is found by vector
    # instructions, and eight marks are looked at together.
    for first in range(begin + 1, stop, SPAN):
        n = min(SPAN, stop - first)
        true_before, true_here = true[first - 1 : first - 1 + n], true[first : first + n]
        pred_before, pred_here = pred[first - 1 : first - 1 + n], pred[first : first + n]
        for k in range(n):
            marks[k] = (true_before[k] != true_here[k]) | (pred_before[k] != pred_here[k])
        for k in range(n, SPAN):
            marks[k] = 0
        for i in range(SPAN // 8):
            if eights[i] != 0:
                for k in range(8 * i, 8 * i + 8):
                    if marks[k]:
                        _add_run(true[start], pred[start], first + k - start, true_areas, pred_areas, shared)
                        start = first + k
    if start < stop:
        _add_run(true[start], pred[start], stop - start, true_areas, pred_areas, shared)

    rows = np.empty((len(shared), 3), np.int64)
    for k, (key, pixels) in enumerate(shared.items()):
        rows[k, 0], rows[k, 1], rows[k, 2] = key // n_pred, key % n_pred, pixels
    return true_areas, pred_areas, rows


@kernel
def _add_run(i: int, j: int, run: int, true_areas: np.ndarray, pred_areas: np.ndarray, shared: Any) -> None:
    """Count ``run`` pixels of the pair i, j."""
    true_areas[i] += run
    pred_areas[j] += run
    if i > 0 and j > 0:
        key = np.int64(i) * pred_areas.size + j
        shared[key] = shared.get(key, 0) + run
