"""Masks on boxes, as Mask R-CNN predicts them, to detections."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ..errors import ArrayError, ConfigError
from ..instances.detections import Detections, Mask, tighten
from .duplicates import merge_tiles

PasteRule = Literal["exact", "torchvision"]
RULES = ("exact", "torchvision")

PADDING = 1  # blank pixels around a predicted mask before it is enlarged, as in torchvision
KEYS = ("boxes", "scores", "labels", "masks", "tile_of", "tiles", "size")
NOTHING = np.zeros((0, 0), np.float32)

Floats = NDArray[np.float32]


def decode_detections(
    prediction: Mapping[str, Any],
    *,
    mask_threshold: float = 0.5,
    tile_iou: float = 0.5,
    lowest_score: float = 0.05,
    paste_rule: PasteRule = "exact",
) -> Detections:
    """Detections of an image, each object once.

    Args:
        prediction: tensors or arrays of one image, as ``inference.detection.DetectionInferer`` gives them but
            without the axis of the batch.
        mask_threshold: a pixel belongs to a mask if its probability is above this.
        tile_iou: see ``cellbundle.decode.duplicates.merge_tiles``.
        lowest_score: detections below this are left out, and so are those whose score is NaN.
        paste_rule: see ``paste_masks``.

    Returns:
        All others that have a pixel; they may still overlap.

    Raises:
        ArrayError: if ``prediction`` is not of this form.
        ConfigError: if ``tile_iou`` is not above 0 and at most 1, or for another rule.
    """
    if not isinstance(prediction, Mapping) or not prediction.keys() >= set(KEYS):
        got = ", ".join(map(str, prediction)) if isinstance(prediction, Mapping) else type(prediction).__name__
        raise ArrayError(f"prediction must be a dictionary with {', '.join(KEYS)}, got {got}")
    boxes_xyxy, scores, labels, masks, tile_of, tiles, size = (_as_array(prediction[key]) for key in KEYS)
    lengths = [len(array) for array in (boxes_xyxy, scores, labels, masks, tile_of)]
    if len(set(lengths)) > 1:
        raise ArrayError(f"boxes, scores, labels, masks and tile_of must be of one length, got {lengths}")
    chosen = np.flatnonzero(scores >= lowest_score)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]  # as Detections keeps them, so that tile_of fits
    shape = (int(size[0]), int(size[1]))
    crops, boxes_yxyx, kept = paste_masks(masks[chosen], boxes_xyxy[chosen], shape, mask_threshold, paste_rule)
    chosen = chosen[kept]
    found = Detections(crops, boxes_yxyx, scores[chosen].astype(np.float32), labels[chosen].astype(np.int64), shape)
    return merge_tiles(found, tile_of[chosen], tiles, tile_iou)[0]


def paste_masks(
    probabilities: NDArray[np.floating],
    boxes_xyxy: NDArray[np.floating],
    shape: tuple[int, int],
    threshold: float,
    rule: PasteRule = "exact",
) -> tuple[list[Mask], NDArray[np.int64], NDArray[np.int64]]:
    """Enlarge masks to their boxes and cut them at a threshold, one at a time and never in the size of the image.

    Args:
        probabilities: (N, M, M) float.
        boxes_xyxy: (N, 4) float, x0, y0, x1, y1 in pixels; they may reach over the edge of the image.
        shape: (H, W) of the image.
        threshold: a pixel belongs to a mask if its probability is above this.
        rule: ``exact``, the probability at the centre of each pixel in the box; ``torchvision``, boxes in whole pixels
            that are up to two pixels wider: cells of 8 pixels then have an IoU of 0.75 with what they should be.

    Returns:
        K masks, (h, w) bool, each on its tight box; (K, 4) int64 half-open boxes y0, x0, y1, x1; and (K,) int64 index
        of each. Masks without a pixel in the image are left out.

    Raises:
        ArrayError: if shapes do not fit.
        ConfigError: for another rule.

    Source: ``torchvision`` gives the pixels of ``torchvision.models.detection.roi_heads.paste_masks_in_image(...) >
    threshold``; ``exact`` samples as detectron2's ``paste_masks_in_image`` does, for which the targets of the masks are
    to be made with ``roi_align(..., aligned=True)``.
    """
    if probabilities.ndim != 3 or boxes_xyxy.shape != (len(probabilities), 4):
        got = f"got shapes {probabilities.shape} and {boxes_xyxy.shape}"
        raise ArrayError(f"probabilities must be (N, M, M) and boxes (N, 4), {got}")
    if rule not in RULES:
        raise ConfigError(f"paste_rule is {rule!r}; choose one of {', '.join(RULES)}")
    masks, boxes_xyxy = probabilities.astype(np.float32, copy=False), boxes_xyxy.astype(np.float32, copy=False)
    enlarge = _enlarge_exactly if rule == "exact" else _enlarge_widely
    crops, boxes_yxyx, kept = [], [], []
    for i, (values, top, left) in enumerate(enlarge(masks, boxes_xyxy, shape)):
        found = tighten(values > threshold, top, left)
        if found is not None:
            crops.append(found[0])
            boxes_yxyx.append(found[1])
            kept.append(i)
    return crops, np.array(boxes_yxyx, np.int64).reshape(-1, 4), np.array(kept, np.int64)


def _enlarge_exactly(masks: Floats, boxes_xyxy: Floats, shape: tuple[int, int]) -> Iterator[tuple[Floats, int, int]]:
    """Probabilities of the pixels with a centre in the box and in the image, their first row and their first column."""
    first = np.maximum(np.ceil(boxes_xyxy[:, :2] - 0.5), 0).astype(np.int64)
    behind = np.minimum(np.ceil(boxes_xyxy[:, 2:] - 0.5), shape[::-1]).astype(np.int64)
    places = np.arange(masks.shape[-1], dtype=np.float32)
    for mask, box, low, high in zip(masks, boxes_xyxy, first.tolist(), behind.tolist(), strict=True):
        if low[0] >= high[0] or low[1] >= high[1]:
            yield NOTHING, 0, 0
            continue
        weights = []
        for axis in (1, 0):
            centres = np.arange(low[axis], high[axis], dtype=np.float32) + np.float32(0.5)
            at = (centres - box[axis]) * (len(places) / (box[2 + axis] - box[axis])) - np.float32(0.5)
            weights.append(np.maximum(1 - np.abs(at.clip(0, len(places) - 1)[:, None] - places), 0))
        yield weights[0] @ mask @ weights[1].T, low[1], low[0]


def _enlarge_widely(masks: Floats, boxes_xyxy: Floats, shape: tuple[int, int]) -> Iterator[tuple[Floats, int, int]]:
    """As ``_enlarge_exactly``, but of all pixels that torchvision fills, with its values."""
    padded = np.pad(masks, [(0, 0), *[(PADDING, PADDING)] * 2])
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    factor = np.float32(padded.shape[-1] / max(1, masks.shape[-1]))
    reach, centre = (high - low) * np.float32(0.5) * factor, (high + low) * np.float32(0.5)
    wide = np.hstack([centre - reach, centre + reach]).astype(np.int64)  # towards 0
    for mask, (x0, y0, x1, y1) in zip(padded, wide.tolist(), strict=True):
        top, left, bottom, right = max(y0, 0), max(x0, 0), min(y1 + 1, shape[0]), min(x1 + 1, shape[1])
        if top >= bottom or left >= right:
            yield NOTHING, 0, 0
            continue
        size = [max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1)]
        grid = torch.from_numpy(mask)[None, None]
        values = F.interpolate(grid, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
        yield values[top - y0 : bottom - y0, left - x0 : right - x0], top, left


def _as_array(value: Any) -> NDArray[Any]:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
