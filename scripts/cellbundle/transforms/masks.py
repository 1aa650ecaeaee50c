"""Transforms between label maps and what networks predict."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..decode.flows import decode_flows, mean_probability
from ..errors import ArrayError
from ..labels import renumber, split_components
from ..targets.flows import labels_to_flows


class FlowTargetsd(MapTransform):
    """Replace label maps (1, H, W) by training targets (3, H, W) float32: foreground, dy, dx (unit length).

    To be used after all geometric augmentation, so that flows belong to the transformed outlines.

    Args:
        keys: entries to replace.
        across_borders: see ``cellbundle.targets.flows.labels_to_flows``.
    """

    def __init__(self, keys: KeysCollection = "label", across_borders: bool = False) -> None:
        super().__init__(keys)
        self.across_borders = across_borders

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with targets in place of label maps."""
        result = dict(data)
        for key in self.key_iterator(result):
            labels = split_components(np.asarray(result[key][0]).astype(np.int32))
            flows = labels_to_flows(labels, across_borders=self.across_borders)
            result[key] = torch.from_numpy(np.concatenate([(labels > 0)[None].astype(np.float32), flows]))
        return result


class RenumberLabelsd(MapTransform):
    """Number the instances of label maps (1, H, W) 1..N.

    MONAI's geometric transforms compute in float32, in which ids above 2**24 merge.

    Args:
        keys: entries to replace.
    """

    def __init__(self, keys: KeysCollection = "label") -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with int32 label maps of consecutive ids."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = torch.from_numpy(renumber(np.asarray(result[key])[0])[0][None])
        return result


class DecodeFlowsd(MapTransform):
    """Replace predictions (3, H, W) by label maps (1, H, W) int32, and add (N,) float32 ``scores`` of the instances.

    The score is the mean probability of an instance's pixels to be cell.

    Args:
        keys: entries to replace.
        scores_key: entry for the scores.
        **options: options of ``cellbundle.decode.flows.decode_flows``.
    """

    def __init__(self, keys: KeysCollection = "pred", scores_key: str = "scores", **options: Any) -> None:
        super().__init__(keys)
        self.scores_key, self.options = scores_key, options

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with label maps in place of predictions."""
        result = dict(data)
        for key in self.key_iterator(result):
            prediction = torch.as_tensor(result[key]).detach().float()
            labels = decode_flows(prediction, **self.options)
            result[key] = torch.from_numpy(labels[None])
            result[self.scores_key] = mean_probability(labels, prediction[0].cpu().numpy())
        return result


class ToPictureLayoutd(MapTransform):
    """Label maps (1, H, W) to (W, H) uint16, which MONAI Label's PNG writer saves upright and unchanged.

    Args:
        keys: entries to replace.

    Raises:
        ArrayError: if there are more than 65535 instances.
    """

    def __init__(self, keys: KeysCollection = "pred") -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with turned label maps."""
        result = dict(data)
        for key in self.key_iterator(result):
            labels = np.asarray(result[key])[0]
            if labels.max(initial=0) > np.iinfo(np.uint16).max:
                raise ArrayError(f"{labels.max()} instances do not fit in uint16, at most 65535 do; cut the image")
            result[key] = torch.from_numpy(np.ascontiguousarray(labels.T.astype(np.uint16)))
        return result
