"""Heat diffusion from the centre of every instance: the flows of targets and of the flow-error check."""

import numpy as np

from .compile import kernel
from .geometry import centre_pixel

ROUNDING = 1e-12  # of the temperature: smaller differences are rounding errors (centres of symmetric cells)
GENTLE = 1e-4  # of the temperature: smaller differences need double precision
COLD = 1e-30  # lower temperatures need double precision


@kernel
def _steps(heat: np.ndarray, sums: np.ndarray, weight: np.ndarray, stride: int, centre: int, n_steps: int) -> None:
    """Repeat "add 1 at the centre, then average over 3x3" in a window of rows of length ``stride``.

    Args:
        heat: flat temperature, of one floating type with the next two; changed in place.
        sums: room of the same size, zeros.
        weight: 1/9 on the instance, 0 elsewhere and on a border of one pixel.
        stride: length of a row.
        centre: index of the source.
        n_steps: number of repetitions.
    """
    # Both loops run over all rows at once, the border included, which the weight keeps cold: rows of a cell are too
    # short for vector instructions to pay.
    n_sums, n_inner = heat.size - 2, heat.size - 2 * stride
    left, here, right, three = heat[:n_sums], heat[1 : 1 + n_sums], heat[2:], sums[1 : 1 + n_sums]
    above, beside, below = sums[:n_inner], sums[stride : stride + n_inner], sums[2 * stride :]
    inner, share = heat[stride : stride + n_inner], weight[stride : stride + n_inner]
    for _ in range(n_steps):
        heat[centre] += 1
        for k in range(n_sums):
            three[k] = left[k] + here[k] + right[k]
        for k in range(n_inner):
            inner[k] = (above[k] + beside[k] + below[k]) * share[k]


@kernel
def _diffuse(window: np.ndarray, label: int, n_steps: int) -> np.ndarray:
    """Temperature of one instance after ``n_steps``.

    Single precision is twice as fast, and exact enough where the temperature has a slope: its error is 1e-6 of the
    temperature or less, so from ``GENTLE`` on the direction is good to a hundredth. Where any pixel has a lower slope,
    as in the middle of a symmetric cell, or is so cold that single precision ends, the instance is diffused again in
    double precision.

    Args:
        window: (h, w) int32 labels that contain the whole instance.
        label: its id.
        n_steps: number of steps.

    Returns:
        (h + 2, w + 2) float64 inside a border of one pixel, 0 outside the instance.
    """
    height, width = window.shape
    stride = width + 2
    size = (height + 2) * stride
    weight = np.zeros(size, np.float32)
    for y in range(height):
        for x in range(width):
            weight[(y + 1) * stride + x + 1] = (window[y, x] == label) / np.float32(9)
    cy, cx = centre_pixel(window, label)
    centre = (cy + 1) * stride + cx + 1
    quick = np.zeros(size, np.float32)
    _steps(quick, np.zeros(size, np.float32), weight, stride, centre, n_steps)
    heat = np.zeros(size)
    if _is_exact_enough(quick, weight, stride):
        for k in range(size):
            heat[k] = quick[k]
    else:
        exact = np.zeros(size)
        for k in range(size):
            exact[k] = (weight[k] > 0) / 9.0
        _steps(heat, np.zeros(size), exact, stride, centre, n_steps)
    return heat.reshape(height + 2, stride)


@kernel
def _is_exact_enough(heat: np.ndarray, weight: np.ndarray, stride: int) -> bool:
    """Whether the temperature, flat float32, has a slope in every pixel of positive weight, and is warm enough."""
    for k in range(heat.size):
        if weight[k] > 0:
            slope = max(abs(heat[k + stride] - heat[k - stride]), abs(heat[k + 1] - heat[k - 1]))
            if slope < GENTLE * heat[k] or heat[k] < COLD:
                return False
    return True


@kernel
def _set_direction(flows: np.ndarray, y: int, x: int, dy: float, dx: float, heat: float) -> None:
    """Write a gradient, scaled to length 1, unless it is only a rounding error of the temperature."""
    size = max(abs(dy), abs(dx))  # divided by it, squares neither underflow far from the source nor overflow
    if size > ROUNDING * heat:
        dy, dx = dy / size, dx / size
        norm = np.sqrt(dy * dy + dx * dx)
        flows[0, y, x], flows[1, y, x] = dy / norm, dx / norm


