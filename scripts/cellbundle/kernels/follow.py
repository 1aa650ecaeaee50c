"""Flow following and the grouping of pixels that end at one place."""

import numpy as np
from numba import njit

SEED_RADIUS = 2  # a seed is the largest count in a square of this radius (pixels)
SEED_COUNT = 10  # more pixels than this must end at a seed
GROW_STEPS = 5  # a sink may extend this far from its seed (pixels)
GROW_COUNT = 2  # more pixels than this must end at every pixel of a sink


@njit(cache=True, nogil=True)
def follow(
    start: int,
    stop: int,
    ys: np.ndarray,
    xs: np.ndarray,
    flows: np.ndarray,
    n_steps: int,
    tolerance: float,
    ends: np.ndarray,
) -> None:
    """Move pixels ``start..stop`` along ``flows`` by Euler steps of one flow length, bilinear in between.

    Args:
        start: first pixel.
        stop: pixel after the last.
        ys: (N,) int64 rows of the pixels.
        xs: (N,) int64 columns of the pixels.
        flows: (2, H, W) float32 in pixels a step, 0 where nothing may pull.
        n_steps: number of steps.
        tolerance: a pixel that moves less than this in one step (pixels) stops; 0 never stops early.
        ends: (2, N) int32, receives the truncated final positions.

    Source: cellpose ``dynamics.steps_interp`` (BSD-3). It samples with ``align_corners=False`` positions that were
        scaled for
    ``align_corners=True``, hence the scale and the shift by half a pixel, which are kept so that both give the same
    cells.
    """
    height, width = flows.shape[1:]
    scale_y = height / (height - 1) if height > 1 else 1.0
    scale_x = width / (width - 1) if width > 1 else 1.0
    limit = tolerance * tolerance
    for i in range(start, stop):
        y, x = float(ys[i]), float(xs[i])
        for _ in range(n_steps):
            v, u = y * scale_y - 0.5, x * scale_x - 0.5
            y0, x0 = int(np.floor(v)), int(np.floor(u))
            fy, fx = v - y0, u - x0
            dy, dx = 0.0, 0.0
            for k in range(4):
                a, b = y0 + k // 2, x0 + k % 2
                if 0 <= a < height and 0 <= b < width:
                    weight = (fy if k // 2 else 1.0 - fy) * (fx if k % 2 else 1.0 - fx)
                    dy += weight * flows[0, a, b]
                    dx += weight * flows[1, a, b]
            new_y = min(max(y + dy, 0.0), height - 1.0)
            new_x = min(max(x + dx, 0.0), width - 1.0)
            moved = (new_y - y) ** 2 + (new_x - x) ** 2
            y, x = new_y, new_x
            if moved <= limit:
                break
        ends[0, i] = int(y)
        ends[1, i] = int(x)


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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
