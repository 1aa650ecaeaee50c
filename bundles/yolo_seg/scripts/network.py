# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' segmentation models as a detector of cells: all that is found, as masks on boxes.

What ultralytics would do with a prediction silently is not done here: no image is skipped because time is up, and no
detection is left out because there are many.
"""

import logging
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from sys import maxsize
from typing import Any

import torch
import yaml
from torch import nn
from torch.nn import functional as F

from cellbundle.errors import ConfigError

from .ultralytics_access import require_ultralytics

logger = logging.getLogger(__name__)

HEADS = ("Segment", "Segment26")  # layers of ultralytics that end a network for instance segmentation
GREY = 114 / 255  # that ultralytics fills images up with
PROTOTYPE_STRIDE = 4  # pixels
MASKS_AT_ONCE = 64
LEAST_LIMIT = 1000  # detections
CLASS_OFFSET = 7680  # pixels that keep boxes of two classes apart while duplicates are looked for, as ultralytics'
CLASS_HEAD = re.compile(r"model\.model\.\d+\.cv3\.0\.2\.weight")  # of the first level

Found = dict[str, torch.Tensor]


@cache
def architectures() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the networks for instance segmentation that the installed ultralytics can build, and of all others."""
    folder = Path(require_ultralytics().__file__).parent / "cfg" / "models"
    names: dict[bool, list[str]] = {True: [], False: []}
    for file in sorted(folder.rglob("*.yaml")):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        sizes = [size for size in content.get("scales", ()) if size in "nslmx"] or [""]
        segments = content["head"][-1][2] in HEADS
        names[segments] += [re.sub(r"(?<=\d)(?=\D|$)", size, file.stem, count=1) for size in sizes]
    return tuple(names[True]), tuple(names[False])


def build_model(architecture: str, num_classes: int) -> Any:
    """A ``SegmentationModel`` of ultralytics with random weights; nothing is downloaded.

    Raises:
        ConfigError: if ultralytics has no such network for instance segmentation.
        DependencyError: if ultralytics is not installed.
    """
    ours, others = architectures()
    if architecture not in ours:
        what = "is not one for instance segmentation" if architecture in others else "is not known to ultralytics"
        raise ConfigError(f"architecture {architecture!r} {what}; choose one of {', '.join(ours)}")
    from ultralytics.nn.tasks import SegmentationModel, yaml_model_load  # noqa: PLC0415  (AGPL-3.0, optional)

    config = yaml_model_load(f"{architecture}.yaml")
    return SegmentationModel({**config, "nc": num_classes}, verbose=False)


class RawOutputs(nn.Module):
    """What a model computes before boxes are decoded: two tensors of static shapes, which TensorRT can give too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Answers of all A anchors and the prototypes of the masks.

        Args:
            images: (B, 3, h, w) in [0, 1], sides multiples of the largest stride.

        Returns:
            ``raw`` (B, 4 R + K + C, A), distributions of the distances to the sides of the box, logits of the classes
            and coefficients of the prototypes; ``prototypes`` (B, C, h / 4, w / 4).
        """
        (_, prototypes), answers = self.model(images)
        answers = answers.get("one2many", answers)  # of two heads (yolo26) the one that ultralytics uses by default
        raw = torch.cat([answers[key] for key in ("boxes", "scores", "mask_coefficient")], 1)
        return {"raw": raw, "prototypes": prototypes}


