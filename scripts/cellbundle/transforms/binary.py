"""Transforms between label maps and predictions of a single logit."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..decode.binary import decode_binary
from ..decode.flows import mean_probability


class BinaryTargetsd(MapTransform):
    """Replace label maps (1, H, W) by training targets (1, H, W) float32: 1 in instances, 0 outside.

    Args:
        keys: entries to replace.
    """

    def __init__(self, keys: KeysCollection = "label") -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with targets in place of label maps."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = torch.from_numpy((np.asarray(result[key]) > 0).astype(np.float32))
        return result


class DecodeBinaryd(MapTransform):
    """Replace predictions (1, H, W) by label maps (1, H, W) int32, and add ``scores`` and the binary mask.

    The score is the mean probability of an instance's pixels to be cell.

    Args:
        keys: entries to replace.
        scores_key: entry for the scores, (N,) float32.
        binary_key: entry for the pixels that are rather cell than not, (1, H, W) bool; None adds none.
        **options: options of ``cellbundle.decode.binary.decode_binary``.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        scores_key: str = "scores",
        binary_key: str | None = "binary",
        **options: Any,
    ) -> None:
        super().__init__(keys)
        self.scores_key, self.binary_key, self.options = scores_key, binary_key, options

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with label maps in place of predictions."""
        result = dict(data)
        for key in self.key_iterator(result):
            prediction: np.ndarray = torch.as_tensor(result[key]).detach().float().cpu().numpy()
            labels = decode_binary(prediction, **self.options)
            result[key] = torch.from_numpy(labels[None])
            result[self.scores_key] = mean_probability(labels, prediction[0])
            if self.binary_key is not None:
                result[self.binary_key] = torch.from_numpy(prediction > 0)
        return result
