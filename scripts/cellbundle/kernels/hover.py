"""Distance maps of HoVer-Net: written from instances, and filtered to find the borders between them again."""

import numpy as np

from .compile import kernel


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
