"""Connected components, holes of masks, opening by a disc, and the flooding of one component from several markers.

Components and holes are found from the runs of pixels in the rows, which are few.
"""

from heapq import heappop, heappush

import numpy as np

from .compile import kernel

AGE_BITS = 32  # of the keys of the flooding; the level is above them
AGE_MASK = (1 << AGE_BITS) - 1
HIGHEST = 0x7FFFFFFF  # int32


@kernel
def _find_row_runs(labels: np.ndarray, inside: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the runs of pixels of one value in every row.

    Args:
        labels: (H, W) integers.
        inside: whether to find the runs of all values but 0, else those of 0.

    Returns:
        (H + 1,) int64 offsets: the runs of row y are ``offsets[y]:offsets[y + 1]``; (R,) int64 first pixels and (R,)
        int64 ends.
    """
    height, width = labels.shape
    starts, ends = np.empty(width, np.int64), np.empty(width, np.int64)
    offsets = np.zeros(height + 1, np.int64)
    n = 0
    for y in range(height):
        if n + width > starts.size:
            starts, ends = np.concatenate((starts, starts, starts)), np.concatenate((ends, ends, ends))
        row = labels[y]
        previous = row[0] if width else 0
        in_run = width > 0 and (previous != 0) == inside
        if in_run:
            starts[n] = 0
        for x in range(1, width):
            value = row[x]
            if value != previous:
                if in_run:
                    ends[n] = x
                    n += 1
                in_run = (value != 0) == inside
                if in_run:
                    starts[n] = x
                previous = value
        if in_run:
            ends[n] = width
            n += 1
        offsets[y + 1] = n
    return offsets, starts[:n], ends[:n]


@kernel
def _root(parents: np.ndarray, run: int) -> int:
    """First run of the component that ``run`` is known to belong to; shortens the way there."""
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@kernel
def _join_runs(labels: np.ndarray, offsets: np.ndarray, starts: np.ndarray, ends: np.ndarray, reach: int) -> np.ndarray:
    """Join the runs of one value that touch in neighbouring rows: along an edge, with ``reach`` 1 in a corner too.

    Returns:
        (R,) int64, for every run the first one of its component.
    """
    parents = np.arange(starts.size)
    for y in range(1, offsets.size - 1):
        above = offsets[y - 1]
        for run in range(offsets[y], offsets[y + 1]):
            while above < offsets[y] and ends[above] + reach <= starts[run]:
                above += 1
            k = above  # the next run may touch the last of these too
            value = labels[y, starts[run]]
            while k < offsets[y] and starts[k] < ends[run] + reach:
                if labels[y - 1, starts[k]] == value:
                    a, b = _root(parents, k), _root(parents, run)
                    parents[max(a, b)] = min(a, b)
                k += 1
    for run in range(starts.size):
        parents[run] = parents[parents[run]]
    return parents


@kernel
def number_components(labels: np.ndarray, reach: int, min_size: int, numbers: np.ndarray) -> int:
    """Number the connected components of one value, and return how many there are.

    Args:
        labels: (H, W) integers, 0 background.
        reach: 0 for 4-connected components, 1 for 8-connected ones.
        min_size: smaller components (pixels) are left out.
        numbers: (H, W) int32 zeros, receives the ids 1..N in the order of the first pixels. NumPy asks for it in large
            pages of memory, numba would not.
    """
    offsets, starts, ends = _find_row_runs(labels, True)
    parents = _join_runs(labels, offsets, starts, ends, reach)
    areas = np.zeros(starts.size, np.int64)
    for run in range(starts.size):
        areas[parents[run]] += ends[run] - starts[run]
    ids = np.zeros(starts.size, np.int32)
    n = 0
    for y in range(labels.shape[0]):
        for run in range(offsets[y], offsets[y + 1]):
            first = parents[run]
            if areas[first] < min_size:
                continue
            if first == run:
                n += 1
                ids[run] = n
            numbers[y, starts[run] : ends[run]] = ids[first]
    return n


@kernel
def fill_mask_holes(mask: np.ndarray) -> None:
    """Set the pixels of a mask (H, W) uint8 from which no 8-connected walk over zeros leads to the image border."""
    height, width = mask.shape
    offsets, starts, ends = _find_row_runs(mask, False)
    parents = _join_runs(mask, offsets, starts, ends, 1)
    is_open = np.zeros(starts.size, np.bool_)
    for y in range(height):
        for run in range(offsets[y], offsets[y + 1]):
            if y == 0 or y == height - 1 or starts[run] == 0 or ends[run] == width:
                is_open[parents[run]] = True
    for y in range(height):
        for run in range(offsets[y], offsets[y + 1]):
            if not is_open[parents[run]]:
                mask[y, starts[run] : ends[run]] = 1


@kernel
def spread_rows(start: int, stop: int, mask: np.ndarray, value: int, radius: int, out: np.ndarray) -> None:
    """Give ``value`` to all pixels within ``radius`` of a pixel that has it: 0 erodes a mask and 1 dilates it.

    Args:
        start: first row.
        stop: row after the last.
        mask: (H, W) uint8, 0 or 1; what is outside does not spread.
        value: 0 or 1.
        radius: of the disc, in pixels, its border included.
        out: (H, W) uint8, rows ``start..stop`` are written.
    """
    height, width = mask.shape
    for y in range(start, stop):
        out[y] = 1 - value
        for v in range(max(0, y - radius), min(height, y + radius + 1)):
            reach = int(np.sqrt(radius * radius - (v - y) ** 2))
            for shift in range(-reach, reach + 1):
                to, of = out[y, max(0, -shift) : width - shift], mask[v, max(0, shift) : width + shift]
                for x in range(min(to.size, of.size)):
                    to[x] = to[x] | of[x] if value else to[x] & of[x]


@kernel
def flood_components(
    start: int,
    stop: int,
    components: np.ndarray,
    boxes: np.ndarray,
    heights: np.ndarray,
    markers: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Divide components ``start..stop`` among the markers in them.

    Args:
        start: index of the first component.
        stop: index after the last.
        components: (H, W) int32, ids 1..n of 4-connected parts.
        boxes: (n, 4) int64 tight half-open boxes (y0, x0, y1, x1).
        heights: (H, W) int32; high pixels are flooded first.
        markers: (H, W) int32, ids of the markers; they count on components only.
        labels: (H, W) int32, zero; receives the id of a marker on all pixels of components that have one.
    """
    for i in range(start, stop):
        y0, x0, y1, x1 = boxes[i]
        window, inside = labels[y0:y1, x0:x1], components[y0:y1, x0:x1]
        first, last = HIGHEST, 0
        for y in range(y1 - y0):
            for x in range(x1 - x0):
                marker = markers[y0 + y, x0 + x]
                if inside[y, x] == i + 1 and marker > 0:
                    window[y, x] = marker
                    first, last = min(first, marker), max(last, marker)
        if first < last:
            _flood(inside, i + 1, heights[y0:y1, x0:x1], window)
        elif last > 0:
            for y in range(y1 - y0):
                for x in range(x1 - x0):
                    if inside[y, x] == i + 1:
                        window[y, x] = last


@kernel
def _flood(components: np.ndarray, component: int, heights: np.ndarray, labels: np.ndarray) -> None:
    """Let the labels of a component grow over its other pixels, highest pixels first.

    Of pixels that were reached at the same level the first one goes on first, and labels that are there from the start
    come in the order of their pixels. All arguments but ``component`` are (h, w) int32; ``labels`` is changed in place.

    Source: the order of ``skimage.segmentation.watershed`` (BSD-3) with connectivity 1 and the heights turned round;
        there the order of equal pixels of the markers depends on all the rest of the image.
    """
    height, width = components.shape
    queue = [np.int64(0) for _ in range(0)]  # keys: level, lowest first, and then age
    reached = np.empty(components.size, np.int64)
    age = 0
    for place in range(components.size):
        y, x = place // width, place % width
        if components[y, x] == component and labels[y, x] > 0:
            reached[age] = place
            heappush(queue, (np.int64(HIGHEST - heights[y, x]) << AGE_BITS) + age)
            age += 1
    while queue:
        key = heappop(queue)
        place = reached[key & AGE_MASK]
        y, x = place // width, place % width
        for k in range(4):
            v, u = y - (k == 0) + (k == 3), x - (k == 1) + (k == 2)
            if not (0 <= v < height and 0 <= u < width) or components[v, u] != component or labels[v, u] > 0:
                continue
            labels[v, u] = labels[y, x]
            reached[age] = v * width + u
            level = max(np.int64(HIGHEST - heights[v, u]), key >> AGE_BITS)
            heappush(queue, (level << AGE_BITS) + age)
            age += 1
