"""Flow following and the grouping of pixels that end at one place."""

import numpy as np

from .compile import kernel

SEED_RADIUS = 2  # a seed is the largest count in a square of this radius (pixels)
SEED_COUNT = 10  # more pixels than this must end at a seed
GROW_STEPS = 5  # a sink may extend this far from its seed (pixels)
GROW_COUNT = 2  # more pixels than this must end at every pixel of a sink
SQUARE = 128  # side of the squares in which pixels are moved: their flow stays in the processor's cache (pixels)
BLOCK = 4096  # pixels that move together; a power of 2
CHECK_STEPS = 8  # steps between two looks at who has arrived; even, because pixels swing around a sink
HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: spreads the bits of a place (Knuth, TAOCP 6.4)


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

    A pixel at the very place where it was ``CHECK_STEPS`` before goes round for ever, and two pixels at one place have
    the same future. Both are noticed on the way, so that of many pixels few steps are computed; the ends are, bit for
    bit, those of all steps.

    Args:
        start: first pixel.
        stop: pixel after the last.
        ys: (N,) int64 rows of the pixels.
        xs: (N,) int64 columns of the pixels.
        pull: (2, H + 2, W + 2) float32, as ``bounded_pull`` fills it.
        n_steps: number of steps.
        tolerance: a pixel that moves no further than this (pixels) in ``CHECK_STEPS`` steps stops; 0 stops none early.
        ends: (2, N) int32, receives the truncated final positions.

    Source: cellpose ``dynamics.steps_interp`` (BSD-3). It samples with ``align_corners=False`` positions that were
        scaled for ``align_corners=True``, hence the scale and the shift by half a pixel in ``_move``, which are kept so
        that both give the same cells.
    """
    y, x = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    old_y, old_x = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    pixels, leaders = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    table = np.empty(2 * BLOCK, np.int32)
    limit = np.float32(tolerance * tolerance)
    for first in range(start, stop, BLOCK):
        used = min(BLOCK, stop - first)
        for k in range(used):
            y[k], x[k] = ys[first + k], xs[first + k]
            pixels[k] = leaders[k] = first + k
        n, steps_left = used, n_steps
        while n > 0 and steps_left > 0:
            steps = (steps_left - 1) % CHECK_STEPS + 1  # from the second round on a whole number of rounds is left
            for k in range(n):  # assigning a slice takes numba seconds to compile
                old_y[k], old_x[k] = y[k], x[k]
            _move(n, steps, pull, y, x)
            steps_left -= steps
            if steps == CHECK_STEPS and steps_left > 0:
                n = _drop_arrived(n, y, x, old_y, old_x, limit, pixels, ends)
                n = _merge_equal(n, y, x, pixels, leaders, first, table)
        for k in range(n):
            ends[0, pixels[k]], ends[1, pixels[k]] = np.int32(y[k]), np.int32(x[k])
        for k in range(used):
            leader = leaders[k]
            while leaders[leader - first] != leader:
                leader = leaders[leader - first]
            ends[0, first + k], ends[1, first + k] = ends[0, leader], ends[1, leader]


@kernel
def _move(n: int, n_steps: int, pull: np.ndarray, y: np.ndarray, x: np.ndarray) -> None:
    """Move the first n places ``y, x`` (float32) by ``n_steps``; all of them step by step, which hides latencies."""
    height, width = pull.shape[1] - 2, pull.shape[2] - 2
    stride = width + 2
    pull_y, pull_x = pull[0].reshape(-1), pull[1].reshape(-1)
    zero, half = np.float32(0), np.float32(0.5)
    last_y, last_x = np.float32(height - 1), np.float32(width - 1)
    scale_y = np.float32(height / (height - 1) if height > 1 else 1.0)
    scale_x = np.float32(width / (width - 1) if width > 1 else 1.0)
    for _ in range(n_steps):
        for k in range(n):
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


@kernel
def _drop_arrived(
    n: int,
    y: np.ndarray,
    x: np.ndarray,
    old_y: np.ndarray,
    old_x: np.ndarray,
    limit: np.float32,
    pixels: np.ndarray,
    ends: np.ndarray,
) -> int:
    """Note the ends of places that moved by the root of ``limit`` at most; keep the others, and return how many."""
    kept = 0
    for k in range(n):
        if (y[k] - old_y[k]) ** 2 + (x[k] - old_x[k]) ** 2 <= limit:
            ends[0, pixels[k]], ends[1, pixels[k]] = np.int32(y[k]), np.int32(x[k])
        else:
            y[kept], x[kept], pixels[kept] = y[k], x[k], pixels[k]
            kept += 1
    return kept


@kernel
def _merge_equal(
    n: int, y: np.ndarray, x: np.ndarray, pixels: np.ndarray, leaders: np.ndarray, first: int, table: np.ndarray
) -> int:
    """Keep one of all places that are equal, the leader of the others' pixels, and return how many there are.

    ``table`` is room for at least 2n int32: a hash table of the places, in it by their bits.
    """
    n_bits = 1
    while 1 << n_bits < 2 * n:
        n_bits += 1
    last = (1 << n_bits) - 1
    for k in range(last + 1):
        table[k] = -1
    bits_y, bits_x = y.view(np.uint32), x.view(np.uint32)
    kept = 0
    for k in range(n):
        key = np.uint64(bits_y[k]) << np.uint64(32) | np.uint64(bits_x[k])
        place = np.int64(key * HASH_FACTOR >> np.uint64(64 - n_bits))
        while table[place] >= 0 and (y[table[place]] != y[k] or x[table[place]] != x[k]):
            place = (place + 1) & last
        if table[place] >= 0:
            leaders[pixels[k] - first] = pixels[table[place]]
        else:
            table[place] = kept
            y[kept], x[kept], pixels[kept] = y[k], x[k], pixels[k]
            kept += 1
    return kept


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
