"""RoI heads that learn from masks on their boxes instead of masks of the size of the image."""

from typing import Any

import torch
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.ops import roi_align

Target = dict[str, torch.Tensor]
MASKS_AT_ONCE = 128


class SparseRoIHeads(RoIHeads):
    """Torchvision's RoI heads, whose mask loss asks for the part of each mask around its box only.

    400 cells on 520 x 704 pixels as whole masks are 146 MB, four times that as the floats that torchvision makes of
    them; on their boxes they are less than one.
    """

    @classmethod
    def of(cls, heads: RoIHeads) -> "SparseRoIHeads":
        """The same heads, with the same modules."""
        made = cls.__new__(cls)
        made.__dict__ = heads.__dict__
        return made

    def forward(
        self, features: Any, proposals: Any, image_shapes: Any, targets: list[Target] | None = None
    ) -> tuple[list[Target], dict[str, torch.Tensor]]:
        """As in torchvision, but ``targets[i]["masks"]`` are those of ``cellbundle.targets.boxes.instance_targets``."""
        if self.training:
            assert targets is not None
            return [], self._losses(features, proposals, image_shapes, targets)
        boxes_xyxy, scores, labels = self.postprocess_detections(
            *self._judge(features, proposals, image_shapes), proposals, image_shapes
        )
        found = []
        for i, (box, score, label) in enumerate(zip(boxes_xyxy, scores, labels, strict=True)):
            own = {name: level[i : i + 1] for name, level in features.items()}
            masks = self._masks(own, box, label, image_shapes[i])
            found.append({"boxes": box, "labels": label, "scores": score, "masks": masks})
        return found, {}

    def _judge(self, features: Any, proposals: Any, image_shapes: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the classes and corrections of the boxes."""
        judged: Any = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        return judged  # type: ignore[no-any-return]

    def _mask_logits(self, features: Any, boxes_xyxy: list[torch.Tensor], image_shapes: Any) -> torch.Tensor:
        """(R, K, M, M) for all boxes x0, y0, x1, y1."""
        pooled = self.mask_head(self.mask_roi_pool(features, boxes_xyxy, image_shapes))
        return self.mask_predictor(pooled)  # type: ignore[no-any-return]

    def _masks(self, features: Any, boxes_xyxy: torch.Tensor, labels: torch.Tensor, shape: Any) -> torch.Tensor:
        """(D, M, M) float32 probabilities on the boxes x0, y0, x1, y1 of one image.

        Some at a time: a thousand at once take gigabytes.
        """
        parts = []
        for box, label in zip(boxes_xyxy.split(MASKS_AT_ONCE), labels.split(MASKS_AT_ONCE), strict=True):
            logits = self._mask_logits(features, [box], [shape])
            parts.append(logits[torch.arange(len(label), device=label.device), label].float().sigmoid())
        return torch.cat(parts)

    def _losses(
        self, features: Any, proposals: Any, image_shapes: Any, targets: list[Target]
    ) -> dict[str, torch.Tensor]:
        proposals, matched, labels, regression = self.select_training_samples(proposals, targets)
        classifier, box_reg = fastrcnn_loss(*self._judge(features, proposals, image_shapes), labels, regression)
        inside = [label > 0 for label in labels]
        boxes_xyxy, classes, matched = (
            [values[keep] for values, keep in zip(listed, inside, strict=True)]
            for listed in (proposals, labels, matched)
        )
        logits = self._mask_logits(features, boxes_xyxy, image_shapes)
        size = logits.shape[-1]
        wanted = [sample_masks(t, b, m, size) for t, b, m in zip(targets, boxes_xyxy, matched, strict=True)]
        mask = mask_loss(logits, torch.cat(classes), torch.cat(wanted))
        return {"loss_classifier": classifier, "loss_box_reg": box_reg, "loss_mask": mask}


def mask_loss(logits: torch.Tensor, classes: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of the masks (R, K, M, M) of the true classes (R,); 0 without any."""
    if not len(classes):
        return logits.sum() * 0
    chosen = logits[torch.arange(len(classes), device=classes.device), classes]
    return F.binary_cross_entropy_with_logits(chosen.float(), wanted)


def sample_masks(target: Target, boxes_xyxy: torch.Tensor, matched: torch.Tensor, size: int) -> torch.Tensor:
    """What the mask head should answer for some boxes.

    Args:
        target: of ``cellbundle.targets.boxes.instance_targets``.
        boxes_xyxy: (R, 4) x0, y0, x1, y1 in pixels of the image, inside of it, sides of a pixel or more.
        matched: (R,) int64 index of the instance of each box.
        size: M, side of the answer.

    Returns:
        (R, M, M) float32 in [0, 1]: what ``roi_align(..., aligned=True)`` gives for masks of the size of the image, up
        to rounding, because a mask holds one pixel around its box: 0, or at the border of the image its last pixel
        again. Torchvision does not align here, which shifts every mask by half a pixel: little for a person, but a cell
        of 12 pixels that is learnt perfectly would come back with an IoU of 0.86.
    """
    used, batch = matched.unique(return_inverse=True)
    masks = target["masks"][used][:, None].float()
    origin = target["boxes"][matched][:, :2] - 1
    rois = torch.cat([batch[:, None].to(boxes_xyxy), boxes_xyxy - origin.repeat(1, 2)], dim=1).float()
    return roi_align(masks, rois, (size, size), 1.0, aligned=True)[:, 0]
