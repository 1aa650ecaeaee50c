"""Scores of detectors: COCO's average precision and recall of all detections, beside the scores of the label maps.

The detections are those that may overlap, with the worst scores among them. ``coco_ap`` of ``metrics.details`` is that
of the instances of a label map, which no longer overlap; ``mask_ap`` here is the one that papers on detectors report.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine
from ignite.metrics.metric import reinit__is_reduced
from monai.utils.enums import CommonKeys as Keys

from .. import distributed
from ..errors import ArrayError
from ..instances.detections import Detections, mask_rles
from ..instances.labels import check_labels, renumber
from ..instances.overlaps import labels_to_rles
from ..instances.rle import coco_rle
from ..kernels.geometry import boxes_and_areas
from .accumulate import InstanceScores, flat_map
from .classes import majority_classes, mean_known
from .coco_ap import COCO_NAMES, RankedDetections, coco_ap, match_in_order
from .handler import InstanceScoresHandler
from .scores import IOU_THRESHOLDS

KINDS = ("mask", "box")
DETECTION_NAMES = tuple(name.replace("coco", kind) for kind in KINDS for name in COCO_NAMES)
SARTORIUS = "sartorius_score"


@dataclass(frozen=True, eq=False)
class MatchedDetections:
    """Which detections of one image are right: scores and bits, no masks.

    Attributes:
        mask: those of each of K classes, by the IoU of masks.
        box: the same by the IoU of boxes.
    """

    mask: tuple[RankedDetections, ...]
    box: tuple[RankedDetections, ...]


def match_image(
    true: npt.NDArray[Any], detections: Detections, true_classes: npt.NDArray[Any] | None = None, n_classes: int = 1
) -> MatchedDetections:
    """Match the detections of one image, those of each class among themselves.

    Args:
        true: (H, W) non-negative integers, 0 background, any ids.
        detections: they may overlap; classes 1..K.
        true_classes: (N,) class of each true instance in the order of the ids, 1..K; None puts all into class 1.
        n_classes: K.

    Raises:
        ArrayError: if the image is of another size, or classes do not fit.

    Source: rule of ``pycocotools.cocoeval``; boxes are those tight around the masks, in whole pixels.
    """
    if true.shape != detections.shape:
        raise ArrayError(f"labels and detections must be of one image, got shapes {true.shape} and {detections.shape}")
    check_labels(true)
    numbered, n = renumber(true)
    true_of = _checked(np.ones(n, np.int64) if true_classes is None else np.asarray(true_classes), n, n_classes, "true")
    pred_of = _checked(detections.classes, len(detections), n_classes, "predicted")

    def match_all(true_shapes: Sequence[Any], pred_shapes: Sequence[Any]) -> tuple[RankedDetections, ...]:
        return tuple(
            match_in_order(
                [true_shapes[i] for i in np.flatnonzero(true_of == number).tolist()],
                [pred_shapes[i] for i in np.flatnonzero(pred_of == number).tolist()],
                detections.scores[pred_of == number],
            )
            for number in range(1, n_classes + 1)
        )

    return MatchedDetections(
        mask=match_all(
            [coco_rle(counts, true.shape) for counts in labels_to_rles(numbered)],
            [coco_rle(counts, true.shape) for counts in mask_rles(detections)],
        ),
        box=match_all(_xywh(boxes_and_areas(numbered, n)[0]), _xywh(detections.boxes_yxyx)),
    )


def detection_scores(images: Sequence[MatchedDetections]) -> dict[str, float | None]:
    """Average precision and recall over the detections of all images.

    Args:
        images: all with the same classes.

    Returns:
        ``mask_ap``, ``mask_ap50``, ``mask_ap75`` and ``mask_ar``, see ``coco_ap``, and the same of ``box``: means over
        the classes that have a true instance, None if none has. No limit of detections.
    """
    scores: dict[str, float | None] = {}
    for kind in KINDS:
        of_classes = zip(*(getattr(image, kind) for image in images), strict=True)
        means = mean_known([coco_ap(of_class) for of_class in of_classes], COCO_NAMES)
        scores |= {name.replace("coco", kind): value for name, value in means.items()}
    return scores


class DetectionScores(InstanceScores):
    """``InstanceScores`` of the label maps, and ``detection_scores`` of the detections that they were made from.

    Call it as ``metric(y_pred, y, index=..., detections=..., true_classes=None)``: the first three as for
    ``InstanceScores``, but indices are needed; B ``Detections``; B arrays (N,) of the classes of the true instances in
    the order of the ids, or None where there are no classes.

    Args:
        n_classes: K, at least 1.
        thresholds: IoU thresholds of ``InstanceScores``.
    """

    def __init__(self, n_classes: int = 1, thresholds: Sequence[float] = IOU_THRESHOLDS) -> None:
        super().__init__(thresholds)
        self.n_classes = n_classes

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._matched: dict[int, MatchedDetections] = {}

    def matched(self) -> dict[int, MatchedDetections]:
        """Matched detections of the images of all processes, in the order of the indices; call it in all of them."""
        return distributed.gather_by_index(self._matched)

    def aggregate(self) -> dict[str, Any]:
        """Summarise all images of all processes.

        Returns:
            As ``pool``; and ``detection``: what is in ``per_image_mean``, ``detection_scores``, and
            ``sartorius_score``, which is ``ap_mean`` of ``per_image_mean`` under the name of that challenge. (A match
            needs IoU >= threshold here; the challenge asked for > threshold.)

        Raises:
            ArrayError: if there is no image.
        """
        result = super().aggregate()
        mean = result["per_image_mean"]
        scores = detection_scores(list(self.matched().values()))
        return result | {"detection": mean | scores | {SARTORIUS: mean["ap_mean"]}}

    def _rows(self, y_pred: Any, y: Any, index: Any = None, detections: Any = (), true_classes: Any = None) -> Any:
        classes = [None] * len(y) if true_classes is None else true_classes
        numbers = () if index is None else [int(number) for number in index]
        if not len(numbers) == len(detections) == len(classes) == len(y):
            raise ArrayError(
                f"expected an index, detections and classes for each of {len(y)} images, got {len(numbers)}, "
                f"{len(detections)}, {len(classes)}"
            )
        rows = super()._rows(y_pred, y, numbers)
        for number, true, found, of_true in zip(numbers, y, detections, classes, strict=True):
            self._matched[number] = match_image(flat_map(true), found, of_true, self.n_classes)
        return rows


class DetectionScoresHandler(InstanceScoresHandler):
    """Computes ``DetectionScores`` in MONAI's evaluators; usable as their key metric.

    It takes label maps (``pred``), ``detections``, ``label`` and ``index`` from the items of ``engine.state.output``,
    and the map ``class_label`` of ``LoadClassesd``, if there is one, from those of ``engine.state.batch``. (Its table
    ``classes`` has been replaced by the predicted ones when this looks.) A score that has no value is 0 in
    ``engine.state.metrics``, where epochs are compared.

    Args:
        metric_fn: the metric.
        key: name of the score to compare epochs by.
        logged: names of further scores to log.
    """

    def __init__(
        self,
        metric_fn: DetectionScores,
        key: str = "mask_ap",
        logged: Sequence[str] = (*DETECTION_NAMES[1:], SARTORIUS),
    ) -> None:
        super().__init__(metric_fn, output_transform=list, key=key, logged=logged, summary="detection")

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Add the images of an iteration; none after a failure."""
        if engine.state.output:
            self.update(list(zip(engine.state.batch, engine.state.output, strict=True)))  # type: ignore[call-overload]

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Add images, pairs of an item of the batch and one of the output."""
        for batch, item in output:
            classes = batch.get("class_label")
            n_classes = cast("DetectionScores", self.metric_fn).n_classes
            of_true = (
                None if classes is None else majority_classes(flat_map(item[Keys.LABEL]), flat_map(classes), n_classes)
            )
            self.metric_fn(
                [item[Keys.PRED]],
                [item[Keys.LABEL]],
                index=[item["index"]],
                detections=[item["detections"]],
                true_classes=None if of_true is None else [of_true],
            )

    def completed(self, engine: Engine, name: str) -> None:
        """Put the scores into ``engine.state.metrics``."""
        super().completed(engine, name)
        for score in (name, *self.logged):
            engine.state.metrics[score] = engine.state.metrics[score] or 0.0


def _checked(classes: npt.NDArray[Any], n: int, n_classes: int, name: str) -> npt.NDArray[Any]:
    """The (N,) classes."""
    if classes.shape != (n,):
        raise ArrayError(f"{name} classes must be one for each of {n} instances, got shape {classes.shape}")
    if n and not 1 <= classes.min() <= classes.max() <= n_classes:
        raise ArrayError(
            f"{name} classes must be in 1..{n_classes}, got {classes.min()}..{classes.max()}; check the class names"
        )
    return classes


def _xywh(boxes_yxyx: npt.NDArray[np.int64]) -> list[list[int]]:
    """Boxes x, y, width, height of (N, 4) half-open y0, x0, y1, x1."""
    return [[x0, y0, x1 - x0, y1 - y0] for y0, x0, y1, x1 in boxes_yxyx.tolist()]
