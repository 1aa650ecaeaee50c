"""Scores of binary masks beside those of instances."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.utils.enums import CommonKeys as Keys

from ..errors import ArrayError
from .accumulate import InstanceScores
from .scores import Scores


class BinaryScores(InstanceScores):
    """``InstanceScores`` with the IoU of the binary mask, which is not that of the decoded instances.

    A prediction is (2, H, W) integers: the label map and the mask, as ``binary_output`` stacks them. The scores of an
    image have three more entries, see ``binary_scores``.
    """

    @staticmethod
    def blank() -> tuple[Any, Any]:
        """A smallest true label map and a prediction for it."""
        return np.zeros((1, 1), np.int32), np.zeros((2, 1, 1), np.int32)

    def score(self, true: np.ndarray, pred: np.ndarray) -> Scores:
        """Scores of one image.

        Raises:
            ArrayError: if the prediction is not (2, H, W), or the shapes of ``true`` and its maps differ.
        """
        if pred.ndim != 3 or len(pred) != 2:
            raise ArrayError(f"expected a label map and a mask, (2, H, W), got shape {pred.shape}; use binary_output")
        flat = true.reshape(true.shape[-2:])
        return binary_scores(flat > 0, pred[1] > 0) | super().score(flat, pred[0])


def binary_scores(true: npt.NDArray[np.bool_], pred: npt.NDArray[np.bool_]) -> Scores:
    """Compare two masks (H, W).

    Returns:
        ``binary_iou``: shared pixels over pixels of either, 1 where both are empty, as everywhere in this package;
        ``source_iou``: the same, but 0 where both are empty, as some publications count it; ``binary_dice``.

    Raises:
        ArrayError: if the shapes differ.
    """
    if true.shape != pred.shape:
        raise ArrayError(f"masks must have one shape, got {true.shape} and {pred.shape}")
    both, either = int(np.count_nonzero(true & pred)), int(np.count_nonzero(true | pred))
    iou = both / either if either else 1.0
    return {"binary_iou": iou, "source_iou": iou if either else 0.0, "binary_dice": 2 * iou / (1 + iou)}


def binary_output(output: Sequence[Mapping[str, Any]]) -> tuple[list[torch.Tensor], list[Any], np.ndarray]:
    """What ``BinaryScores`` takes, of one iteration of ``EvalStep``; empty after a failure.

    Args:
        output: items with the label map ``pred`` and the mask ``binary``, each (1, H, W), ``label`` and ``index``.
    """
    # An array, because ignite takes three lists of numbers or tensors for a mistake.
    predictions = [torch.cat([torch.as_tensor(o[key]).int() for key in (Keys.PRED, "binary")]) for o in output]
    return predictions, [o[Keys.LABEL] for o in output], np.array([int(o["index"]) for o in output])
