"""Flow following and the grouping of pixels that end at one place."""

import numpy as np

from .compile import kernel

SEED_RADIUS = 2  # a seed is the largest count in a square of this radius (pixels)
SEED_COUNT = 10  # more pixels than this must end at a seed
GROW_STEPS = 5  # a sink may extend this far from its seed (pixels)
GROW_COUNT = 2  # more pixels than this must end at every pixel of a sink
SQUARE = 128  # side of the squares in which pixels are moved: their flow stays in the processor's cache (pixels)
LANES = 16  # pixels that move together, so that the compiler can use vector instructions
CHECK_STEPS = 8  # steps between two looks at who has arrived; even, because pixels swing around a sink


@kernel
def list_cells(cells: np.ndarray, ys: np.ndarray, xs: np.ndarray) -> None:
    """Coordinates of all cell pixels, square by square: pixels that follow each other read the same part of the flow.

    Args:
        cells: (H, W) bool, N of them True.
        ys: (N,) int64, receives the rows.
        xs: (N,) int64, receives the columns.
    """
    height, width = cells.shape
    n = 0
    for top in range(0, height, SQUARE):
        for left in range(0, width, SQUARE):
            for y in range(top, min(top + SQUARE, height)):
                for x in range(left, min(left + SQUARE, width)):
                    if cells[y, x]:
                        ys[n], xs[n] = y, x
                        n += 1


@kernel
def bounded_pull(start: int, stop: int, flows: np.ndarray, cells: np.ndarray, scale: float, pull: np.ndarray) -> None:
    """The flow of rows ``start..stop`` in pixels a step: 0 outside of cells and where it is not finite.

    Steps are at most as long as the image, so that no sum of them can overflow.

    Args:
        start: first row.
        stop: row after the last.
        flows: (2, H, W) floating.
        cells: (H, W) bool.
        scale: flow of one pixel a step.
        pull: (2, H + 2, W + 2) float32 zeros, receives the flow inside a border of one pixel.
    """
    height, width = cells.shape
    longest = np.float32(height + width)
    for y in range(start, stop):
        for x in range(width):
            if cells[y, x] and np.isfinite(flows[0, y, x]) and np.isfinite(flows[1, y, x]):
                for c in range(2):
                    pull[c, y + 1, x + 1] = min(max(np.float32(flows[c, y, x] / scale), -longest), longest)


@kernel
def count_ends(ends: np.ndarray, counts: np.ndarray) -> None:
    """Add to ``counts`` (H, W) int32 the pixels that end at each place, ``ends`` (2, N)."""
    for i in range(ends.shape[1]):
        counts[ends[0, i], ends[1, i]] += 1


