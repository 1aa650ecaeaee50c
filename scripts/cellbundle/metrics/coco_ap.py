"""Average precision as COCO defines it, by pycocotools: the area under the curve of precision over recall.

It orders detections by their scores and is not the ``ap50`` of ``image_scores``, which is TP / (TP + FP + FN).
"""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..errors import ArrayError
from ..instances.labels import check_labels, renumber
from ..instances.overlaps import labels_to_rles
from ..instances.rle import coco_rle
from .scores import IOU_THRESHOLDS

CATEGORY = 1
EVERY_AREA = (0.0, 1e10)  # px², COCO's own limits; its small, medium and large are made for photographs
COCO_NAMES = ("coco_ap", "coco_ap50", "coco_ap75", "coco_ar")
LIMITS = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)  # as in COCOeval
DETECTIONS_AT_ONCE = 1024  # of which the IoU with every true instance is in memory


@dataclass(frozen=True, eq=False)
class RankedDetections:
    """The predicted instances of one image, best first, and which of them are right.

    Attributes:
        scores: (D,) float64, descending.
        found: (10, D) bool, whether one has a true instance of its own at each of ``IOU_THRESHOLDS``.
        n_true: number of true instances.
    """

    scores: npt.NDArray[np.float64]
    found: npt.NDArray[np.bool_]
    n_true: int


def match_detections(
    true: npt.NDArray[Any], pred: npt.NDArray[Any], scores: npt.NDArray[Any] | None = None
) -> RankedDetections:
    """Match the instances of one image by COCO's rule: in the order of their scores, each takes the best that is left.

    Args:
        true: (H, W) non-negative integers, 0 background, any ids.
        pred: the same for the prediction.
        scores: (N,) finite score of each predicted instance, in the order of the ids; None scores all alike.

    Returns:
        All detections: COCO's limit of 100 an image is lifted.

    Raises:
        ArrayError: if the shapes differ, a map is not 2-D integer or has negative ids, or the scores are not one finite
            number for each predicted instance.
    """
    if true.shape != pred.shape:
        raise ArrayError(f"label maps must have the same shape, got true {true.shape} and pred {pred.shape}")
    true_masks, pred_masks = _masks(true), _masks(pred)
    scores = np.ones(len(pred_masks)) if scores is None else np.asarray(scores, np.float64)
    if scores.shape != (len(pred_masks),) or not np.isfinite(scores).all():
        raise ArrayError(
            f"scores must be one finite number for each of {len(pred_masks)} predicted instances, got shape "
            f"{scores.shape} with {np.count_nonzero(~np.isfinite(scores))} that are not finite"
        )
    return match_in_order(true_masks, pred_masks, scores)


def match_in_order(true: Sequence[Any], pred: Sequence[Any], scores: npt.NDArray[np.floating]) -> RankedDetections:
    """Match masks, or boxes, of one image by COCO's rule.

    The result is that of ``COCOeval.evaluateImg``, whose loops go through all pairs at each threshold and take seconds
    at 1,000 cells. Here a detection looks at those true instances only that an IoU of 0.5 puts near it.

    Args:
        true: G masks as pycocotools has them, ``size`` and ``counts``, or boxes ``[x, y, width, height]``.
        pred: D of the same kind, in any order; they may overlap.
        scores: (D,) finite; of equal ones the earlier comes first.

    Returns:
        All detections: COCO's limit of 100 an image is lifted.
    """
    order = np.argsort(-scores, kind="stable")
    found = np.zeros((len(LIMITS), len(order)), bool)
    if len(true):
        free = np.ones((len(LIMITS), len(true)), bool)
        for start in range(0, len(order), DETECTIONS_AT_ONCE):
            some = [pred[i] for i in order[start : start + DETECTIONS_AT_ONCE]]
            for place, row in enumerate(coco_mask.iou(some, true, [0] * len(true)), start):
                found[:, place] = _take_best(row, free)
    return RankedDetections(scores[order].astype(np.float64), found, len(true))


def _take_best(iou: npt.NDArray[np.float64], free: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(10,) whether a detection finds a true instance at each threshold; what it finds is ``free`` (10, G) no more."""
    near = np.flatnonzero(iou >= LIMITS[0])[::-1]  # of equal ones COCOeval takes the last
    if not len(near):
        return np.zeros(len(LIMITS), bool)
    possible = free[:, near] & (iou[near] >= LIMITS[:, None])
    best = np.where(possible, iou[near], 0).argmax(axis=1)
    levels = np.arange(len(LIMITS))
    found = possible[levels, best]
    free[levels, near[best]] &= ~found
    return found


def coco_ap(images: Sequence[RankedDetections]) -> dict[str, float | None]:
    """Average precision and recall over the instances of all images.

    Args:
        images: of one class or of all; equal scores keep the order of the images.

    Returns:
        ``coco_ap``, the mean over ``IOU_THRESHOLDS``; ``coco_ap50``; ``coco_ap75``; ``coco_ar``, the recall of all
        detections as a mean over the thresholds. All None if there is no true instance: COCO has no value then.

    Source: Lin et al., Microsoft COCO, ECCV 2014; ``pycocotools.cocoeval``: precision interpolated at 101 recalls.
    """
    if not sum(image.n_true for image in images):
        return dict.fromkeys(COCO_NAMES)
    with redirect_stdout(io.StringIO()):
        evaluation = _evaluation(len(images), max(len(image.scores) for image in images))
        evaluation.evalImgs = [
            {
                "dtScores": image.scores,
                "dtMatches": image.found,
                "dtIgnore": np.zeros(image.found.shape, bool),
                "gtIgnore": np.zeros(image.n_true, bool),
            }
            for image in images
        ]
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    place = IOU_THRESHOLDS.index
    values = precision.mean(), precision[place(0.5)].mean(), precision[place(0.75)].mean(), recall.mean()
    return dict(zip(COCO_NAMES, map(float, values), strict=True))


def _masks(labels: npt.NDArray[Any]) -> list[dict[str, Any]]:
    """Masks of all instances, as pycocotools has them, in the order of their ids."""
    check_labels(labels)
    return [coco_rle(counts, labels.shape) for counts in labels_to_rles(renumber(labels)[0])]


def _evaluation(n_images: int, n_detections: int) -> COCOeval:
    """An evaluation of the images 1..n that waits for their matches."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in range(1, n_images + 1)],
        "annotations": [],
        "categories": [{"id": CATEGORY, "name": "instance"}],
    }
    coco.createIndex()
    evaluation = COCOeval(coco, coco, "segm")
    evaluation.params.iouThrs = np.array(IOU_THRESHOLDS)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [list(EVERY_AREA)], ["all"]
    evaluation.params.maxDets = [max(1, n_detections)]
    evaluation.evaluate()
    return evaluation
