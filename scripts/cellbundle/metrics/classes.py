"""Scores by class: of the pixels of class maps, and of instances, which are matched first and compared then."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArrayError
from ..instances.labels import check_labels, renumber
from .matching import Overlap, match

IntArray = npt.NDArray[np.int64]
ClassScores = dict[str, float | None]

RATIOS = ("iou", "dice", "precision", "recall", "f1", "matched_precision", "matched_recall", "matched_f1")


def count_class_pixels(true: npt.NDArray[Any], pred: npt.NDArray[Any], n_classes: int) -> IntArray:
    """Count the pixels of every class.

    Args:
        true: (H, W) integers, 0 background, classes 1..K.
        pred: the same for the prediction.
        n_classes: K.

    Returns:
        (K, 3): pixels of the class in both maps, in the true one, in the predicted one; add them up to pool images.

    Raises:
        ArrayError: if the shapes differ, a map is not 2-D integer, or a class is not in 0..K.
    """
    if true.shape != pred.shape:
        raise ArrayError(f"class maps must have the same shape, got true {true.shape} and pred {pred.shape}")
    for classes, name in ((true, "true classes"), (pred, "predicted classes")):
        _check_classes(classes, n_classes, name)
    pixels = (true[true == pred], true.ravel(), pred.ravel())
    return np.stack([np.bincount(values, minlength=n_classes + 1)[1:] for values in pixels], axis=1)


def majority_classes(labels: npt.NDArray[Any], classes: npt.NDArray[Any], n_classes: int) -> IntArray:
    """Class of every instance: the one that most of its pixels have, background left out.

    Args:
        labels: (H, W) non-negative integers, 0 background, any ids.
        classes: (H, W) integers, 0 background, classes 1..K.
        n_classes: K.

    Returns:
        (N,) in the order of the ids, in 1..K; of equals the lowest; 0 for an instance none of whose pixels has a class.

    Raises:
        ArrayError: if the shapes differ, a map is not 2-D integer, or a class is not in 0..K.
    """
    check_labels(labels)
    _check_classes(classes, n_classes, "classes")
    if labels.shape != classes.shape:
        raise ArrayError(f"labels and classes must have the same shape, got {labels.shape} and {classes.shape}")
    numbered, n = renumber(labels)
    pairs = numbered.astype(np.int64) * (n_classes + 1) + classes
    votes = np.bincount(pairs.ravel(), minlength=(n + 1) * (n_classes + 1)).reshape(n + 1, n_classes + 1)[1:, 1:]
    if not votes.size:
        return np.zeros(n, np.int64)
    return np.where(votes.any(axis=1), votes.argmax(axis=1) + 1, 0)


def class_confusion(
    overlap: Overlap, true_classes: npt.NDArray[Any], pred_classes: npt.NDArray[Any], n_classes: int
) -> IntArray:
    """Count instances by their true and predicted class.

    Instances are matched at IoU >= 0.5 whatever their class is, as in ``image_scores``.

    Args:
        overlap: table of the two label maps.
        true_classes: (N,) class of each true instance, in the order of the ids, 0..K; 0 has no class.
        pred_classes: (M,) the same for the predicted ones.
        n_classes: K.

    Returns:
        (K + 1, K + 1): rows are true classes, columns predicted ones. Column 0 holds true instances that nothing
        matches or whose match has no class, row 0 the same of predicted ones. Add them up to pool images.

    Raises:
        ArrayError: if the number of classes is not that of the instances, or a class is not in 0..K.
    """
    for classes, ids, name in (
        (true_classes, overlap.true_ids, "true classes"),
        (pred_classes, overlap.pred_ids, "predicted classes"),
    ):
        if classes.shape != ids.shape:
            raise ArrayError(f"{name} must be one for each of {len(ids)} instances, got shape {classes.shape}")
        _check_range(classes, n_classes, name)
    matches = match(overlap, 0.5)
    true_of, pred_of = true_classes[matches.true_index], pred_classes[matches.pred_index]
    lost = np.delete(true_classes, matches.true_index)
    extra = np.delete(pred_classes, matches.pred_index)
    rows = np.concatenate([true_of, lost, np.zeros_like(extra)])
    columns = np.concatenate([pred_of, np.zeros_like(lost), extra])
    confusion = np.zeros((n_classes + 1, n_classes + 1), np.int64)
    np.add.at(confusion, (rows, columns), 1)
    confusion[0, 0] = 0
    return confusion


def class_scores(pixels: IntArray, confusion: IntArray) -> list[ClassScores]:
    """Scores of every class, of one image or of the summed counts of many.

    Args:
        pixels: (K, 3) of ``count_class_pixels``.
        confusion: (K + 1, K + 1) of ``class_confusion``.

    Returns:
        K dictionaries. Ratios in [0, 1], None where a class is in neither of the two maps: ``iou`` and ``dice`` of
        pixels; ``precision``, ``recall`` and ``f1`` of instances, where a match of another class is wrong on both
        sides and so is what has no match; ``matched_precision``, ``matched_recall`` and ``matched_f1`` of matched
        pairs alone, which tell how well those that are found are classified. Counts: ``n_true``, ``n_pred``, ``tp``.
    """
    matched = confusion.copy()
    matched[0] = matched[:, 0] = 0
    scores: list[ClassScores] = []
    for number, (both, in_true, in_pred) in enumerate(pixels.tolist(), start=1):
        found, found_matched = (
            (int(table[number, number]), int(table[number].sum()), int(table[:, number].sum()))
            for table in (confusion, matched)
        )
        precision, recall, f1 = _ratios(*found)
        tp, n_true, n_pred = found
        matched_precision, matched_recall, matched_f1 = _ratios(*found_matched)
        total = in_true + in_pred
        scores.append(
            {
                "iou": both / (total - both) if total else None,
                "dice": 2 * both / total if total else None,
                "n_true": n_true,
                "n_pred": n_pred,
                "tp": tp,
                "precision": precision,
                "recall": recall,
                "f1": f1,
                "matched_precision": matched_precision,
                "matched_recall": matched_recall,
                "matched_f1": matched_f1,
            }
        )
    return scores


def mean_known(rows: Sequence[Mapping[str, float | None]], names: Iterable[str]) -> ClassScores:
    """Mean of each score over the rows that have it; None where none has."""
    means: ClassScores = {}
    for name in names:
        values = [value for row in rows if (value := row[name]) is not None]
        means[name] = fmean(values) if values else None
    return means


def _ratios(tp: int, n_true: int, n_pred: int) -> tuple[float | None, float | None, float | None]:
    """Precision, recall and F1; without a prediction or without a true instance 0, without both None."""
    if not n_true + n_pred:
        return None, None, None
    return tp / n_pred if n_pred else 0.0, tp / n_true if n_true else 0.0, 2 * tp / (n_true + n_pred)


def _check_classes(classes: npt.NDArray[Any], n_classes: int, name: str) -> None:
    check_labels(classes, name)
    _check_range(classes, n_classes, name)


def _check_range(classes: npt.NDArray[Any], n_classes: int, name: str) -> None:
    low, high = int(classes.min(initial=0)), int(classes.max(initial=0))
    if low < 0 or high > n_classes:
        raise ArrayError(f"{name} must be in 0..{n_classes}, got {low}..{high}; check the class names and the labels")
