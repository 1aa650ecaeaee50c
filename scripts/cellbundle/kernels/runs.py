"""Run lengths of all instances in one pass over the map, and their compressed form in COCO files."""

import numpy as np

from .compile import kernel

SQUARE = 16  # side, pixels
COCO_BITS = 5  # of a number in one character
COCO_MORE = 1 << COCO_BITS
COCO_SIGN = 1 << (COCO_BITS - 1)
COCO_FIRST_CHARACTER = 48
COCO_MAX_CHARACTERS = 8  # for numbers below 2³⁹


@kernel
def write_columns(start: int, stop: int, labels: np.ndarray, flat: np.ndarray) -> None:
    """Write columns ``start..stop`` of a (H, W) map one after the other to their places in ``flat`` (W * H,).

    Square by square: going down one column of a large map, every pixel would be fetched from memory anew.
    """
    height = labels.shape[0]
    for left in range(start, stop, SQUARE):
        for top in range(0, height, SQUARE):
            for x in range(left, min(left + SQUARE, stop)):
                for y in range(top, min(top + SQUARE, height)):
                    flat[x * height + y] = labels[y, x]


@kernel
def label_runs(flat: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the runs of every instance.

    Args:
        flat: (P,) int32, ids 0..n; the map row by row or column by column. A run goes on from one line to the next.
        n: largest id.

    Returns:
        (n + 1,) int64 offsets: the runs of id i are ``offsets[i - 1]:offsets[i]``; (R,) int64 starts, 0-based and
        ascending within each id; (R,) int64 lengths.
    """
    offsets = np.zeros(n + 1, np.int64)
    previous = 0
    for value in flat:
        if value != previous and value > 0:
            offsets[value] += 1
        previous = value
    offsets = np.cumsum(offsets)
    starts = np.empty(offsets[n], np.int64)
    lengths = np.empty(offsets[n], np.int64)
    used = offsets[:-1].copy()
    start = 0
    for end in range(1, flat.size + 1):
        if end < flat.size and flat[end] == flat[start]:
            continue
        i = flat[start] - 1
        if i >= 0:
            starts[used[i]], lengths[used[i]] = start, end - start
            used[i] += 1
        start = end
    return offsets, starts, lengths


@kernel
def _put(text: np.ndarray, used: int, number: int) -> int:
    """Write a signed number with 5 bits a character, lowest first, and return the characters used so far."""
    more = True
    while more:
        bits = number & (COCO_MORE - 1)
        number >>= COCO_BITS
        more = number != (-1 if bits & COCO_SIGN else 0)
        text[used] = COCO_FIRST_CHARACTER + (bits | COCO_MORE if more else bits)
        used += 1
    return used


@kernel
def coco_counts(
    offsets: np.ndarray, starts: np.ndarray, lengths: np.ndarray, n_pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compress the runs of every instance as COCO's tools do.

    The numbers are gap, run, gap, run … of the whole image column by column; from the fourth on, each is the
    difference to the second last.

    Args:
        offsets: as ``label_runs`` returns them, of the map column by column.
        starts: as above.
        lengths: as above.
        n_pixels: H * W.

    Returns:
        (T,) uint8 ASCII text of all instances, and (n + 1,) int64 offsets: the text of id i is
        ``text[ends[i - 1]:ends[i]]``.

    Source: layout as in pycocotools, maskApi.c (``rleToString``).
    """
    n = len(offsets) - 1
    text = np.empty(COCO_MAX_CHARACTERS * (2 * len(starts) + n), np.uint8)
    ends = np.zeros(n + 1, np.int64)
    used = 0
    for i in range(n):
        gap, run, position = 0, 0, 0
        for k in range(offsets[i], offsets[i + 1]):
            new_gap = starts[k] - position
            used = _put(text, used, new_gap - (gap if k > offsets[i] + 1 else 0))
            used = _put(text, used, lengths[k] - (run if k > offsets[i] else 0))
            gap, run, position = new_gap, lengths[k], starts[k] + lengths[k]
        if position < n_pixels:
            used = _put(text, used, n_pixels - position - (gap if offsets[i + 1] > offsets[i] + 1 else 0))
        ends[i + 1] = used
    return text[:used], ends


@kernel
def read_coco_text(text: np.ndarray) -> tuple[np.ndarray, int]:
    """Undo the compression of ``coco_counts`` for one instance.

    Args:
        text: (T,) uint8 ASCII.

    Returns:
        (K,) int64 gap, run, gap, run …, and the number of characters that make them: less than T where the text is
        broken. Differences are added up as they stand, so counts may be negative.
    """
    counts = np.empty(len(text), np.int64)
    n, used, number, shift = 0, 0, 0, 0
    for position in range(len(text)):
        bits = text[position] - np.int64(COCO_FIRST_CHARACTER)
        if bits < 0 or bits >= 2 * COCO_MORE or shift >= COCO_BITS * COCO_MAX_CHARACTERS:
            break
        number |= (bits & (COCO_MORE - 1)) << shift
        shift += COCO_BITS
        if bits & COCO_MORE:
            continue
        if bits & COCO_SIGN:
            number -= 1 << shift
        counts[n] = number + (counts[n - 2] if n > 2 else 0)
        n, used, number, shift = n + 1, position + 1, 0, 0
    return counts[:n], used