@kernel
def instance_flows(
    start: int, stop: int, labels: np.ndarray, boxes: np.ndarray, n_steps: np.ndarray, flows: np.ndarray
) -> None:
    """Write the flows of instances ``start..stop``, each as if it were alone.

    Args:
        start: index of the first instance.
        stop: index behind the last one.
        labels: (H, W) int32, ids 0..n.
        boxes: (n, 4) half-open boxes (y0, x0, y1, x1); all zero for an absent id.
        n_steps: (n,) steps of diffusion.
        flows: (2, H, W) float32, (dy, dx); only instance pixels are written.
    """
    for i in range(start, stop):
        y0, x0, y1, x1 = boxes[i]
        if y1 == y0:
            continue
        window = labels[y0:y1, x0:x1]
        heat = _diffuse(window, i + 1, n_steps[i])
        for y in range(y1 - y0):
            for x in range(x1 - x0):
                if window[y, x] == i + 1:
                    dy, dx = heat[y + 2, x + 1] - heat[y, x + 1], heat[y + 1, x + 2] - heat[y + 1, x]
                    _set_direction(flows, y0 + y, x0 + x, dy, dx, heat[y + 1, x + 1])


@kernel
def diffuse_instances(
    start: int, stop: int, labels: np.ndarray, boxes: np.ndarray, n_steps: np.ndarray, heat: np.ndarray
) -> None:
    """Write the temperature of instances ``start..stop`` after their ``n_steps`` into ``heat`` (H + 2, W + 2) float64.

    Each is diffused on its own pixels only; the other arguments are those of ``instance_flows``.
    """
    for i in range(start, stop):
        y0, x0, y1, x1 = boxes[i]
        if y1 == y0:
            continue
        window = labels[y0:y1, x0:x1]
        local = _diffuse(window, i + 1, n_steps[i])
        for y in range(y1 - y0):
            for x in range(x1 - x0):
                if window[y, x] == i + 1:
                    heat[y0 + y + 1, x0 + x + 1] = local[y + 1, x + 1]


@kernel
def flows_across_borders(start: int, stop: int, labels: np.ndarray, heat: np.ndarray, flows: np.ndarray) -> None:
    """Write the flows of rows ``start..stop`` where the temperature of touching neighbours counts, as in cellpose.

    Args:
        start: first row.
        stop: row after the last.
        labels: (H, W) int32.
        heat: (H + 2, W + 2) float64, as ``diffuse_instances`` fills it.
        flows: (2, H, W) float32, (dy, dx); only instance pixels are written.
    """
    for y in range(start, stop):
        for x in range(labels.shape[1]):
            if labels[y, x] > 0:
                dy, dx = heat[y + 2, x + 1] - heat[y, x + 1], heat[y + 1, x + 2] - heat[y + 1, x]
                _set_direction(flows, y, x, dy, dx, heat[y + 1, x + 1])


@kernel
def mean_flow_errors(
    start: int,
    stop: int,
    labels: np.ndarray,
    boxes: np.ndarray,
    flows: np.ndarray,
    predicted: np.ndarray,
    scale: float,
    errors: np.ndarray,
) -> None:
    """Mean squared distance between two flow fields over the pixels of instances ``start..stop``.

    Args:
        start: index of the first instance.
        stop: index behind the last one.
        labels: (H, W) int32, ids 0..n.
        boxes: (n, 4) half-open boxes (y0, x0, y1, x1); all zero for an absent id.
        flows: (2, H, W) float32 flows of the labels.
        predicted: (2, H, W) floating flows of the network times ``scale``.
        scale: see above.
        errors: (n,) float64, receives the errors; that of an absent id is left as it is.
    """
    for i in range(start, stop):
        y0, x0, y1, x1 = boxes[i]
        total, count = 0.0, 0
        for y in range(y0, y1):
            for x in range(x0, x1):
                if labels[y, x] == i + 1:
                    dy = flows[0, y, x] - predicted[0, y, x] / scale
                    dx = flows[1, y, x] - predicted[1, y, x] / scale
                    total += dy * dy + dx * dx
                    count += 1
        if count > 0:
            errors[i] = total / count