class YoloNetwork(nn.Module):
    """A segmentation model of ultralytics, as ``model``, for images (B, 3, h, w) in [0, 1].

    Args:
        architecture: yolo11n-seg, or another network for instance segmentation that ultralytics can build.
        num_classes: without the background.
        score_threshold: detections must have more than this.
        nms_iou: largest IoU of the boxes of two detections of one class.
        max_detections: so many of the best of each image are kept, 1000 or more, and a warning says when there were
            more; None keeps all.
        mask_size: M, side of the masks.

    Raises:
        ConfigError: if ultralytics has no such network for instance segmentation, or a value is not in its range.
        DependencyError: if ultralytics is not installed.

    Source: https://docs.ultralytics.com/tasks/segment; Bolya et al., YOLACT, ICCV 2019 (prototypes of masks).
    """

    def __init__(
        self,
        architecture: str = "yolo11n-seg",
        num_classes: int = 1,
        score_threshold: float = 0.05,
        nms_iou: float = 0.7,
        max_detections: int | None = None,
        mask_size: int = 56,
    ) -> None:
        super().__init__()
        limit = maxsize if max_detections is None else max_detections
        for option, value, least, most in (
            ("num_classes", num_classes, 1, math.inf),
            ("score_threshold", score_threshold, 0, 1),
            ("nms_iou", nms_iou, 0, 1),
            ("max_detections", limit, LEAST_LIMIT, math.inf),
            ("mask_size", mask_size, 1, math.inf),
        ):
            if not least <= value <= most:
                wanted = f"{least} or more" if most == math.inf else f"a number from {least} to {most}"
                raise ConfigError(f"{option} is {value}, expected {wanted}")
        self.model = build_model(architecture, num_classes)
        self.__dict__["raw"] = RawOutputs(self.model)  # no submodule: its parameters are those of the model
        self.architecture, self.num_classes = architecture, num_classes
        self.score_threshold, self.nms_iou, self.mask_size = score_threshold, nms_iou, mask_size
        self.limit, self.limit_said = limit, False
        self.strides = [int(stride) for stride in self.model.stride]

    def forward(self, images: torch.Tensor) -> Any:
        """Detections; in training, what ultralytics' losses take.

        Args:
            images: (B, 3, h, w) in [0, 1], of any size; filled up with grey at the right and below.

        Returns:
            For each image ``boxes`` (D, 4) float32 x0, y0, x1, y1 in pixels, inside the image; ``labels`` (D,) int64
            1..K; ``scores`` (D,) float32, best first; and ``masks`` (D, M, M) float32 in [0, 1] on the boxes, above
            0.5 where the logit is above 0.
        """
        if self.training:
            return self.model(images)
        height, width = images.shape[-2:]
        step = max(self.strides)
        padded = F.pad(images, (0, -width % step, 0, -height % step), value=GREY)
        answers = self.raw(padded)
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 has every fourth pixel only beyond 512
            candidates = self._decode(answers["raw"].float(), padded.shape[-2:])
            selected = self._select(candidates, max(padded.shape[-2:]))
            return [
                self._answer(rows, own, (width, height))
                for rows, own in zip(selected, answers["prototypes"].float(), strict=True)
            ]

    def explain_weights(self, weights: Mapping[str, torch.Tensor]) -> str | None:
        """What a state dict that does not fit probably is; see ``cellbundle.engine.network.load_weights``."""
        from .checkpoints import explain  # noqa: PLC0415  (which needs this module)

        return explain(weights, self.architecture, self.num_classes)

    def _decode(self, raw: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """(B, 4 + K + C, A): centre, width and height of the boxes in pixels, scores and coefficients."""
        from ultralytics.utils.tal import dist2bbox, make_anchors  # noqa: PLC0415  (AGPL-3.0, optional)

        head = self.model.model[-1]
        sides, logits, coefficients = raw.split([4 * head.reg_max, head.nc, head.nm], 1)
        grids = [raw.new_empty(0, 0, size[0] // stride, size[1] // stride) for stride in self.strides]
        points, strides = make_anchors(grids, self.strides, 0.5)
        boxes_xywh = dist2bbox(head.dfl(sides), points.T[None], xywh=True, dim=1) * strides.T
        return torch.cat([boxes_xywh, logits.sigmoid(), coefficients], 1)

    def _select(self, candidates: torch.Tensor, side: int) -> list[torch.Tensor]:
        """For each image (D, 6 + C): x0, y0, x1, y1, score, class from 0, coefficients; the best first, no duplicates.

        Duplicates are looked for in each class by itself, as ultralytics and COCO's scores do.
        """
        from ultralytics.utils.nms import non_max_suppression  # noqa: PLC0415  (AGPL-3.0, optional)

        return non_max_suppression(  # type: ignore[no-any-return]
            candidates,
            self.score_threshold,
            self.nms_iou,
            nc=self.num_classes,
            max_wh=max(CLASS_OFFSET, 2 * side),
            max_det=maxsize,  # its own limits leave out detections, and whole images, without an error
            max_nms=maxsize,
            max_time_img=math.inf,
        )

    def _answer(self, rows: torch.Tensor, prototypes: torch.Tensor, size: tuple[int, int]) -> Found:
        """Detections of an image of (width, height)."""
        boxes_xyxy = rows[:, :4].clamp(min=0).minimum(rows.new_tensor(size * 2))
        inside = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(1)
        if inside.sum() > self.limit and not self.limit_said:
            logger.warning("a tile has more than %d detections; give a larger network_def#max_detections", self.limit)
            self.limit_said = True
        boxes_xyxy, rows = boxes_xyxy[inside][: self.limit], rows[inside][: self.limit]
        return {
            "boxes": boxes_xyxy,
            "labels": rows[:, 5].long() + 1,
            "scores": rows[:, 4],
            "masks": sample_masks(prototypes, rows[:, 6:], boxes_xyxy, self.mask_size),
        }


def sample_masks(
    prototypes: torch.Tensor, coefficients: torch.Tensor, boxes_xyxy: torch.Tensor, size: int
) -> torch.Tensor:
    """Masks on a grid in each box.

    Args:
        prototypes: (C, h, w) float32, at a quarter of the resolution.
        coefficients: (D, C) float32.
        boxes_xyxy: (D, 4) float32, x0, y0, x1, y1 in pixels.
        size: M, points along each side of a box.

    Returns:
        (D, M, M) float32 in [0, 1]: logits, linear around 0, which becomes 0.5. So enlarging them and cutting at 0.5
        gives nearly the pixels that enlarging the logits and cutting at 0 gives; probabilities would bend the outline.

    Source: ``ultralytics.utils.ops.process_mask_native`` enlarges the logits of the whole image.
    """
    masks = boxes_xyxy.new_zeros(len(boxes_xyxy), size, size)
    places = (torch.arange(size, device=boxes_xyxy.device) + 0.5) / size
    sides = boxes_xyxy.new_tensor(prototypes.shape[:0:-1]) * PROTOTYPE_STRIDE  # width and height
    for first in range(0, len(boxes_xyxy), MASKS_AT_ONCE):
        part = slice(first, first + MASKS_AT_ONCE)
        low, high = boxes_xyxy[part, None, :2], boxes_xyxy[part, None, 2:]
        at = (low + places[:, None] * (high - low)) / sides * 2 - 1  # (D, M, 2), x and y; -1 and 1 are the borders
        grid = torch.stack(torch.broadcast_tensors(at[:, None, :, 0], at[:, :, None, 1]), -1)
        logits = torch.einsum("dc,chw->dhw", coefficients[part], prototypes)[:, None]
        sampled = F.grid_sample(logits, grid, padding_mode="border", align_corners=False)[:, 0]
        masks[part] = F.hardsigmoid(sampled)
    return masks
