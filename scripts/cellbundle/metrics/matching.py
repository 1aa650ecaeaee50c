"""One-to-one matching of predicted to true instances by intersection over union (IoU)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from ..errors import ArrayError, ConfigError
from ..kernels.overlap import compact_ids, count_overlaps
from ..kernels.parallel import run_chunks

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

MIN_PIXELS_PER_THREAD = 1 << 18


@dataclass(frozen=True, eq=False)
class Overlap:
    """Areas of N true and M predicted instances, and the K pairs that share at least one pixel.

    Attributes:
        true_ids: (N,) ascending ids of the true instances, in the type of the label map.
        pred_ids: (M,) ascending ids of the predicted instances.
        true_areas: (N,) pixels, > 0.
        pred_areas: (M,) pixels, > 0.
        true_index: (K,) position in ``true_ids``, ascending.
        pred_index: (K,) position in ``pred_ids``, ascending within one true instance.
        intersection: (K,) shared pixels, > 0.
    """

    true_ids: npt.NDArray[Any]
    pred_ids: npt.NDArray[Any]
    true_areas: IntArray
    pred_areas: IntArray
    true_index: IntArray
    pred_index: IntArray
    intersection: IntArray

    @property
    def union(self) -> IntArray:
        """(K,) pixels in either instance of each pair."""
        return self.true_areas[self.true_index] + self.pred_areas[self.pred_index] - self.intersection

    @property
    def iou(self) -> FloatArray:
        """(K,) intersection over union of each pair, in (0, 1]."""
        return self.intersection / self.union


@dataclass(frozen=True, eq=False)
class Matches:
    """The T matched pairs.

    Attributes:
        true_index: (T,) positions in ``Overlap.true_ids``, each at most once.
        pred_index: (T,) positions in ``Overlap.pred_ids``, each at most once.
        iou: (T,) in [threshold, 1].
    """

    true_index: IntArray
    pred_index: IntArray
    iou: FloatArray

    def __len__(self) -> int:
        return self.iou.size


def overlap_table(true: npt.NDArray[Any], pred: npt.NDArray[Any]) -> Overlap:
    """Measure all instances of two label maps and all pairs that overlap.

    Args:
        true: integer map of any shape, 0 background, other ids > 0 in any order and with any gaps.
        pred: the same for the prediction; the ids of the two maps are unrelated.

    Returns:
        The sparse table; memory grows with instances and pairs, not with their product.

    Raises:
        ArrayError: if the shapes differ, a type is not integer, or an id is negative.
    """
    true, pred = np.asarray(true), np.asarray(pred)
    _check_maps(true, pred)
    (true, true_ids), (pred, pred_ids) = compact_ids(true), compact_ids(pred)
    parts = run_chunks(
        count_overlaps, true.size, true, pred, true_ids.size, pred_ids.size, min_chunk=MIN_PIXELS_PER_THREAD
    )
    true_areas, pred_areas = (np.sum([part[k] for part in parts], axis=0) for k in range(2))
    true_present, pred_present = _foreground(true_areas), _foreground(pred_areas)
    rows = _add_up(np.concatenate([part[2] for part in parts]))
    return Overlap(
        true_ids=true_ids[true_present],
        pred_ids=pred_ids[pred_present],
        true_areas=true_areas[true_present],
        pred_areas=pred_areas[pred_present],
        true_index=np.searchsorted(true_present, rows[:, 0]),
        pred_index=np.searchsorted(pred_present, rows[:, 1]),
        intersection=rows[:, 2],
    )


def match(overlap: Overlap, threshold: float) -> Matches:
    """Match each instance at most once, among the pairs with IoU >= ``threshold``.

    Above 0.5 no instance has two such pairs, so nothing is left to choose. At 0.5 and below, the number of matches
    is made as large as possible, and then the sum of their IoU.

    Args:
        overlap: table of the two label maps.
        threshold: smallest IoU of a match, in (0, 1].

    Returns:
        The matched pairs, ordered by true index.

    Raises:
        ConfigError: if ``threshold`` is outside (0, 1].

    Source: uniqueness above 0.5: Kirillov et al., Panoptic Segmentation, CVPR 2019, section 4.1; the optimal
    assignment gives the same counts as ``stardist.matching.matching`` (BSD-3).
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"IoU threshold must be in (0, 1], got {threshold}")
    iou = overlap.iou
    pairs = np.flatnonzero(iou >= threshold)
    if threshold <= 0.5:
        pairs = pairs[_assign(overlap.true_index[pairs], overlap.pred_index[pairs], iou[pairs])]
    return Matches(overlap.true_index[pairs], overlap.pred_index[pairs], iou[pairs])


