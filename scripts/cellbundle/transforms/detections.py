"""From the detections of a network to a label map."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..decode.classes import class_map
from ..decode.masks import RULES, PasteRule, decode_detections
from ..errors import ConfigError
from ..instances.detections import to_labels

DECODING = ("mask_threshold", "tile_iou", "lowest_score", "paste_rule")  # options of decode_detections


class DecodeDetectionsd(MapTransform):
    """Replace predictions of a ``DetectionInferer`` by label maps (1, H, W) int32, in which no instances overlap.

    There are also ``scores``, (N,) float32 of the instances in the order of their ids, ``classes``, (N,) int64 from 1,
    ``class_scores``, equal to the scores, ``class_pred``, the map (1, H, W) int64 of the classes, and ``detections``,
    all ``instances.detections.Detections`` that COCO's average precision asks for: they overlap, and poor ones are
    among them.

    Args:
        keys: entries to replace.
        scores_key: entry for the scores.
        detections_key: entry for the detections.
        score_threshold: instances below this are not in the label map.
        mask_threshold: see ``cellbundle.decode.masks.decode_detections``.
        max_overlap: leave out an instance if better ones have taken more than this share of its pixels.
        min_size: leave out an instance if it gets fewer pixels than this.
        tile_iou: see ``cellbundle.decode.duplicates.merge_tiles``.
        lowest_score: detections below this are not kept at all.
        paste_rule: see ``cellbundle.decode.masks.paste_masks``.

    Raises:
        ConfigError: if ``score_threshold`` is below ``lowest_score``, or an option is not in its range.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        scores_key: str = "scores",
        detections_key: str = "detections",
        *,
        score_threshold: float = 0.5,
        mask_threshold: float = 0.5,
        max_overlap: float = 0.5,
        min_size: int = 1,
        tile_iou: float = 0.5,
        lowest_score: float = 0.05,
        paste_rule: PasteRule = "exact",
    ) -> None:
        super().__init__(keys)
        self.scores_key, self.detections_key = scores_key, detections_key
        shares = {
            "score_threshold": score_threshold,
            "mask_threshold": mask_threshold,
            "max_overlap": max_overlap,
            "tile_iou": tile_iou,
            "lowest_score": lowest_score,
        }
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}, expected a number from 0 to 1")
        if not tile_iou or min_size < 0 or paste_rule not in RULES:
            raise ConfigError(
                f"tile_iou, min_size and paste_rule are {tile_iou}, {min_size} and {paste_rule!r}; expected a number "
                f"above 0, one from 0 on, and one of {', '.join(RULES)}"
            )
        if score_threshold < lowest_score:
            raise ConfigError(
                f"score_threshold is {score_threshold}, but detections below lowest_score {lowest_score} are not kept; "
                "lower that too"
            )
        self.options: dict[str, Any] = {**shares, "min_size": min_size, "paste_rule": paste_rule}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with label maps in place of predictions."""
        result = dict(data)
        options = self.options
        for key in self.key_iterator(result):
            detections = decode_detections(result[key], **{name: options[name] for name in DECODING})
            labels, index = to_labels(
                detections,
                min_score=options["score_threshold"],
                max_overlap=options["max_overlap"],
                min_size=options["min_size"],
            )
            result[key] = torch.from_numpy(labels[None])
            result[self.scores_key] = result["class_scores"] = detections.scores[index]
            result["classes"] = detections.classes[index]
            result["class_pred"] = torch.from_numpy(class_map(labels, result["classes"])[None])
            result[self.detections_key] = detections
        return result
