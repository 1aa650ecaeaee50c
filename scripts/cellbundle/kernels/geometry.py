"""One-pass work on label maps: ids, boxes, areas, centres, enclosed holes."""

import numpy as np

from .compile import kernel


@kernel
def mark_present(labels: np.ndarray, present: np.ndarray) -> None:
    """Set ``present`` (n + 1,) bool at every id of a flat int32 map, ids 0..n."""
    for i in labels:
        present[i] = True


@kernel
def rename(start: int, stop: int, labels: np.ndarray, names: np.ndarray, renamed: np.ndarray) -> None:
    """Write ``names[id]`` of pixels ``start..stop``; all three flat int32, ids within ``names``."""
    for k in range(start, stop):
        renamed[k] = names[labels[k]]


@kernel
def boxes_and_areas(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Bounding box and pixel count of every instance.

    Args:
        labels: (H, W) int32, ids 0..n.
        n: largest id.

    Returns:
        (n, 4) int64 half-open boxes (y0, x0, y1, x1), all zero for an absent id, and (n,) int64 areas.
    """
    height, width = labels.shape
    boxes_yxyx = np.zeros((n, 4), np.int64)
    areas = np.zeros(n, np.int64)
    for y in range(height):
        for x in range(width):
            i = labels[y, x] - 1
            if i < 0:
                continue
            if areas[i] == 0:
                boxes_yxyx[i, 0], boxes_yxyx[i, 1], boxes_yxyx[i, 2], boxes_yxyx[i, 3] = y, x, y + 1, x + 1
            else:
                boxes_yxyx[i, 1] = min(boxes_yxyx[i, 1], x)
                boxes_yxyx[i, 2] = y + 1
                boxes_yxyx[i, 3] = max(boxes_yxyx[i, 3], x + 1)
            areas[i] += 1
    return boxes_yxyx, areas


@kernel
def centre_pixel(window: np.ndarray, label: int) -> tuple[int, int]:
    """The pixel of an instance at its rounded centre of mass, or the nearest one when that lies outside.

    Source: the rule of cellpose 4 ``dynamics.center_of_mass`` (BSD-3): round half to even, first of equal distances.
    """
    count, sum_y, sum_x = 0, 0, 0
    for y in range(window.shape[0]):
        for x in range(window.shape[1]):
            if window[y, x] == label:
                count += 1
                sum_y += y
                sum_x += x
    cy, cx = int(np.round(sum_y / count)), int(np.round(sum_x / count))
    if window[cy, cx] == label:
        return cy, cx
    best, by, bx = window.size**2, cy, cx
    for y in range(window.shape[0]):
        for x in range(window.shape[1]):
            distance = (y - cy) ** 2 + (x - cx) ** 2
            if window[y, x] == label and distance < best:
                best, by, bx = distance, y, x
    return by, bx


@kernel
def mark_outside(window: np.ndarray, label: int, outside: np.ndarray, stack: np.ndarray) -> None:
    """Mark all pixels that a 4-connected walk from the padded border reaches without crossing ``label``."""
    height, width = outside.shape
    outside[0, 0] = True
    stack[0] = 0
    top = 1
    while top > 0:
        top -= 1
        y, x = stack[top] // width, stack[top] % width
        for k in range(4):
            v, u = y + (k == 0) - (k == 1), x + (k == 2) - (k == 3)
            if v < 0 or u < 0 or v >= height or u >= width or outside[v, u]:
                continue
            inner = 1 <= v < height - 1 and 1 <= u < width - 1
            if inner and window[v - 1, u - 1] == label:
                continue
            outside[v, u] = True
            stack[top] = v * width + u
            top += 1


@kernel
def fill_holes(labels: np.ndarray, boxes_yxyx: np.ndarray) -> None:
    """Give background pixels that one instance encloses to that instance, in place.

    Instances inside a hole keep their pixels (cellpose's ``fill_holes_and_remove_small_masks`` overwrites them).

    Args:
        labels: (H, W) int32, ids 0..n; changed in place.
        boxes_yxyx: (n, 4) half-open boxes (y0, x0, y1, x1); all zero for an absent id.
    """
    sizes = (boxes_yxyx[:, 2] - boxes_yxyx[:, 0]) * (boxes_yxyx[:, 3] - boxes_yxyx[:, 1])
    for i in np.argsort(sizes, kind="mergesort"):  # a cell in a hole has a smaller box: its own holes come first
        y0, x0, y1, x1 = boxes_yxyx[i]
        height, width = y1 - y0, x1 - x0
        if height < 3 or width < 3:
            continue
        window = labels[y0:y1, x0:x1]
        outside = np.zeros((height + 2, width + 2), np.bool_)
        mark_outside(window, i + 1, outside, np.empty((height + 2) * (width + 2), np.int64))
        for y in range(height):
            for x in range(width):
                if window[y, x] == 0 and not outside[y + 1, x + 1]:
                    window[y, x] = i + 1
