"""Writes ``metrics.json`` when an evaluation ends: all scores, pooled, as means and for each image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.utils.enums import CommonKeys as Keys
from monai.utils.type_conversion import convert_to_numpy

from ... import distributed
from ...errors import ArrayError
from ...evaluation import build_evaluation, metrics_content, write_metrics
from ...metrics import InstanceScores
from ...metrics.accumulate import flat_map
from ...metrics.classes import mean_known
from ...metrics.details import ImageDetails, image_details
from ...metrics.detection import DETECTION_NAMES, SARTORIUS, DetectionScores, MatchedDetections, detection_scores
from .base import ItemHandler


class MetricsFile(ItemHandler):
    """A handler that computes COCO's AP and scores by class beside ``InstanceScores``, and writes them all.

    It looks at the decoded items of ``engine.state.output``, and in ``engine.state.batch`` for entries that are not
    there. An image that failed is in no score; ``n_failed`` of the file tells how many did. If the metric is
    ``DetectionScores``, its scores of detections, and the ``sartorius_score``, are in the file too.

    Args:
        path: file to write, such as ``results/metrics.json``; its folder is made when needed.
        metric: the metric of the same evaluator; its scores are used, not computed again.
        data: entries of the data set, in the order of their index.
        class_names: of the classes 1..K; none leaves classes out.
        scores_key: entry with the (N,) scores of the predicted instances; without it, all score alike.
        true_classes_key: entry with the true class map, (1, H, W) or (H, W).
        pred_classes_key: entry with the predicted one.
        enabled: False does nothing.
    """

    def __init__(
        self,
        path: str | Path,
        metric: InstanceScores,
        data: Sequence[Mapping[str, Any]],
        class_names: Sequence[str] | None = None,
        scores_key: str = "scores",
        true_classes_key: str = "class_label",
        pred_classes_key: str = "class_pred",
        enabled: bool = True,
    ) -> None:
        super().__init__(enabled)
        self.path, self.metric, self.data, self.class_names = Path(path), metric, data, list(class_names or ())
        self.scores_key = scores_key
        self.true_classes_key, self.pred_classes_key = true_classes_key, pred_classes_key
        self.details: dict[int, ImageDetails] = {}

    def files(self) -> list[Path]:
        """The file."""
        return [self.path]

    def start(self) -> None:
        """Forget an earlier run."""
        self.details = {}

    def add(self, index: int, item: Mapping[str, Any]) -> None:
        """Compare the instances of an image."""
        try:
            self.details[index] = self._compare(item)
        except ArrayError as error:
            raise ArrayError(f"{item['path']}: {error}") from error

    def _compare(self, item: Mapping[str, Any]) -> ImageDetails:
        scores = item.get(self.scores_key)
        return image_details(
            flat_map(item[Keys.LABEL]),
            flat_map(item[Keys.PRED]),
            None if scores is None else convert_to_numpy(scores),
            true_classes=flat_map(item.get(self.true_classes_key)),
            pred_classes=flat_map(item.get(self.pred_classes_key)),
            n_classes=len(self.class_names),
        )

    def finish(self) -> None:
        """Write the file."""
        evaluation = build_evaluation(self.metric, self.data)
        details = distributed.gather_by_index(self.details)
        matched = self.metric.matched() if isinstance(self.metric, DetectionScores) else {}
        if distributed.rank() == 0:
            ordered = list(details.values())
            content = metrics_content(evaluation, ordered, self.class_names)
            if matched:
                add_detection_scores(content, list(matched.values()))
            write_metrics({"n_failed": len(self.data) - len(ordered)} | content, self.path)


def add_detection_scores(content: dict[str, Any], images: Sequence[MatchedDetections]) -> None:
    """Add ``detection_scores`` of all images, of each and as means, and the ``sartorius_score``.

    Args:
        content: of ``metrics_content``.
        images: one for each of its images, in the same order.
    """
    for row, image in zip(content["images"], images, strict=True):
        row.update(detection_scores([image]))
    mean = content["per_image_mean"]
    mean |= mean_known(content["images"], DETECTION_NAMES) | {SARTORIUS: mean["ap_mean"]}
    content["pooled"] |= detection_scores(images)
