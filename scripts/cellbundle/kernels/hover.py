"""Distance maps of HoVer-Net: written from instances, and filtered to find the borders between them again."""

import numpy as np

from .compile import kernel

LARGEST_STEP = 2.0  # of a distance in -1..1


@kernel
def _distances(n: int, total: int, first: int, stop: int) -> np.ndarray:
    """Distance of the lines ``first..stop`` from the centre, scaled to 1 on either side.

    Args:
        n: number of pixels of the instance.
        total: sum of their coordinates.
        first: first line of its box.
        stop: line after the last.

    Returns:
        (stop - first,) float32; from whole numbers, so a line through the centre is exactly 0.
    """
    before, behind = total - n * first, n * (stop - 1) - total
    distances = np.zeros(stop - first, np.float32)
    for k in range(first, stop):
        distance = n * k - total
        if distance != 0:
            distances[k - first] = distance / (before if distance < 0 else behind)
    return distances


@kernel
def write_distances(
    start: int, stop: int, labels: np.ndarray, boxes: np.ndarray, areas: np.ndarray, maps: np.ndarray
) -> None:
    """Write the distances of the pixels of instances ``start..stop`` from their centre of mass.

    Args:
        start: index of the first instance.
        stop: index after the last.
        labels: (H, W) int32, ids 1..n.
        boxes: (n, 4) int64 tight half-open boxes (y0, x0, y1, x1), none of them empty.
        areas: (n,) int64 pixels of the instances.
        maps: (2, H, W) float32, horizontal and vertical; only instance pixels are written.
    """
    for i in range(start, stop):
        y0, x0, y1, x1 = boxes[i]
        sum_y, sum_x = 0, 0
        for y in range(y0, y1):
            for x in range(x0, x1):
                if labels[y, x] == i + 1:
                    sum_y += y
                    sum_x += x
        horizontal = _distances(areas[i], sum_x, x0, x1)
        vertical = _distances(areas[i], sum_y, y0, y1)
        for y in range(y0, y1):
            for x in range(x0, x1):
                if labels[y, x] == i + 1:
                    maps[0, y, x] = horizontal[x - x0]
                    maps[1, y, x] = vertical[y - y0]


@kernel
def _mirror(k: int, n: int) -> int:
    """Where line ``k`` outside of 0..n-1 is mirrored to; the first and the last line are not repeated."""
    if n == 1:
        return 0
    k %= 2 * (n - 1)
    return min(k, 2 * (n - 1) - k)


@kernel
def _add_row(total: np.ndarray, row: np.ndarray, weight: float) -> None:
    """Add ``weight * row`` to ``total``, both (W,) float32, as a fused multiply-add does.

    The product is exact in double precision, so only the sum is rounded. torch filters like this, tap after tap (with
    oneDNN, so not the smallest images); the same bits mean the same order of pixels in the watershed.
    """
    for x in range(total.size):
        total[x] = total[x] + np.float64(row[x]) * weight


@kernel
def drop_large(values: np.ndarray, limit: float) -> None:
    """Set what is NaN or not below ``limit`` in size to 0; ``values`` flat float32, changed in place."""
    for k in range(values.size):
        if not abs(values[k]) < limit:
            values[k] = 0


@kernel
def correlate_rows(
    start: int, stop: int, image: np.ndarray, down: np.ndarray, across: np.ndarray, mirrored: bool, out: np.ndarray
) -> None:
    """Correlate rows ``start..stop`` of an image with a separable kernel, first along columns and then along rows.

    Args:
        start: first row.
        stop: row after the last.
        image: (H, W) float32.
        down: (2r + 1,) float64 weights along a column.
        across: (2r + 1,) float64 weights along a row.
        mirrored: continue the image outside by its mirror image; with False by 0.
        out: (H, W) float32, rows ``start..stop`` are written.
    """
    height, width = image.shape
    radius = down.size // 2
    line = np.empty(width + 2 * radius, np.float32)
    for y in range(start, stop):
        line[:] = 0
        for k in range(down.size):
            v = y + k - radius
            if mirrored:
                v = _mirror(v, height)
            if 0 <= v < height:
                _add_row(line[radius : radius + width], image[v], down[k])
        if mirrored:
            for x in range(radius):
                line[x] = line[radius + _mirror(x - radius, width)]
                line[radius + width + x] = line[radius + _mirror(width + x, width)]
        out[y] = 0
        for k in range(across.size):
            _add_row(out[y], line[k : k + width], across[k])


@kernel
def foreground_steps(
    start: int, stop: int, values: np.ndarray, cells: np.ndarray, axis: int, steps: np.ndarray, known: np.ndarray
) -> None:
    """How far the values rise from the pixel before, along an axis and where both pixels are foreground.

    Args:
        start: first row.
        stop: row after the last.
        values: (H, W) float32, finite.
        cells: (H, W) bool.
        axis: 0 from the pixel above, 1 from the one to the left.
        steps: (H, W) float32, rows ``start..stop`` are written: the rise, cut at ``LARGEST_STEP``; 0 where unknown.
        known: (H, W) float32, the same rows: 1 where both pixels are foreground, else 0.
    """
    down, across = 1 - axis, axis
    for y in range(start, stop):
        for x in range(values.shape[1]):
            v, u = y - down, x - across
            both = v >= 0 and u >= 0 and cells[y, x] and cells[v, u]
            known[y, x] = both
            steps[y, x] = min(max(values[y, x] - values[v, u], -LARGEST_STEP), LARGEST_STEP) if both else 0


@kernel
def border_places(labels: np.ndarray, axis: int) -> np.ndarray:
    """Flat indices (K,) int64 of the pixels of a map (H, W) int32 next to which, along an axis, is another instance."""
    height, width = labels.shape
    down, across = 1 - axis, axis
    places = np.empty(1024, np.int64)
    n = 0
    for y in range(height - down):
        if n + width > places.size:
            places = np.concatenate((places, np.empty(places.size + width, np.int64)))
        for x in range(width - across):
            i, j = labels[y, x], labels[y + down, x + across]
            if i != j and i > 0 and j > 0:
                places[n] = y * width + x
                n += 1
    return places[:n]


@kernel
def measure_drops(
    start: int,
    stop: int,
    places: np.ndarray,
    axis: int,
    labels: np.ndarray,
    values: np.ndarray,
    reach: int,
    drops: np.ndarray,
) -> None:
    """How far the values drop across the border between two instances, at pairs of neighbouring pixels ``start..stop``.

    From either pixel, a walk away from the border stays in the instance and ends after ``reach`` pixels at most. The
    drop is from the highest value of the first walk to the lowest of the second.

    Args:
        start: index of the first pair.
        stop: index after the last.
        places: (K,) int64, flat index of the first pixel of each pair; the second is the next along ``axis``.
        axis: 0 downwards, 1 to the right.
        labels: (H, W) int32.
        values: (H, W) float32, the distance along ``axis``.
        reach: pixels, from 1 on.
        drops: (K,) float64, receives the drops.
    """
    height, width = labels.shape
    down, across = 1 - axis, axis
    for i in range(start, stop):
        y, x = places[i] // width, places[i] % width
        highest, lowest = values[y, x], values[y + down, x + across]
        for k in range(1, reach):
            v, u = y - k * down, x - k * across
            if v < 0 or u < 0 or labels[v, u] != labels[y, x]:
                break
            highest = max(highest, values[v, u])
        for k in range(2, reach + 1):
            v, u = y + k * down, x + k * across
            if v >= height or u >= width or labels[v, u] != labels[y + down, x + across]:
                break
            lowest = min(lowest, values[v, u])
        drops[i] = highest - lowest
