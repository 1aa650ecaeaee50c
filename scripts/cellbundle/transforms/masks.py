"""Transforms between label maps and what networks predict."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..decode.classes import class_map, classify_instances
from ..decode.flows import decode_flows, keep_instances, mean_probability
from ..decode.hover import decode_hover
from ..errors import ArrayError
from ..flags import as_bool
from ..instances.labels import label_components, renumber
from ..targets.flows import labels_to_flows
from ..targets.hover import labels_to_hover


class FlowTargetsd(MapTransform):
    """Replace label maps (1, H, W) by training targets (3, H, W) float32: foreground, dy, dx (unit length).

    To be used after all geometric augmentation, so that flows belong to the transformed outlines.

    Args:
        keys: entries to replace.
        across_borders: see ``cellbundle.targets.flows.labels_to_flows``.
    """

    def __init__(self, keys: KeysCollection = "label", across_borders: bool = False) -> None:
        super().__init__(keys)
        self.across_borders = as_bool(across_borders)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with targets in place of label maps."""
        result = dict(data)
        for key in self.key_iterator(result):
            # Cropping and mirrored padding leave parts of a cell in several places; each needs a centre of its own.
            labels, _ = label_components(np.asarray(result[key][0]).astype(np.int32), connectivity=4)
            flows = labels_to_flows(labels, across_borders=self.across_borders)
            result[key] = torch.from_numpy(np.concatenate([(labels > 0)[None].astype(np.float32), flows]))
        return result


class HoverTargetsd(MapTransform):
    """Replace label maps (1, H, W) by training targets (3, H, W) float32: foreground, horizontal, vertical distance.

    Where there is a table of classes, as ``LoadClassesd`` makes it, a fourth channel has the class of each pixel, and
    the table and the map that are no longer needed go. To be used after all geometric augmentation, so that distances
    belong to the transformed outlines.

    Args:
        keys: entries to replace.
        classes_key: entry with the class of each id, (N + 1,) int64.
        map_key: entry to drop.
    """

    def __init__(
        self, keys: KeysCollection = "label", classes_key: str = "classes", map_key: str = "class_label"
    ) -> None:
        super().__init__(keys)
        self.classes_key, self.map_key = classes_key, map_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with targets in place of label maps."""
        result = dict(data)
        table = result.pop(self.classes_key, None)
        result.pop(self.map_key, None)
        for key in self.key_iterator(result):
            ids = np.asarray(result[key][0]).astype(np.int32)
            labels, _ = label_components(ids, connectivity=4)
            maps = [(labels > 0)[None].astype(np.float32), labels_to_hover(labels)]
            if table is not None:
                maps.append(np.asarray(table)[ids][None].astype(np.float32))
            result[key] = torch.from_numpy(np.concatenate(maps))
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

    The score is the mean probability of an instance's pixels to be cell. ``all_labels`` and ``all_scores`` also have
    the instances that are dropped because of ``min_score``.

    Args:
        keys: entries to replace.
        scores_key: entry for the scores.
        min_score: smallest score of an instance that is kept.
        binary_key: entry for the pixels that are rather cell than not, (1, H, W) bool; None adds none.
        **options: options of ``cellbundle.decode.flows.decode_flows``.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        scores_key: str = "scores",
        binary_key: str | None = None,
        min_score: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(keys)
        self.scores_key, self.binary_key, self.min_score, self.options = scores_key, binary_key, min_score, options
        _convert_switch(options, "across_borders")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with label maps in place of predictions."""
        result = dict(data)
        for key in self.key_iterator(result):
            prediction = torch.as_tensor(result[key]).detach().float()
            labels = decode_flows(prediction, **self.options)
            scores = mean_probability(labels, prediction[0].cpu().numpy())
            kept = scores >= self.min_score
            result["all_labels"], result["all_scores"] = torch.from_numpy(labels[None]), scores
            if not kept.all():
                labels = keep_instances(labels, kept)
            result[key], result[self.scores_key] = torch.from_numpy(labels[None]), scores[kept]
            if self.binary_key is not None:
                result[self.binary_key] = prediction[:1].cpu() > 0
        return result


class DecodeHoverd(MapTransform):
    """Replace predictions (3 + K, H, W) by label maps (1, H, W) int32, and add (N,) float32 ``scores``.

    The channels are the logit of the foreground, the horizontal and the vertical distance and the logits of K classes,
    the background first. The score is the mean probability of an instance's pixels to be foreground. With classes,
    there are also ``classes``, (N,) int64 in 1..K - 1, ``class_scores``, (N,) float32, the share of the pixels that
    voted for them, and ``class_pred``, the map (1, H, W) int64 of the classes.

    Args:
        keys: entries to replace.
        scores_key: entry for the scores.
        maps_key: entry for the prediction after its activations, (3 + K, H, W) float32: probability of the foreground,
            distances clipped to [-1, 1], probabilities of the classes; by default it is not kept.
        **options: options of ``cellbundle.decode.hover.decode_hover``.
    """

    def __init__(
        self, keys: KeysCollection = "pred", scores_key: str = "scores", maps_key: str | None = None, **options: Any
    ) -> None:
        super().__init__(keys)
        self.scores_key, self.maps_key, self.options = scores_key, maps_key, options
        _convert_switch(options, "keep_unmarked")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with label maps in place of predictions."""
        result = dict(data)
        for key in self.key_iterator(result):
            prediction = torch.as_tensor(result[key]).detach().float().cpu().numpy()
            labels = decode_hover(np.ascontiguousarray(prediction[:3]), **self.options)
            result[key] = torch.from_numpy(labels[None])
            result[self.scores_key] = mean_probability(labels, prediction[0])
            if len(prediction) > 3:
                result["classes"], result["class_scores"] = classify_instances(labels, prediction[3:])
                result["class_pred"] = torch.from_numpy(class_map(labels, result["classes"])[None])
            if self.maps_key is not None:
                result[self.maps_key] = activated(torch.from_numpy(prediction))
        return result


def activated(prediction: torch.Tensor) -> torch.Tensor:
    """Probability, distances in [-1, 1] and class probabilities of (3 + K, H, W) logits and distances."""
    maps = [prediction[:1].sigmoid(), prediction[1:3].clamp(-1, 1), prediction[3:].softmax(0)]
    return torch.cat(maps)


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


def _convert_switch(options: dict[str, Any], name: str) -> None:
    if name in options:
        options[name] = as_bool(options[name])