@kernel
def follow(
    start: int,
    stop: int,
    ys: np.ndarray,
    xs: np.ndarray,
    pull: np.ndarray,
    n_steps: int,
    tolerance: float,
    ends: np.ndarray,
) -> None:
    """Move pixels ``start..stop`` along ``pull`` by Euler steps of one flow length, bilinear in between.

    Args:
        start: first pixel.
        stop: pixel after the last.
        ys: (N,) int64 rows of the pixels.
        xs: (N,) int64 columns of the pixels.
        pull: (2, H + 2, W + 2) float32, as ``bounded_pull`` fills it.
        n_steps: number of steps.
        tolerance: pixels that all move less than this (pixels) in ``CHECK_STEPS`` steps stop; 0 never stops early.
        ends: (2, N) int32, receives the truncated final positions.

    Source: cellpose ``dynamics.steps_interp`` (BSD-3). It samples with ``align_corners=False`` positions that were
        scaled for ``align_corners=True``, hence the scale and the shift by half a pixel, which are kept so that both
        give the same cells.
    """
    height, width = pull.shape[1] - 2, pull.shape[2] - 2
    stride = width + 2
    pull_y, pull_x = pull[0].reshape(-1), pull[1].reshape(-1)
    zero, half = np.float32(0), np.float32(0.5)
    last_y, last_x = np.float32(height - 1), np.float32(width - 1)
    scale_y = np.float32(height / (height - 1) if height > 1 else 1.0)
    scale_x = np.float32(width / (width - 1) if width > 1 else 1.0)
    limit = np.float32(tolerance * tolerance)
    y, x = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    old_y, old_x = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    for first in range(start, stop, LANES):
        used = min(LANES, stop - first)
        for k in range(LANES):  # the last group repeats a pixel
            y[k], x[k] = ys[first + min(k, used - 1)], xs[first + min(k, used - 1)]
            old_y[k], old_x[k] = y[k], x[k]
        for step in range(n_steps):
            for k in range(LANES):
                v, u = y[k] * scale_y + half, x[k] * scale_x + half  # from the corner of the border
                row, column = np.int64(v), np.int64(u)
                fy, fx = v - np.float32(row), u - np.float32(column)
                i = row * stride + column
                j = i + stride
                above_y = pull_y[i] + fx * (pull_y[i + 1] - pull_y[i])
                below_y = pull_y[j] + fx * (pull_y[j + 1] - pull_y[j])
                above_x = pull_x[i] + fx * (pull_x[i + 1] - pull_x[i])
                below_x = pull_x[j] + fx * (pull_x[j + 1] - pull_x[j])
                y[k] = min(max(y[k] + above_y + fy * (below_y - above_y), zero), last_y)
                x[k] = min(max(x[k] + above_x + fy * (below_x - above_x), zero), last_x)
            if tolerance > 0 and step % CHECK_STEPS == CHECK_STEPS - 1:
                farthest = zero
                for k in range(LANES):
                    farthest = max(farthest, (y[k] - old_y[k]) ** 2 + (x[k] - old_x[k]) ** 2)
                    old_y[k], old_x[k] = y[k], x[k]
                if farthest <= limit:
                    break
        for k in range(used):
            ends[0, first + k], ends[1, first + k] = np.int32(y[k]), np.int32(x[k])


@kernel
def find_seeds(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Local maxima of the histogram of end points.

    Args:
        counts: (H, W) int32, pixels that end at each place.

    Returns:
        Two (K,) int64 arrays: flat index and count of every seed, in raster order.
    """
    height, width = counts.shape
    where, size = [], []
    for y in range(height):
        for x in range(width):
            count = counts[y, x]
            if count <= SEED_COUNT:
                continue
            window = counts[
                max(0, y - SEED_RADIUS) : y + SEED_RADIUS + 1, max(0, x - SEED_RADIUS) : x + SEED_RADIUS + 1
            ]
            if count >= window.max():
                where.append(y * width + x)
                size.append(count)
    return np.array(where, dtype=np.int64), np.array(size, dtype=np.int64)


@kernel
def grow_sinks(counts: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Extend each seed over its neighbourhood of well-filled end points; later seeds win.

    Args:
        counts: (H, W) int32 histogram of end points.
        seeds: (K,) int64 flat indices, smallest count first.

    Returns:
        (H, W) int32, 0 or 1 + index of the seed whose sink the pixel belongs to.

    Source: the 5 constrained dilations in an 11x11 window of cellpose ``dynamics.get_masks_torch`` (BSD-3).
    """
    height, width = counts.shape
    side = 2 * GROW_STEPS + 1
    sinks = np.zeros((height, width), np.int32)
    for k in range(seeds.shape[0]):
        sy, sx = seeds[k] // width - GROW_STEPS, seeds[k] % width - GROW_STEPS
        reached = np.zeros((side + 2, side + 2), np.bool_)
        reached[GROW_STEPS + 1, GROW_STEPS + 1] = True
        for step in range(1, GROW_STEPS + 1):
            before = reached.copy()
            low, high = GROW_STEPS - step, GROW_STEPS + step + 1
            for y in range(low, high):
                for x in range(low, high):
                    v, u = sy + y, sx + x
                    if v < 0 or u < 0 or v >= height or u >= width or counts[v, u] <= GROW_COUNT:
                        continue
                    reached[y + 1, x + 1] = before[y : y + 3, x : x + 3].any()
        for y in range(side):
            for x in range(side):
                if reached[y + 1, x + 1]:
                    sinks[sy + y, sx + x] = k + 1
    return sinks
