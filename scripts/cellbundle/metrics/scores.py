"""Scores of one image. AP here is TP / (TP + FP + FN), the accuracy form, at a named IoU threshold."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from .matching import Overlap, match, overlap_table

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""0.5, 0.55 .. 0.95, each the float nearest to the decimal: an IoU of exactly 3/5 reaches 0.6."""

Scores = dict[str, float]


def image_scores(
    true: npt.NDArray[Any], pred: npt.NDArray[Any], thresholds: Sequence[float] = IOU_THRESHOLDS
) -> Scores:
    """Compare a predicted with a true label map.

    Two empty maps score 1, an empty one against one with instances 0, in every ratio.

    Args:
        true: integer map of any shape, 0 background, other ids > 0 in any order and with any gaps.
        pred: the same for the prediction.
        thresholds: IoU thresholds, with 0.5 among them, multiples of 0.01 in (0, 1].

    Returns:
        Counts: ``n_true``, ``n_pred``, ``tp50``, ``fp50``, ``fn50`` and so on for each threshold in percent,
        ``iou_sum50`` (sum of the IoU of the matches). Ratios in [0, 1]: ``ap50`` and so on, ``ap_mean`` (over the
        thresholds), ``precision50``, ``recall50``, ``f150``, ``rq`` (the same as ``f150``), ``sq`` (mean IoU of the
        matches), ``pq`` = ``sq`` × ``rq``, ``aji`` (see ``aggregated_jaccard``), ``dice`` and ``iou`` of the
        foreground. A match needs IoU >= threshold, for PQ too (Kirillov et al. ask for > 0.5).

    Raises:
        ArrayError: if the shapes differ, a type is not integer, or an id is negative.
        ConfigError: if a threshold is not allowed.
    """
    if 0.5 not in thresholds or any(round(threshold, 2) != threshold for threshold in thresholds):
        raise ConfigError(f"IoU thresholds must be multiples of 0.01 with 0.5 among them, got {tuple(thresholds)}")
    overlap = overlap_table(true, pred)
    counts = _instance_counts(overlap, thresholds)
    return counts | instance_ratios(counts) | {"aji": aggregated_jaccard(overlap)} | _foreground_ratios(overlap)


def instance_ratios(counts: Mapping[str, float]) -> Scores:
    """Ratios of the counts of one image, or of the summed counts of many.

    Args:
        counts: the counts that ``image_scores`` names; ``tp<percent>`` says which thresholds there are.

    Returns:
        ``ap<percent>``, ``ap_mean``, ``precision50``, ``recall50``, ``f150``, ``pq``, ``sq``, ``rq``, in [0, 1].

    Source: PQ = SQ × RQ: Kirillov et al., Panoptic Segmentation, CVPR 2019, eq. 1; AP: Kaggle Data Science Bowl 2018.
    """
    n_true, n_pred, tp50 = counts["n_true"], counts["n_pred"], counts["tp50"]
    empty = float(n_true + n_pred == 0)
    ap = {
        f"ap{name[2:]}": _ratio(tp, n_true + n_pred - tp, empty) for name, tp in counts.items() if name.startswith("tp")
    }
    f1 = _ratio(2 * tp50, n_true + n_pred, empty)
    sq = _ratio(counts["iou_sum50"], tp50, empty)
    return ap | {
        "ap_mean": fmean(ap.values()),
        "precision50": _ratio(tp50, n_pred, empty),
        "recall50": _ratio(tp50, n_true, empty),
        "f150": f1,
        "pq": sq * f1,
        "sq": sq,
        "rq": f1,
    }


def aggregated_jaccard(overlap: Overlap) -> float:
    """Aggregated Jaccard index (AJI), the original greedy variant.

    Each true instance takes the predicted one with the best IoU (of equals, the one that shares more pixels); several
    may take the same one. The pixels of predictions that none took, and of true instances without overlap, are added
    to the union. It is not AJI+, where the pairs are one-to-one.

    Args:
        overlap: table of the two label maps.

    Returns:
        Sum of intersections over sum of unions, in [0, 1]; 1 if both maps are empty.

    Source: Kumar et al., IEEE TMI 2017, algorithm 1.
    """
    by_true = np.lexsort((overlap.intersection, overlap.iou, overlap.true_index))
    best = by_true[np.diff(overlap.true_index[by_true], append=-1) != 0]
    unused = np.ones(overlap.pred_ids.size, bool)
    unused[overlap.pred_index[best]] = False
    missed = np.ones(overlap.true_ids.size, bool)
    missed[overlap.true_index[best]] = False
    alone = overlap.pred_areas[unused].sum() + overlap.true_areas[missed].sum()
    return _ratio(overlap.intersection[best].sum(), overlap.union[best].sum() + alone, 1.0)


def _instance_counts(overlap: Overlap, thresholds: Sequence[float]) -> Scores:
    n_true, n_pred = overlap.true_ids.size, overlap.pred_ids.size
    counts: Scores = {"n_true": n_true, "n_pred": n_pred}
    for threshold in thresholds:
        percent, matches = round(100 * threshold), match(overlap, threshold)
        tp = len(matches)
        counts |= {f"tp{percent}": tp, f"fp{percent}": n_pred - tp, f"fn{percent}": n_true - tp}
        if threshold == 0.5:
            counts["iou_sum50"] = float(matches.iou.sum())
    return counts


def _foreground_ratios(overlap: Overlap) -> Scores:
    both = overlap.intersection.sum()
    total = overlap.true_areas.sum() + overlap.pred_areas.sum()
    return {"dice": _ratio(2 * both, total, 1.0), "iou": _ratio(both, total - both, 1.0)}


def _ratio(part: float, whole: float, empty: float) -> float:
    """``part / whole``, or ``empty`` where there is nothing to divide by."""
    return float(part / whole) if whole else empty
