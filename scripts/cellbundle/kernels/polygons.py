"""Exact outlines of all instances: the edges between a pixel of an instance and anything else, joined to rings.

A ring runs along pixel edges with its instance on the right hand of someone who walks on the screen, so in (x, y) its
signed area is positive around pixels and negative around a hole. Pixels that touch in a corner only count as apart, in
an instance and in its holes alike: where a ring comes back to a corner, it is cut into two.

The map is read once, for the corners. Along a row of the grid, the corners of an instance are by turns the left and the
right end of an edge, so in row order 2k and 2k + 1 belong together; upper and lower ends of the vertical edges are
joined afterwards. Everything else takes time in proportion to the corners, however large or scattered an instance.
"""

import numpy as np

from .compile import kernel
from .geometry import mark_outside

X, Y, ID, VERTICAL = 0, 1, 2, 3  # columns of the corners
PART, PLACE = 0, 1  # columns of their marks
UPPER, ON_RIGHT = 1, 2  # bits of an end of a vertical edge
MAX_PER_POINT = 4  # corners at one point, of four instances


@kernel
def find_corners(start: int, stop: int, labels: np.ndarray) -> np.ndarray:
    """Find the corners of all outlines between the rows of pixels ``y - 1`` and ``y``, for y in ``start..stop``.

    Args:
        start: first y.
        stop: y after the last, at most H + 1.
        labels: (H, W) int32, C-contiguous, ids >= 0.

    Returns:
        (P, 4) int32 rows x, y, id, and what ``join_edges`` must know of the vertical edge: ``UPPER`` for its upper end,
        plus ``ON_RIGHT`` if the instance is on its right; by y and then x. Where two pixels of an instance touch
        diagonally there are two rows; the first one belongs to the edge on the left.
    """
    height, width = labels.shape
    row_capacity = MAX_PER_POINT * (width + 1)
    corners = np.empty((row_capacity, 4), np.int32)
    blank = np.zeros(width, np.int32)
    marks = np.zeros((width + 7) // 8 * 8, np.uint8)
    n = 0
    for y in range(start, stop):
        if n + row_capacity > len(corners):
            grown = np.empty((2 * len(corners) + row_capacity, 4), np.int32)
            for k in range(n):  # assigning the slice takes numba seconds to compile
                for column in range(4):
                    grown[k, column] = corners[k, column]
            corners = grown
        above = labels[y - 1] if y > 0 else blank
        below = labels[y] if y < height else blank
        n = _scan_row(above, below, y, marks, corners, n)
    return corners[:n]


@kernel
def _scan_row(above: np.ndarray, below: np.ndarray, y: int, marks: np.ndarray, corners: np.ndarray, n: int) -> int:
    """Add the corners between two rows of pixels; return the new number.

    ``marks`` is room for W - 1 bytes, and zeros behind them up to a multiple of 8.
    """
    width = len(above)
    if width == 0:
        return n
    n = _add_corners(corners, n, 0, y, 0, above[0], 0, below[0])
    # Corners are rare, so vector instructions mark them, and eight marks are looked at together.
    above_left, above_right, below_left, below_right = above[:-1], above[1:], below[:-1], below[1:]
    for k in range(width - 1):
        a, b, c, d = above_left[k], above_right[k], below_left[k], below_right[k]
        marks[k] = ((a != b) | (c != d)) & ((a != c) | (b != d))
    eights = marks.view(np.uint64)
    for i in range((width + 6) // 8):
        if eights[i] != 0:
            for k in range(8 * i, 8 * i + 8):
                if marks[k]:
                    n = _add_corners(corners, n, k + 1, y, above[k], above[k + 1], below[k], below[k + 1])
    return _add_corners(corners, n, width, y, above[width - 1], 0, below[width - 1], 0)


@kernel
def _add_corners(corners: np.ndarray, n: int, x: int, y: int, a: int, b: int, c: int, d: int) -> int:
    """Add the corners at one point between the pixels ``a b`` above and ``c d`` below; return the new number."""
    if (a == b and c == d) or (a == c and b == d):
        return n
    if a > 0 and a != b and a != c:  # noqa: PLR1714  (a tuple is slow here)
        n = _add(corners, n, x, y, a, 0)
    if c > 0 and c != a and c != d:  # noqa: PLR1714
        n = _add(corners, n, x, y, c, UPPER)
    if b > 0 and b != a and b != d:  # noqa: PLR1714
        n = _add(corners, n, x, y, b, ON_RIGHT)
    if d > 0 and d != b and d != c:  # noqa: PLR1714
        n = _add(corners, n, x, y, d, ON_RIGHT | UPPER)
    # Three of a kind have their corner at the fourth pixel.
    if a == b and a == c and a > 0:
        n = _add(corners, n, x, y, a, UPPER)
    elif a == b and a == d and a > 0:
        n = _add(corners, n, x, y, a, ON_RIGHT | UPPER)
    elif a == c and a == d and a > 0:
        n = _add(corners, n, x, y, a, 0)
    elif b == c and b == d and b > 0:
        n = _add(corners, n, x, y, b, ON_RIGHT)
    return n


@kernel
def _add(corners: np.ndarray, n: int, x: int, y: int, label: int, end: int) -> int:
    """Add one corner, an end of a vertical edge."""
    corners[n, X], corners[n, Y], corners[n, ID], corners[n, VERTICAL] = x, y, label, end
    return n + 1


@kernel
def join_edges(corners: np.ndarray, width: int) -> None:
    """Put the row of the other end of its vertical edge in the last column of each corner, in place.

    Args:
        corners: (P, 4) as ``find_corners`` returns them, of all rows.
        width: of the map, pixels.
    """
    # Upper ends of the edges that are open at each x: of the instance on the left of the edge, on the right.
    left, right = np.empty(width + 1, np.int32), np.empty(width + 1, np.int32)
    for k in range(len(corners)):
        x, end = corners[k, X], corners[k, VERTICAL]
        open_edges = right if end & ON_RIGHT else left
        if end & UPPER:
            open_edges[x] = k
        else:
            corners[k, VERTICAL] = open_edges[x]
            corners[open_edges[x], VERTICAL] = k


@kernel
def group_corners(corners: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort corners by id, keeping their order within each.

    Args:
        corners: (P, 4) as ``join_edges`` leaves them.
        n: largest id.

    Returns:
        The sorted rows, with vertical partners as rows of the result, and (n + 1,) int64 offsets: id i has the rows
        ``offsets[i - 1]:offsets[i]``.
    """
    offsets = np.zeros(n + 1, np.int64)
    for k in range(len(corners)):
        offsets[corners[k, ID]] += 1
    offsets = np.cumsum(offsets)
    used = offsets[:-1].copy()
    place = np.empty(len(corners), np.int32)
    for k in range(len(corners)):
        i = corners[k, ID] - 1
        place[k] = used[i]
        used[i] += 1
    grouped = np.empty_like(corners)
    for k in range(len(corners)):
        at = place[k]
        grouped[at, X], grouped[at, Y] = corners[k, X], corners[k, Y]
        grouped[at, ID], grouped[at, VERTICAL] = corners[k, ID], place[corners[k, VERTICAL]]
    return grouped, offsets


@kernel
def trace_outlines(
    start: int,
    stop: int,
    labels: np.ndarray,
    corners: np.ndarray,
    offsets: np.ndarray,
    marks: np.ndarray,
    points: np.ndarray,
    loops: np.ndarray,
    n_loops: np.ndarray,
) -> None:
    """Join the corners of the instances ``start + 1 .. stop`` to loops that meet no point twice.

    Args:
        start: index of the first instance.
        stop: index behind the last one.
        labels: (H, W) int32, ids 0..n.
        corners: (P, 4) as ``group_corners`` returns them.
        offsets: (n + 1,) as above. Instance i gets ``points[offsets[i]:offsets[i + 1]]``, and the rows from
            ``offsets[i] // 4`` of ``loops``: a loop has at least 4 corners.
        marks: (P, 2) int32, all -1; receives the part that each corner belongs to, and a place in ``points``.
        points: (P, 2) int32, receives corners (x, y), each loop in one piece.
        loops: (P // 4, 4) int32, receives first point, number of points, part (0, 1 … in the order of their top:
            4-connected components), and 1 for a hole.
        n_loops: (n,) int32, receives the number of loops.
    """
    for i in range(start, stop):
        first, last = offsets[i], offsets[i + 1]
        base, tail, n_parts = first, last, 0
        own = loops[first // 4 : last // 4]
        for k in range(first, last):
            if marks[k, PART] >= 0:
                continue
            # The first corner of a ring in row order is the left end of its top edge.
            x, y = corners[k, X], corners[k, Y]
            is_hole = not _inside(labels, i + 1, y, x)
            part = _part_above(labels, corners, marks, first, k) if is_hole else n_parts
            n_parts += not is_hole
            ring = (k + is_hole, part, first, last)
            base, tail, n_loops[i] = _join_ring(corners, ring, marks, points, base, tail, own, n_loops[i])


@kernel
def _inside(labels: np.ndarray, label: int, y: int, x: int) -> bool:
    return 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1] and labels[y, x] == label


@kernel
def _part_above(labels: np.ndarray, corners: np.ndarray, marks: np.ndarray, first: int, k: int) -> int:
    """The part around a hole with its top edge from corner k: that of the edge over the column of pixels above."""
    x, y = corners[k, X], corners[k, Y] - 1
    while _inside(labels, corners[k, ID], y - 1, x):
        y -= 1
    last = k
    while last - first > 1:  # the last corner of the instance that is not behind (y, x)
        middle = (first + last) // 2
        if (corners[middle, Y], corners[middle, X]) <= (y, x):
            first = middle
        else:
            last = middle
    return marks[first, PART]


@kernel
def _join_ring(
    corners: np.ndarray,
    ring: tuple[int, int, int, int],
    marks: np.ndarray,
    points: np.ndarray,
    base: int,
    tail: int,
    loops: np.ndarray,
    n_loops: int,
) -> tuple[int, int, int]:
    """Follow one ring from its first corner, along the horizontal edge, and cut it into loops.

    ``ring`` is the first corner, the part, and the range of the corners of the instance. Corners of the open loop pile
    up at ``points[base]``; loops that are cut off go to the end of the free space.

    Returns:
        New base, tail and number of loops.
    """
    start, part, first, last = ring
    top, k, horizontal = base, start, True
    while k != start or (horizontal and top == base):
        x, y = corners[k, X], corners[k, Y]
        marks[k, PART] = part
        twin = k + 1 if k % 2 else k - 1  # the other corner at this point, if there is one
        at = marks[twin, PLACE] if first <= twin < last else 0
        if base <= at < top and points[at, 0] == x and points[at, 1] == y:
            shift = tail - top
            for j in range(top - 1, at - 1, -1):
                points[j + shift, 0], points[j + shift, 1] = points[j, 0], points[j, 1]
            n_loops = _add_loop(points, at + shift, tail, part, loops, n_loops)
            tail, top = at + shift, at + 1
        else:
            points[top, 0], points[top, 1] = x, y
            marks[k, PLACE] = top
            top += 1
        k = k ^ 1 if horizontal else corners[k, VERTICAL]
        horizontal = not horizontal
    return top, tail, _add_loop(points, base, top, part, loops, n_loops)


@kernel
def _add_loop(points: np.ndarray, first: int, stop: int, part: int, loops: np.ndarray, n_loops: int) -> int:
    """Note the loop ``points[first:stop]``, and return the new number of loops."""
    area, previous = 0, stop - 1
    for k in range(first, stop):
        area += (points[previous, 0] - points[k, 0]) * np.int64(points[k, 1])  # only horizontal edges count
        previous = k
    loops[n_loops, 0], loops[n_loops, 1], loops[n_loops, 2], loops[n_loops, 3] = first, stop - first, part, area < 0
    return n_loops + 1


@kernel
def mark_outer_pixels(start: int, stop: int, labels: np.ndarray, boxes: np.ndarray, marked: np.ndarray) -> None:
    """Mark the pixels of an instance that have an edge on the outside; edges of holes do not count.

    Args:
        start: index of the first instance.
        stop: index behind the last one.
        labels: (H, W) int32, ids 0..n.
        boxes: (n, 4) half-open boxes (y0, x0, y1, x1); all zero for an absent id.
        marked: (H, W) bool, changed in place.
    """
    for i in range(start, stop):
        y0, x0, y1, x1 = boxes[i]
        height, width = y1 - y0, x1 - x0
        outside = np.zeros((height + 2, width + 2), np.bool_)
        mark_outside(labels[y0:y1, x0:x1], i + 1, outside, np.empty((height + 2) * (width + 2), np.int64))
        for y in range(height):
            for x in range(width):
                if labels[y0 + y, x0 + x] == i + 1:
                    rows = outside[y, x + 1] or outside[y + 2, x + 1]
                    marked[y0 + y, x0 + x] = rows or outside[y + 1, x] or outside[y + 1, x + 2]
