"""What ``image_scores`` does not have: COCO's average precision, and scores by class, of one image and of many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArrayError
from .classes import (
    RATIOS,
    IntArray,
    class_confusion,
    class_scores,
    count_class_pixels,
    majority_classes,
    mean_known,
)
from .coco_ap import COCO_NAMES, RankedDetections, coco_ap, match_detections
from .matching import overlap_table

CLASS_RATIOS = (*RATIOS, "coco_ap", "coco_ap50")


@dataclass(frozen=True, eq=False)
class ImageDetails:
    """Counts of one image that add up over images.

    Attributes:
        detections: matched without regard to classes.
        of_class: the same for the instances of each of K classes alone; empty without classes.
        pixels: (K, 3) of ``count_class_pixels``.
        confusion: (K + 1, K + 1) of ``class_confusion``.
    """

    detections: RankedDetections
    of_class: tuple[RankedDetections, ...]
    pixels: IntArray
    confusion: IntArray


def image_details(
    true: npt.NDArray[Any],
    pred: npt.NDArray[Any],
    scores: npt.NDArray[Any] | None = None,
    *,
    true_classes: npt.NDArray[Any] | None = None,
    pred_classes: npt.NDArray[Any] | None = None,
    n_classes: int = 0,
) -> ImageDetails:
    """Compare the label maps, and the class maps if there are any, of one image.

    Args:
        true: (H, W) non-negative integers, 0 background, any ids.
        pred: the same for the prediction.
        scores: (N,) finite score of each predicted instance, in the order of the ids; None scores all alike.
        true_classes: (H, W) integers in 0..K, 0 background; an instance has the class of most of its pixels.
        pred_classes: the same for the prediction.
        n_classes: K; 0 leaves classes out.

    Raises:
        ArrayError: if shapes, types or numbers do not fit, a class is not in 0..K, or a class map is missing.
    """
    detections = match_detections(true, pred, scores)
    if not n_classes:
        return ImageDetails(detections, (), np.zeros((0, 3), np.int64), np.zeros((1, 1), np.int64))
    if true_classes is None or pred_classes is None:
        missing = "true" if true_classes is None else "predicted"
        raise ArrayError(f"expected class maps for {n_classes} classes, got no {missing} one; give it, or no classes")
    overlap = overlap_table(true, pred)
    true_of, pred_of = (
        majority_classes(labels, classes, n_classes) for labels, classes in ((true, true_classes), (pred, pred_classes))
    )
    scores = np.ones(len(pred_of)) if scores is None else np.asarray(scores)
    of_class = tuple(
        match_detections(
            np.where(np.isin(true, overlap.true_ids[true_of == number]), true, 0),
            np.where(np.isin(pred, overlap.pred_ids[pred_of == number]), pred, 0),
            scores[pred_of == number],
        )
        for number in range(1, n_classes + 1)
    )
    pixels = count_class_pixels(true_classes, pred_classes, n_classes)
    return ImageDetails(detections, of_class, pixels, class_confusion(overlap, true_of, pred_of, n_classes))


def detail_scores(images: Sequence[ImageDetails], class_names: Sequence[str] = ()) -> dict[str, Any]:
    """Scores of one image, or of many with their counts added up.

    Args:
        images: at least one, all with the same classes.
        class_names: of the classes 1..K.

    Returns:
        The scores of ``coco_ap``. With classes also ``classes``: for each name the scores of ``class_scores`` and its
        own ``coco_ap`` and ``coco_ap50``; ``class_mean``: their means over the classes that are not None;
        ``confusion``: that of ``class_confusion`` as lists.
    """
    scores: dict[str, Any] = dict(coco_ap([image.detections for image in images]))
    if not class_names:
        return scores
    confusion = np.sum([image.confusion for image in images], axis=0)
    rows = class_scores(np.sum([image.pixels for image in images], axis=0), confusion)
    for number, row in enumerate(rows):
        average = coco_ap([image.of_class[number] for image in images])
        row |= {name: average[name] for name in ("coco_ap", "coco_ap50")}
    classes = dict(zip(class_names, rows, strict=True))
    return scores | {
        "classes": classes,
        "class_mean": mean_known(rows, CLASS_RATIOS),
        "confusion": confusion.tolist(),
    }


def mean_details(images: Sequence[dict[str, Any]], class_names: Sequence[str] = ()) -> dict[str, Any]:
    """Means over images of what ``detail_scores`` gives for each, over those images where a score is not None.

    Args:
        images: at least one result of ``detail_scores`` of a single image.
        class_names: of the classes 1..K.

    Returns:
        The ratios under the same names; no counts.
    """
    means: dict[str, Any] = dict(mean_known(images, COCO_NAMES))
    if class_names:
        means["classes"] = {
            name: mean_known([image["classes"][name] for image in images], CLASS_RATIOS) for name in class_names
        }
        means["class_mean"] = mean_known([image["class_mean"] for image in images], CLASS_RATIOS)
    return means
