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
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..errors import ArrayError
from ..labels import check_labels, renumber
from ..masks import labels_to_rles
from .scores import IOU_THRESHOLDS

CATEGORY = 1
EVERY_AREA = (0.0, 1e10)  # px², COCO's own limits; its small, medium and large are made for photographs
COCO_NAMES = ("coco_ap", "coco_ap50", "coco_ap75", "coco_ar")


@dataclass(frozen=True, eq=False)
class Detections:
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
) -> Detections:
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
    for mask, score in zip(pred_masks, scores.tolist(), strict=True):
        mask["score"] = score
    with redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = _evaluation(1, len(pred_masks), true_masks, pred_masks)
    (result,) = evaluation.evalImgs
    if result is None:
        return Detections(np.zeros(0), np.zeros((len(IOU_THRESHOLDS), 0), bool), 0)
    return Detections(np.array(result["dtScores"], np.float64), result["dtMatches"] > 0, len(true_masks))


def coco_ap(images: Sequence[Detections]) -> dict[str, float | None]:
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
        evaluation = _evaluation(len(images), max(len(image.scores) for image in images), [], [])
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
    """COCO annotations of all instances in the order of their ids."""
    check_labels(labels)
    numbered, n = renumber(labels)
    areas = np.bincount(numbered.ravel(), minlength=n + 1)[1:].tolist()
    rles = labels_to_rles(numbered)
    return [
        {
            "id": number,  # COCOeval takes 0 for "no match"
            "image_id": 1,
            "category_id": CATEGORY,
            "segmentation": {"size": list(labels.shape), "counts": rle},
            "area": area,
            "iscrowd": 0,
        }
        for number, (area, rle) in enumerate(zip(areas, rles, strict=True), start=1)
    ]


def _evaluation(n_images: int, n_detections: int, true: list[dict[str, Any]], pred: list[dict[str, Any]]) -> COCOeval:
    """Matched detections of the images 1..n."""
    images = [_image(number, true or pred) for number in range(1, n_images + 1)]
    evaluation = COCOeval(_coco(images, true), _coco(images, pred), "segm")
    evaluation.params.iouThrs = np.array(IOU_THRESHOLDS)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [list(EVERY_AREA)], ["all"]
    evaluation.params.maxDets = [max(1, n_detections)]
    evaluation.evaluate()
    return evaluation


def _image(number: int, masks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    height, width = masks[0]["segmentation"]["size"] if masks else (0, 0)
    return {"id": number, "height": height, "width": width}


def _coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": CATEGORY, "name": "instance"}],
    }
    coco.createIndex()
    return coco
