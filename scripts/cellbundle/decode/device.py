"""Grouping of pixels by the sink of their flow with torch, where the prediction is: only the label map leaves a GPU."""

import torch
from torch.nn import functional as F

from ..kernels.follow import GROW_COUNT, GROW_STEPS, SEED_COUNT, SEED_RADIUS


def group_by_sink_tensor(flows: torch.Tensor, cells: torch.Tensor, scale: float, n_steps: int = 200) -> torch.Tensor:
    """The same as ``cellbundle.decode.flows.group_by_sink`` without a tolerance, from the same arithmetic.

    Args:
        flows: (2, H, W) float32, predicted flow.
        cells: (H, W) bool on the same device.
        scale: flow of one pixel a step.
        n_steps: Euler steps.

    Returns:
        (H, W) int32 label map on that device; ids 1..K may be absent.
    """
    height, width = cells.shape
    places = cells.nonzero(as_tuple=True)
    labels = torch.zeros((height, width), dtype=torch.int32, device=cells.device)
    if len(places[0]) == 0:
        return labels
    ends = _follow(_bounded_pull(flows, cells, scale), places, n_steps)
    flat = ends[0] * width + ends[1]
    counts = torch.bincount(flat, minlength=height * width).reshape(height, width)
    sinks = _grow_sinks(counts, _find_seeds(counts))
    labels[places] = sinks.reshape(-1)[flat]
    return labels


def _bounded_pull(flows: torch.Tensor, cells: torch.Tensor, scale: float) -> torch.Tensor:
    """(2, H + 2, W + 2) float32, as ``kernels.follow.bounded_pull`` fills it."""
    longest = float(sum(cells.shape))
    pulls = cells & flows.isfinite().all(0)
    return F.pad(torch.where(pulls, (flows / scale).clamp(-longest, longest), 0.0), (1, 1, 1, 1))


def _follow(pull: torch.Tensor, places: tuple[torch.Tensor, ...], n_steps: int) -> list[torch.Tensor]:
    """Rows and columns, (N,) int64 each, where ``kernels.follow.follow`` brings the pixels at ``places``."""
    stride = pull.shape[2]
    sides = [side - 2 for side in pull.shape[1:]]
    scales = [torch.tensor(side / (side - 1) if side > 1 else 1.0, device=pull.device) for side in sides]
    down, right = pull.reshape(2, -1)
    y, x = (place.float() for place in places)
    for _ in range(n_steps):
        v, u = y * scales[0] + 0.5, x * scales[1] + 0.5
        row, column = v.long(), u.long()
        fy, fx = v - row, u - column
        corner = row * stride + column
        steps = []
        for field in (down, right):
            above = field[corner] + fx * (field[corner + 1] - field[corner])
            below = field[corner + stride] + fx * (field[corner + stride + 1] - field[corner + stride])
            steps.append((above, fy * (below - above)))
        y = (y + steps[0][0] + steps[0][1]).clamp(0, sides[0] - 1)
        x = (x + steps[1][0] + steps[1][1]).clamp(0, sides[1] - 1)
    return [y.long(), x.long()]


def _find_seeds(counts: torch.Tensor) -> torch.Tensor:
    """(K,) int64 flat indices of the local maxima of (H, W) counts, smallest count first, else in raster order."""
    window = 2 * SEED_RADIUS + 1
    highest = F.max_pool2d(counts.double()[None], window, stride=1, padding=SEED_RADIUS)[0]
    seeds = ((counts > SEED_COUNT) & (counts >= highest)).reshape(-1).nonzero()[:, 0]
    return seeds[torch.argsort(counts.reshape(-1)[seeds], stable=True)]


def _grow_sinks(counts: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """(H, W) int32: 0, or 1 + index of the last of the (K,) seeds whose sink the pixel belongs to."""
    height, width = counts.shape
    reach = torch.arange(-GROW_STEPS, GROW_STEPS + 1, device=counts.device)
    rows = (seeds // width)[:, None, None] + reach[:, None]
    columns = (seeds % width)[:, None, None] + reach
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    windows = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    filled = inside & (counts.reshape(-1)[windows] > GROW_COUNT)
    reached = torch.zeros_like(filled)
    reached[:, GROW_STEPS, GROW_STEPS] = True
    for _ in range(GROW_STEPS):
        reached = filled & (F.max_pool2d(reached.float()[:, None], 3, stride=1, padding=1)[:, 0] > 0)
    ids = torch.arange(1, len(seeds) + 1, dtype=torch.int32, device=counts.device)
    sinks = torch.zeros(height * width, dtype=torch.int32, device=counts.device)
    sinks.scatter_reduce_(0, windows[reached], ids[:, None, None].expand_as(windows)[reached], "amax")
    return sinks.reshape(height, width)
