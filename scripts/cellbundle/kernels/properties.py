"""Shape and intensity of every instance, one tight window at a time."""

import numpy as np

from .compile import kernel

_ROOT = np.sqrt(2.0)
_MEAN = (1 + _ROOT) / 2
_STEP = np.array(
    [
        [0, 0, 1, 1, 0],
        [0, _MEAN, 1, 1, 0],
        [_ROOT, _MEAN, 1, 1, 0],
        [0, _ROOT, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
)
"""Length of outline at one border pixel, by the number of diagonal and of straight neighbours on the border."""


@kernel
def row_reach(window: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    """How far an instance extends to either side in every row.

    Args:
        window: (h, w) integer labels.
        label: id of the instance.

    Returns:
        (h,) int64 last column, and (h,) int64 first column counted from the right edge, so that both grow outwards;
        -1 in rows without the instance.
    """
    height, width = window.shape
    right = np.full(height, -1, np.int64)
    left = np.full(height, -1, np.int64)
    for y in range(height):
        for x in range(width):
            if window[y, x] == label:
                right[y] = x
                if left[y] < 0:
                    left[y] = width - 1 - x
    return right, left


@kernel
def _hull_reach(reach: np.ndarray) -> np.ndarray:
    """Last column of the convex hull in every row, from the last column of the instance (-1: none), both (h,) int64.

    A pixel counts as the diamond of its four edge midpoints, so coordinates are doubled to stay integer.
    """
    height = reach.size
    ys = np.empty(2 * height + 1, np.int64)
    xs = np.empty(2 * height + 1, np.int64)
    n = 0
    for y in range(-1, 2 * height):
        # Even y is the middle of a row, odd y holds the tips of the rows above and below.
        above, below = reach[max(y // 2, 0)], reach[min((y + 1) // 2, height - 1)]
        x = 2 * max(above, below) + (y % 2 == 0)
        if x < 0:
            continue
        while n > 1 and (ys[n - 1] - ys[n - 2]) * (x - xs[n - 2]) >= (xs[n - 1] - xs[n - 2]) * (y - ys[n - 2]):
            n -= 1
        ys[n], xs[n] = y, x
        n += 1
    hull = np.empty(height, np.int64)
    k = 0
    for row in range(height):
        while ys[k + 1] < 2 * row:
            k += 1
        step = ys[k + 1] - ys[k]
        hull[row] = (xs[k] * step + (xs[k + 1] - xs[k]) * (2 * row - ys[k])) // (2 * step)
    return hull


@kernel
def convex_area(window: np.ndarray, label: int) -> int:
    """Pixels whose centre is in the convex hull of an instance, its border included.

    Args:
        window: (h, w) integer labels; the first and the last row contain the instance.
        label: id of the instance.

    Returns:
        The number of pixels, exact: integer arithmetic only.

    Source: the definition of ``skimage.morphology.convex_hull_image`` with ``offset_coordinates=True`` (BSD-3); the
    hull by Andrew's monotone chain (Inf. Process. Lett. 9, 1979) over rows, which are sorted already.
    """
    right, left = row_reach(window, label)
    # The hull is at least one pixel wide in every row: no row counts negative, not even one without the instance.
    return int(np.sum(_hull_reach(right) + _hull_reach(left) + 2 - window.shape[1]))


@kernel
def perimeter(window: np.ndarray, label: int) -> float:
    """Length of the outline of an instance and of its holes, in pixels; 0 for a single pixel.

    Args:
        window: (h, w) integer labels; contains the whole instance.
        label: id of the instance.

    Source: the estimator of Benkrid and Crookes, as ``skimage.measure.perimeter(neighborhood=4)`` (BSD-3).
    """
    height, width = window.shape
    inside = np.zeros((height + 2, width + 2), np.uint8)
    for y in range(height):
        for x in range(width):
            inside[y + 1, x + 1] = window[y, x] == label
    edge = np.zeros((height + 2, width + 2), np.uint8)
    for y in range(1, height + 1):
        for x in range(1, width + 1):
            around = inside[y - 1, x] & inside[y + 1, x] & inside[y, x - 1] & inside[y, x + 1]
            edge[y, x] = inside[y, x] & (1 - around)
    length = 0.0
    for y in range(1, height + 1):
        for x in range(1, width + 1):
            if edge[y, x]:
                diagonal = edge[y - 1, x - 1] + edge[y - 1, x + 1] + edge[y + 1, x - 1] + edge[y + 1, x + 1]
                straight = edge[y - 1, x] + edge[y + 1, x] + edge[y, x - 1] + edge[y, x + 1]
                length += _STEP[diagonal, straight]
    return length


@kernel
def moments(window: np.ndarray, label: int) -> tuple[float, float, float, float, float]:
    """Centroid and central second moments of an instance.

    Args:
        window: (h, w) integer labels, at most 2**15 pixels long; contains the instance.
        label: id of the instance.

    Returns:
        Mean y and x in the window, then per pixel: the trace ``var(y) + var(x)``, the difference ``var(y) - var(x)``
        and the covariance. The last two are exactly 0 where they are 0 in exact arithmetic: orientation depends on it.
    """
    count, sum_y, sum_x, sum_yy, sum_xx, sum_xy = 0, 0, 0, 0, 0, 0
    for y in range(window.shape[0]):
        n, n_x, n_xx = 0, 0, 0
        for x in range(window.shape[1]):
            inside = int(window[y, x] == label)
            n += inside
            n_x += inside * x
            n_xx += inside * x * x
        count += n
        sum_y += n * y
        sum_x += n_x
        sum_yy += n * y * y
        sum_xx += n_xx
        sum_xy += n_x * y
    mean_y, mean_x = sum_y / count, sum_x / count
    # Sums about the pixel at the centre: the products below then fit in 64 bits and nothing cancels.
    y, x = (2 * sum_y + count) // (2 * count), (2 * sum_x + count) // (2 * count)
    sum_xy += count * y * x - y * sum_x - x * sum_y
    sum_yy += count * y * y - 2 * y * sum_y
    sum_xx += count * x * x - 2 * x * sum_x
    sum_y -= count * y
    sum_x -= count * x
    trace = sum_yy + sum_xx - (sum_y * sum_y + sum_x * sum_x) / count
    difference = sum_yy - sum_xx - (sum_y * sum_y - sum_x * sum_x) / count
    covariance = sum_xy - sum_y * sum_x / count
    return mean_y, mean_x, trace / count, difference / count, covariance / count


@kernel
def ellipse(trace: float, difference: float, covariance: float) -> tuple[float, float, float, float]:
    """Ellipse with the given central second moments.

    Args:
        trace: ``var(y) + var(x)``.
        difference: ``var(y) - var(x)``.
        covariance: of y and x.

    Returns:
        Lengths of the major and the minor axis; angle between the y axis and the major axis in [-pi/2, pi/2],
        positive towards x; eccentricity in [0, 1], 0 for a single pixel.

    Source: the definitions of ``skimage.measure.regionprops`` (BSD-3).
    """
    radius = np.hypot(difference, 2 * covariance)
    large, small = (trace + radius) / 2, max((trace - radius) / 2, 0.0)
    if difference == 0:
        angle = np.pi / 4 if covariance > 0 else -np.pi / 4
    else:
        angle = 0.5 * np.arctan2(2 * covariance, difference)
    eccentricity = np.sqrt(1 - small / large) if large > 0 else 0.0
    return 4 * np.sqrt(large), 4 * np.sqrt(small), angle, eccentricity


@kernel
def measure_shapes(
    start: int, stop: int, labels: np.ndarray, boxes: np.ndarray, ids: np.ndarray, shapes: np.ndarray
) -> None:
    """Measure the shape of instances ``start..stop``.

    Args:
        start: first row of the tables.
        stop: row after the last.
        labels: (H, W) int32.
        boxes: (N, 4) int64 tight half-open boxes (y0, x0, y1, x1), none of them empty.
        ids: (N,) int64 ids in ``labels``.
        shapes: (N, 8) float64, written: centroid y and x, perimeter, major axis, minor axis, orientation,
            eccentricity, convex area.
    """
    for i in range(start, stop):
        y0, x0, y1, x1 = boxes[i]
        window = labels[y0:y1, x0:x1]
        y, x, trace, difference, covariance = moments(window, ids[i])
        shapes[i, 0], shapes[i, 1] = y0 + y, x0 + x
        shapes[i, 2] = perimeter(window, ids[i])
        shapes[i, 3], shapes[i, 4], shapes[i, 5], shapes[i, 6] = ellipse(trace, difference, covariance)
        shapes[i, 7] = convex_area(window, ids[i])


@kernel
def _summary(window: np.ndarray, label: int, values: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, least, largest and population standard deviation of the (h, w) ``values`` on an instance."""
    count, total, low, high, has_nan = 0, 0.0, np.inf, -np.inf, False
    for y in range(window.shape[0]):
        for x in range(window.shape[1]):
            if window[y, x] == label:
                value = np.float64(values[y, x])
                count += 1
                total += value
                low, high = min(low, value), max(high, value)
                has_nan |= np.isnan(value)
    if has_nan:  # comparisons skip NaN, NumPy's minimum does not
        low = high = np.nan
    mean, squares = total / count, 0.0
    for y in range(window.shape[0]):
        for x in range(window.shape[1]):
            if window[y, x] == label:
                squares += (values[y, x] - mean) ** 2
    return mean, low, high, np.sqrt(squares / count)


@kernel
def measure_intensities(
    start: int,
    stop: int,
    labels: np.ndarray,
    boxes: np.ndarray,
    ids: np.ndarray,
    image: np.ndarray,
    intensities: np.ndarray,
) -> None:
    """Measure the intensity of instances ``start..stop`` in every channel, in double precision.

    Args:
        start: first row of the tables.
        stop: row after the last.
        labels: (H, W) int32.
        boxes: (N, 4) int64 tight half-open boxes (y0, x0, y1, x1), none of them empty.
        ids: (N,) int64 ids in ``labels``.
        image: (C, H, W) float32 or float64; NaN in an instance makes all its values NaN.
        intensities: (N, C, 4) float64, written: mean, minimum, maximum, population standard deviation.
    """
    for i in range(start, stop):
        y0, x0, y1, x1 = boxes[i]
        window = labels[y0:y1, x0:x1]
        for c in range(image.shape[0]):
            mean, low, high, sd = _summary(window, ids[i], image[c, y0:y1, x0:x1])
            intensities[i, c, 0], intensities[i, c, 1] = mean, low
            intensities[i, c, 2], intensities[i, c, 3] = high, sd
