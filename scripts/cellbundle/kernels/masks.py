"""Masks as runs of pixels: found in arrays, checked, and painted best first."""

import numpy as np

from .compile import kernel

START, LENGTH = 0, 1  # columns of runs
FIRST_RUNS = 64  # that there is space for at first
BLOCK = 128  # pixels that are skipped at once where all are 0; a fixed number, so that the loop uses vectors


@kernel
def _is_blank(row: np.ndarray, x: int) -> bool:
    """Whether a whole block from ``x`` on is 0."""
    block = row[x : x + BLOCK]
    found = np.uint8(0)
    for k in range(BLOCK):
        found |= block[k]
    return found == 0


@kernel
def next_inside(row: np.ndarray, x: int) -> int:
    """The first pixel from ``x`` on that is not 0, or the length of the row, (n,) uint8."""
    width = len(row)
    while x + BLOCK <= width and _is_blank(row, x):
        x += BLOCK
    while x < width and row[x] == 0:
        x += 1
    return x


@kernel
def add_runs(row: np.ndarray, first: int, runs: np.ndarray, n: int) -> tuple[np.ndarray, int]:
    """Add the runs of a row of a mask to the first ``n`` of ``runs``.

    Args:
        row: (w,) uint8; every value but 0 is inside.
        first: index of its first pixel in the flat image.
        runs: (R, 2) int64 with space for more, or a larger copy is made.
        n: number of runs so far.

    Returns:
        The runs and their number.
    """
    width = len(row)
    x = next_inside(row, 0)
    while x < width:
        if n == len(runs):
            grown = np.empty((2 * n, 2), np.int64)
            for k in range(n):  # assigning a slice takes numba seconds to compile
                grown[k, START], grown[k, LENGTH] = runs[k, START], runs[k, LENGTH]
            runs = grown
        start = x
        while x < width and row[x] != 0:
            x += 1
        runs[n, START], runs[n, LENGTH] = first + start, x - start
        n += 1
        x = next_inside(row, x)
    return runs, n


@kernel
def mask_runs(mask: np.ndarray, first: int, step: int) -> np.ndarray:
    """Find the runs of a mask, row by row; none goes on in the next row.

    Args:
        mask: (h, w) uint8, C-contiguous; every value but 0 is inside.
        first: index of its first pixel in the flat image.
        step: from one row of it to the next in the flat image.

    Returns:
        (R, 2) int64 start and length in the flat image, ascending.
    """
    n = 0
    runs = np.empty((FIRST_RUNS, 2), np.int64)
    for y in range(mask.shape[0]):
        runs, n = add_runs(mask[y], first + y * step, runs, n)
    return runs[:n].copy()  # the free space would stay as long as the runs


@kernel
def find_broken_run(runs: np.ndarray, n_pixels: int) -> int:
    """Index of the first run that is negative, starts before the end of the last one or leaves the image; -1 if none.

    Args:
        runs: (R, 2) int64 start and length.
        n_pixels: of the image.
    """
    end = 0
    for k in range(len(runs)):
        start, length = runs[k, START], runs[k, LENGTH]
        if start < end or length < 0 or start > n_pixels or length > n_pixels - start:
            return k
        end = start + length
    return -1


@kernel
def give_free_pixels(
    order: np.ndarray, offsets: np.ndarray, runs: np.ndarray, min_size: int, max_overlap: float, flat: np.ndarray
) -> np.ndarray:
    """Give each mask in turn the pixels that are still free.

    Args:
        order: (N,) int64 indices of the masks, the best one first.
        offsets: (N + 1,) int64: mask i has ``runs[offsets[i]:offsets[i + 1]]``.
        runs: (R, 2) int64 start and length; inside of the image, not checked.
        min_size: a mask that finds fewer free pixels gets none; at least 1.
        max_overlap: a mask that finds more than this share of its pixels taken gets none.
        flat: (P,) int32 zeros; receives 1, 2 … in the order of the masks that get pixels.

    Returns:
        (M,) int64 indices of these masks.
    """
    kept = np.empty(len(order), np.int64)
    n = 0
    for i in order:
        area, free = 0, 0
        for k in range(offsets[i], offsets[i + 1]):
            area += runs[k, LENGTH]
            for value in flat[runs[k, START] : runs[k, START] + runs[k, LENGTH]]:
                free += value == 0
        if free < min_size or (area - free) / area > max_overlap:
            continue
        kept[n] = i
        n += 1
        for k in range(offsets[i], offsets[i + 1]):
            for p in range(runs[k, START], runs[k, START] + runs[k, LENGTH]):
                if flat[p] == 0:
                    flat[p] = n
    return kept[:n]
