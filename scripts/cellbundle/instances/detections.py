"""Detections: masks with scores and classes that may overlap, each held on its box only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArrayError
from .overlaps import NO_RUNS, masks_to_labels
from .rle import mask_to_runs, runs_to_rles

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Detections:
    """N masks that may overlap, the best one first.

    Given in any order, they are kept in that of their scores; of equal scores the earlier one comes first.

    Attributes:
        masks: (h, w) bool, the part of each mask in its box.
        boxes_yxyx: (N, 4) int64, half-open y0, x0, y1, x1, tight around the mask and inside the image.
        scores: (N,) float32, higher is better.
        classes: (N,) int64, 1..K.
        shape: (H, W) of the image.

    Raises:
        ArrayError: if shapes, types or numbers do not fit, a score is NaN, or a box is not that of its mask.
    """

    masks: list[Mask]
    boxes_yxyx: NDArray[np.int64]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        n = len(self.masks)
        for name, shape, dtype in (
            ("boxes_yxyx", (n, 4), np.int64),
            ("scores", (n,), np.float32),
            ("classes", (n,), np.int64),
        ):
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                wanted = f"{shape} {np.dtype(dtype)} for {n} masks"
                raise ArrayError(f"{name} must be {wanted}, got shape {array.shape} dtype {array.dtype}")
        if np.isnan(self.scores).any():
            raise ArrayError(f"score {np.isnan(self.scores).argmax()} is NaN; give every mask a number")
        if self.classes.min(initial=1) < 1:
            raise ArrayError(f"classes must be 1 or more, got {self.classes.min()}")
        for i, (mask, box) in enumerate(zip(self.masks, self.boxes_yxyx.tolist(), strict=True)):
            _check_mask(i, mask, box, self.shape)
        order = np.argsort(-self.scores, kind="stable")
        object.__setattr__(self, "masks", [self.masks[i] for i in order])
        for name in ("boxes_yxyx", "scores", "classes"):
            object.__setattr__(self, name, getattr(self, name)[order])

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.masks)

    def select(self, which: Any) -> "Detections":
        """Some of the detections.

        Args:
            which: indices, a bool for each detection, or a slice.
        """
        index = np.arange(len(self))[which]
        masks = [self.masks[i] for i in index]
        return Detections(masks, self.boxes_yxyx[index], self.scores[index], self.classes[index], self.shape)


def to_labels(
    detections: Detections, *, min_score: float, max_overlap: float, min_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Label map in which every pixel belongs to the best of the detections that hold it.

    Args:
        detections: N masks.
        min_score: detections below this are left out.
        max_overlap: see ``cellbundle.instances.overlaps.masks_to_labels``.
        min_size: see ``cellbundle.instances.overlaps.masks_to_labels``.

    Returns:
        (H, W) int32 label map with ids 1..M from the best detection down, and (M,) int64 index of the detection of
        each id.

    Raises:
        ConfigError: if ``max_overlap`` is not a share.
    """
    n = int(np.count_nonzero(detections.scores >= min_score))  # they come first
    return masks_to_labels(
        detections.masks[:n],
        detections.scores[:n],
        detections.shape,
        detections.boxes_yxyx[:n],
        min_size=min_size,
        max_overlap=max_overlap,
    )


def mask_rles(detections: Detections) -> list[str]:
    """COCO's compressed counts of every mask in the whole image, as ``pycocotools.mask.encode`` gives them.

    No mask is ever held in the size of the image.
    """
    height, width = detections.shape
    parts = [NO_RUNS]
    for mask, (y0, x0, _, _) in zip(detections.masks, detections.boxes_yxyx.tolist(), strict=True):
        parts.append(mask_to_runs(mask.T, x0, y0, height))
    offsets = np.cumsum([len(part) for part in parts], dtype=np.int64)
    starts, lengths = np.ascontiguousarray(np.concatenate(parts).T)
    return runs_to_rles(offsets, starts, lengths, height * width, "coco")


def tighten(mask: Mask, top: int, left: int) -> tuple[Mask, tuple[int, int, int, int]] | None:
    """Cut off blank rows and columns.

    Args:
        mask: (h, w) bool.
        top: row of the image that its first row lies on.
        left: column of the image that its first column lies on.

    Returns:
        The part of the mask in its tight box, a view, and that box, half-open y0, x0, y1, x1; None if it is empty.
    """
    rows = np.flatnonzero(mask.any(1))
    if not rows.size:
        return None
    columns = np.flatnonzero(mask.any(0))
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return mask[y0:y1, x0:x1], (top + y0, left + x0, top + y1, left + x1)


def _check_mask(i: int, mask: Mask, box: Sequence[int], shape: tuple[int, int]) -> None:
    y0, x0, y1, x1 = box
    if mask.dtype != np.bool_ or mask.shape != (y1 - y0, x1 - x0):
        raise ArrayError(
            f"mask {i} must be bool of the size of its box {box}, got shape {mask.shape} dtype {mask.dtype}"
        )
    if y0 < 0 or x0 < 0 or y1 > shape[0] or x1 > shape[1]:
        raise ArrayError(f"box {i} is {box}, outside of the image of {shape}; cut mask and box at its edge")
    if not mask.size or not (mask[0].any() and mask[-1].any() and mask[:, 0].any() and mask[:, -1].any()):
        raise ArrayError(f"box {i} is {box}, not tight around its mask; detections.tighten makes it so")
