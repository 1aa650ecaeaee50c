"""Label maps to what two-stage detectors learn from: boxes, classes, and masks on their boxes."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from ..errors import ArrayError
from ..instances.labels import check_labels, renumber
from ..kernels.geometry import boxes_and_areas

DEFAULT_CLASS = 1


class InstanceTargets(TypedDict):
    """Targets of one image with N instances; see ``instance_targets``."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: NDArray[np.uint8]


def instance_targets(
    labels: NDArray[np.integer], classes: NDArray[np.integer] | None = None, min_size: int = 1
) -> InstanceTargets:
    """Boxes, classes and masks of all instances of a label map.

    Boxes come from the pixels, so they fit whatever augmentation left of an instance, and none is empty.

    Args:
        labels: (H, W) integers, 0 background, any ids.
        classes: (H, W) integers, class 1..K of each pixel of an instance, of which its first pixel is asked; None: all
            instances have the class 1.
        min_size: instances with fewer pixels are left out, such as slivers that a crop leaves.

    Returns:
        ``boxes`` (N, 4) float32: x0, y0, x1, y1 in pixels, half-open, so that one pixel is a box of 1 x 1. ``labels``
        (N,) int64 classes. ``masks`` (N, S, S) uint8, S the longest side of a box + 2: the pixels of an instance, from
        one row above and one column left of its box on. What is not in its box is 0, but where the box ends at the
        border of the image, the pixels at the border are repeated once.

    Raises:
        ArrayError: if a map is not 2-D integer or has negative ids, the shapes differ, or an instance has no class.
    """
    check_labels(labels)
    numbered, n = renumber(labels)
    boxes_yxyx, areas = boxes_and_areas(numbered, n)
    kept = np.flatnonzero(areas >= max(1, min_size))
    boxes_yxyx = boxes_yxyx[kept]
    found = _classes(numbered, classes, n)[kept]
    side = int((boxes_yxyx[:, 2:] - boxes_yxyx[:, :2]).max(initial=0)) + 2
    masks = np.zeros((len(kept), side, side), np.uint8)
    around = np.pad(numbered, 1, mode="edge")
    for mask, index, (y0, x0, y1, x1) in zip(masks, kept, boxes_yxyx.tolist(), strict=True):
        mask[: y1 - y0 + 2, : x1 - x0 + 2] = around[y0 : y1 + 2, x0 : x1 + 2] == index + 1
    return {"boxes": boxes_yxyx[:, [1, 0, 3, 2]].astype(np.float32), "labels": found, "masks": masks}


def _classes(numbered: NDArray[np.int32], classes: NDArray[np.integer] | None, n: int) -> NDArray[np.int64]:
    """(n,) class of each instance."""
    if classes is None:
        return np.full(n, DEFAULT_CLASS, np.int64)
    if classes.shape != numbered.shape or classes.dtype.kind not in "iu":
        raise ArrayError(
            f"classes must be integers of shape {numbered.shape}, got shape {classes.shape} dtype {classes.dtype}"
        )
    of_id = np.zeros(n + 1, np.int64)
    of_id[numbered.reshape(-1)[::-1]] = classes.reshape(-1)[::-1]  # the last that is written is the first pixel
    found = of_id[1:]
    if (found < 1).any():
        raise ArrayError(f"instance {int(np.argmax(found < 1)) + 1} has no class; give every instance one of 1..K")
    return found