def _check_maps(true: npt.NDArray[Any], pred: npt.NDArray[Any]) -> None:
    got = f"got true of shape {true.shape} dtype {true.dtype} and pred of shape {pred.shape} dtype {pred.dtype}"
    if true.shape != pred.shape:
        raise ArrayError(f"label maps must have the same shape, {got}; resize labels with nearest neighbour only")
    if not (np.issubdtype(true.dtype, np.integer) and np.issubdtype(pred.dtype, np.integer)):
        raise ArrayError(f"label maps must hold an integer id per instance, {got}; label binary masks first")
    smallest = min(int(true.min(initial=0)), int(pred.min(initial=0)))
    if smallest < 0:
        raise ArrayError(f"ids must not be negative, found {smallest}, {got}; set pixels to ignore to 0")


def _add_up(rows: IntArray) -> IntArray:
    """Rows ``true, pred, pixels`` in order, those of one pair added up: (K, 3) to (L, 3)."""
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    first = np.ones(len(rows), bool)
    first[1:] = (rows[1:, :2] != rows[:-1, :2]).any(1)
    pixels = np.add.reduceat(rows[:, 2], np.flatnonzero(first)) if len(rows) else rows[:, 2]
    return np.column_stack([rows[first, :2], pixels])


def _foreground(areas: IntArray) -> IntArray:
    """Ascending indices > 0 that have pixels."""
    return np.flatnonzero(areas[1:]) + 1


def _assign(true_index: IntArray, pred_index: IntArray, iou: FloatArray) -> IntArray:
    """Ascending positions of a largest one-to-one subset of K pairs, with the largest IoU sum among those."""
    true_pairs, pred_pairs = np.bincount(true_index), np.bincount(pred_index)
    rivals = np.flatnonzero((true_pairs[true_index] > 1) | (pred_pairs[pred_index] > 1))
    settled = np.setdiff1d(np.arange(iou.size), rivals, assume_unique=True)
    if rivals.size == 0:
        return settled
    chosen = _assign_rivals(true_index[rivals], pred_index[rivals], iou[rivals])
    return np.sort(np.concatenate([settled, rivals[chosen]]))


def _assign_rivals(true_index: IntArray, pred_index: IntArray, iou: FloatArray) -> IntArray:
    """``_assign`` for pairs that share an instance with another pair: few, so that the solver's growth is harmless."""
    true_kept, rows = np.unique(true_index, return_inverse=True)
    pred_kept, cols = np.unique(pred_index, return_inverse=True)
    n_rows, n_cols = true_kept.size, pred_kept.size
    # SciPy wants every row matched, so each gets a column of its own that means "unmatched". That costs more than
    # all pairs can save together: pairs cost 1 to 2, and never 0, which a sparse matrix would drop.
    unmatched = np.arange(n_rows)
    costs = np.concatenate([2 - iou, np.full(n_rows, 2.0 * (n_rows + 1))])
    where = np.concatenate([rows, unmatched]), np.concatenate([cols, n_cols + unmatched])
    matched_rows, matched_cols = min_weight_full_bipartite_matching(coo_array((costs, where)).tocsr())
    chosen = np.full(n_rows, -1)
    chosen[matched_rows] = matched_cols
    return np.flatnonzero(chosen[rows] == cols)
