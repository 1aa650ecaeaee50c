"""Heat diffusion from the centre of every instance: the flows of targets and of the flow-error check."""

import numpy as np

from .compile import kernel
from .geometry import centre_pixel

ROUNDING = 1e-12  # of the temperature: smaller differences are rounding errors (centres of symmetric cells)


@kernel
def _diffuse_window(inside: np.ndarray, cy: int, cx: int, n_steps: int) -> np.ndarray:
    """Temperature in one window after ``n_steps`` of "add 1 at the centre, then average over 3x3".

    Args:
        inside: (h + 2, w + 2) float64, 1 on the instance and 0 elsewhere, with a border of zeros.
        cy: row of the heat source.
        cx: column of the heat source.
        n_steps: number of steps.

    Returns:
        (h + 2, w + 2) float64 temperature, 0 outside the instance.
    """
    height, width = inside.shape
    heat = np.zeros((height, width))
    rows = np.zeros((height, width))
    ninth = inside / 9.0
    for _ in range(n_steps):
        heat[cy, cx] += 1.0
        for y in range(1, height - 1):
            for x in range(1, width - 1):
                rows[y, x] = heat[y, x - 1] + heat[y, x] + heat[y, x + 1]
        for y in range(1, height - 1):
            for x in range(1, width - 1):
                heat[y, x] = (rows[y - 1, x] + rows[y, x] + rows[y + 1, x]) * ninth[y, x]
    return heat


@kernel
def diffuse_instances(
    start: int, stop: int, labels: np.ndarray, boxes: np.ndarray, n_steps: np.ndarray, heat: np.ndarray
) -> None:
    """Write the temperature of instances ``start..stop`` after their ``n_steps`` into ``heat`` (H + 2, W + 2).

    Each is diffused on its own pixels only.
    """
    for i in range(start, stop):
        y0, x0, y1, x1 = boxes[i]
        if y1 == y0:
            continue
        window = labels[y0:y1, x0:x1]
        inside = np.zeros((y1 - y0 + 2, x1 - x0 + 2))
        for y in range(y1 - y0):
            for x in range(x1 - x0):
                inside[y + 1, x + 1] = window[y, x] == i + 1
        cy, cx = centre_pixel(window, i + 1)
        local = _diffuse_window(inside, cy + 1, cx + 1, n_steps[i])
        for y in range(y1 - y0):
            for x in range(x1 - x0):
                if window[y, x] == i + 1:
                    heat[y0 + y + 1, x0 + x + 1] = local[y + 1, x + 1]


@kernel
def unit_gradients(
    start: int, stop: int, labels: np.ndarray, heat: np.ndarray, across: bool, flows: np.ndarray
) -> None:
    """Central differences of ``heat`` in rows ``start..stop``, scaled to length 1, into ``flows`` (2, H, W).

    Args:
        start: first row.
        stop: row after the last.
        labels: (H, W) int32.
        heat: (H + 2, W + 2) float64, padded by one pixel.
        across: read the temperature of touching neighbours too, as cellpose does; else it counts as 0 there.
        flows: (2, H, W) float32, (dy, dx); only instance pixels are written.
    """
    height, width = labels.shape
    for y in range(start, stop):
        for x in range(width):
            label = labels[y, x]
            if label == 0:
                continue
            down, up = heat[y + 2, x + 1], heat[y, x + 1]
            right, left = heat[y + 1, x + 2], heat[y + 1, x]
            if not across:
                down = down if y + 1 < height and labels[y + 1, x] == label else 0.0
                up = up if y > 0 and labels[y - 1, x] == label else 0.0
                right = right if x + 1 < width and labels[y, x + 1] == label else 0.0
                left = left if x > 0 and labels[y, x - 1] == label else 0.0
            dy, dx = down - up, right - left
            norm = np.hypot(dy, dx)  # does not underflow far from the source, as squares do
            if norm > ROUNDING * heat[y + 1, x + 1]:
                flows[0, y, x] = dy / norm
                flows[1, y, x] = dx / norm


@kernel
def mean_flow_errors(labels: np.ndarray, n: int, flows: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mean squared distance between two flow fields over the pixels of every instance.

    Args:
        labels: (H, W) int32, ids 0..n.
        n: largest id.
        flows: (2, H, W) flows of the labels.
        predicted: (2, H, W) flows of the network, in the same units.

    Returns:
        (n,) float64, 0 for an absent id.
    """
    total = np.zeros(n)
    count = np.zeros(n, np.int64)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            i = labels[y, x] - 1
            if i >= 0:
                dy = flows[0, y, x] - predicted[0, y, x]
                dx = flows[1, y, x] - predicted[1, y, x]
                total[i] += dy * dy + dx * dx
                count[i] += 1
    return total / np.maximum(count, 1)
