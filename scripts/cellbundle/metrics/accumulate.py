"""Scores of many images, in one process or several."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from monai.metrics.metric import CumulativeIterationMetric
from monai.utils.dist import evenly_divisible_all_gather
from monai.utils.type_conversion import convert_to_numpy

from ..errors import ArrayError
from .scores import IOU_THRESHOLDS, Scores, image_scores, instance_ratios

_COUNT_PREFIXES = ("n_", "tp", "fp", "fn", "iou_sum")


def flat_map(values: Any) -> Any:
    """(H, W) array of a map (1, H, W) or (H, W), an array or a tensor on any device; None stays None."""
    return None if values is None else np.asarray(convert_to_numpy(values)).reshape(values.shape[-2:])


def pool(scores: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Summarise the scores of many images in the two ways that papers mix up.

    Args:
        scores: one result of ``image_scores`` per image, all with the same thresholds.

    Returns:
        ``n_images``; ``pooled``: the counts summed over the images and the ratios of those sums (large images weigh
        more; no AJI, Dice or IoU); ``per_image_mean``: the mean of each ratio over the images (an image without any
        cell, true or predicted, counts as 1).

    Raises:
        ArrayError: if there is no image.
    """
    if not scores:
        raise ArrayError("got no image to score, expected at least one; check the data list")
    names = [name for name in scores[0] if name.startswith(_COUNT_PREFIXES)]
    sums = {name: sum(image[name] for image in scores) for name in names}
    counts = {name: value if name == "iou_sum50" else int(value) for name, value in sums.items()}
    return {
        "n_images": len(scores),
        "pooled": counts | instance_ratios(counts),
        "per_image_mean": {name: fmean(image[name] for image in scores) for name in scores[0] if name not in counts},
    }


class InstanceScores(CumulativeIterationMetric):
    """Collects ``image_scores`` over batches, and over processes when ``torch.distributed`` runs.

    Call it as ``metric(y_pred, y, index=None)``:

    - ``y_pred``, ``y``: B predicted and B true integer label maps, each (H, W) or (1, H, W), in lists of tensors or
      arrays, or in one tensor each.
    - ``index``: B numbers of the images in the data set, >= 0. An image that comes twice counts once: samplers repeat
      images to give each process the same number. Without it, all images count.

    It adds B float64 rows with the columns ``names`` to the buffer, which MONAI gathers from all processes, so that the
    result is that of one process. It raises ``ArrayError`` if the lengths differ, or as in ``image_scores``.

    Args:
        thresholds: IoU thresholds, as in ``image_scores``.
    """

    def __init__(self, thresholds: Sequence[float] = IOU_THRESHOLDS) -> None:
        super().__init__()
        self.thresholds = tuple(thresholds)
        # Scoring once names the columns, refuses bad thresholds and compiles the kernel before the first epoch.
        self.names = ("index", *self.score(*self.blank()))

    @staticmethod
    def blank() -> tuple[Any, Any]:
        """A smallest true label map and a prediction for it, as ``score`` takes them."""
        return np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int32)

    def score(self, true: np.ndarray, pred: np.ndarray) -> Scores:
        """Scores of one image."""
        return image_scores(true, pred, self.thresholds)

    def aggregate(self) -> dict[str, Any]:
        """Summarise all images of all processes.

        Returns:
            As ``pool``, in the order of the indices.

        Raises:
            ArrayError: if there is no image.
        """
        return pool(list(self.images().values()))

    def images(self) -> dict[int, Scores]:
        """Scores of the single images of all processes.

        Returns:
            ``image_scores`` by index, in the order of the indices; images without one are numbered from 0.
        """
        rows = self.get_buffer().cpu().numpy()
        # Images without a number hold NaN, and NaN differs from NaN: all of them stay.
        first = np.unique(rows[:, 0], return_index=True, equal_nan=False)[1]
        numbers = [position if np.isnan(rows[i, 0]) else int(rows[i, 0]) for position, i in enumerate(first)]
        return {
            n: dict(zip(self.names[1:], rows[i, 1:].tolist(), strict=True)) for n, i in zip(numbers, first, strict=True)
        }

    def _compute_tensor(self, y_pred: Any, y: Any = None, **kwargs: Any) -> torch.Tensor:
        return self._rows(y_pred, y, **kwargs)

    _compute_list = _compute_tensor

    def _rows(self, y_pred: Any, y: Any, index: Any = None) -> torch.Tensor:
        numbers = [np.nan] * len(y) if index is None else [float(number) for number in index]
        if not len(y_pred) == len(y) == len(numbers):
            raise ArrayError(
                f"expected one prediction, label map and index per image, got {len(y_pred)}, {len(y)}, {len(numbers)}"
            )
        rows = [
            [number, *self.score(convert_to_numpy(true), convert_to_numpy(pred)).values()]
            for number, true, pred in zip(numbers, y, y_pred, strict=True)
        ]
        return torch.tensor(rows, dtype=torch.float64)

    def _sync(self) -> None:
        """As in MONAI, but a process without images takes part too; the others would wait for it for ever."""
        if self._synced:
            return
        rows = self._buffers[0] if self._buffers else []
        local = torch.stack(rows) if rows else torch.empty((0, len(self.names)), dtype=torch.float64)
        self._synced_tensors = [evenly_divisible_all_gather(local, concat=True)]
        self._synced = True
