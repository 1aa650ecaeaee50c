"""Cell probability and flows to instances: threshold, follow, group, check, clean."""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.special import expit

from ..instances.labels import keep_ids, renumber
from ..kernels.diffusion import mean_flow_errors
from ..kernels.follow import bounded_pull, count_ends, find_seeds, follow, grow_sinks, list_cells
from ..kernels.geometry import boxes_and_areas, fill_holes
from ..kernels.parallel import run_chunks
from ..targets.flows import flows_of_compact
from .device import group_by_sink_tensor
from .prediction import check_prediction

FLOW_SCALE = 5.0  # networks predict flows times this (cellpose, VISTA2D)
SPECK = 5  # pixels below which an instance says nothing about the size of cells
MIN_PIXELS = 4096
MIN_INSTANCES_PER_THREAD = 64
MIN_ROWS_PER_THREAD = 256

Channels = Callable[[int | slice], np.ndarray]
"""Gives channels of a prediction as a float32 array on the CPU."""


def decode_flows(
    prediction: np.ndarray | torch.Tensor,
    *,
    cell_threshold: float = 0.0,
    flow_threshold: float | None = 0.4,
    n_steps: int = 200,
    tolerance: float = 0.0,
    min_size: int = 15,
    min_share: float | None = None,
    max_size_fraction: float = 1.0,
    min_score: float = 0.0,
    across_borders: bool = False,
) -> np.ndarray:
    """Instances from a cell logit and a flow field.

    Args:
        prediction: (3, H, W) float, channel 0 the cell logit, channels 1 and 2 the flow (dy, dx) times 5. The pixels of
            a tensor on a GPU are followed and grouped there.
        cell_threshold: logits above this are cells.
        flow_threshold: largest mean squared difference between the predicted flow and the flow of the found instance;
            None keeps all.
        n_steps: Euler steps.
        tolerance: pixels that move less than this in 8 steps (pixels) have arrived; 0 makes every step, as a GPU does.
        min_size: smallest instance (pixels), before holes are filled; 0 keeps all.
        min_share: smallest share of the median area of the instances, where that is less than ``min_size``: cells of an
            image of low magnification are small. None asks for ``min_size`` everywhere.
        max_size_fraction: instances larger than this share of the image are dropped; cellpose uses 0.4.
        min_score: smallest mean probability of an instance's pixels to be cell, see ``mean_probability``; 0 keeps all,
            as cellpose does.
        across_borders: rule of the flow check where instances touch; must be that of the training targets.

    Returns:
        (H, W) int32 label map, ids 1..N.

    Raises:
        ArrayError: if ``prediction`` is not (3, H, W) floating point.

    Source: Stringer et al., Nat. Methods 2021; behaviour of cellpose 4 ``dynamics.compute_masks`` (BSD-3).
    """
    check_prediction(prediction)
    if isinstance(prediction, torch.Tensor):
        labels, channels = _group_tensor(prediction, cell_threshold, n_steps, tolerance)
    else:
        labels, channels = _group_array(prediction, cell_threshold, n_steps, tolerance)
    if max_size_fraction < 1:
        labels = drop_by_area(labels, 0, max_size_fraction * labels.size)
    if flow_threshold is not None:
        labels = drop_inconsistent(labels, channels(slice(1, None)), flow_threshold, across_borders)
    labels = clean(labels, min_size, min_share)
    if min_score > 0:
        labels = drop_uncertain(labels, channels(0), min_score)
    return labels


def mean_probability(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Mean of the logistic function of the logits over every instance.

    Args:
        labels: (H, W) int32, ids 1..N.
        logits: (H, W) floating.

    Returns:
        (N,) float32 in [0, 1].
    """
    inside = labels > 0
    ids = labels[inside]
    sums = np.bincount(ids, weights=expit(logits[inside]))[1:]
    return (sums / np.bincount(ids)[1:]).astype(np.float32)


def clean(labels: np.ndarray, min_size: int, min_share: float | None = None) -> np.ndarray:
    """Drop small instances, see ``decode_flows``, and fill the holes of the others; (H, W) int32, renumbered 1..N."""
    boxes, areas = boxes_and_areas(labels, int(labels.max(initial=0)))
    if min_share is not None:
        cells = areas[areas >= SPECK]
        min_size = min(min_size, math.ceil(min_share * np.median(cells)) if len(cells) else 0)
    large = areas >= max(min_size, 1)
    labels = keep_instances(labels, large)
    fill_holes(labels, boxes[large])
    return labels


def group_by_sink(flows: np.ndarray, cells: np.ndarray, *, n_steps: int = 200, tolerance: float = 0.0) -> np.ndarray:
    """Follow the flow from every cell pixel and group the pixels that end at one place.

    Args:
        flows: (2, H, W) float32, predicted flow times 5.
        cells: (H, W) bool.
        n_steps: Euler steps.
        tolerance: see ``decode_flows``.

    Returns:
        (H, W) int32 label map, ids 1..N.
    """
    labels = np.zeros(cells.shape, np.int32)
    n = int(np.count_nonzero(cells))
    if n == 0:
        return labels
    ys, xs = np.empty((2, n), np.int64)
    list_cells(cells, ys, xs)
    height, width = cells.shape
    pull = np.zeros((2, height + 2, width + 2), np.float32)
    run_chunks(bounded_pull, height, flows, cells, FLOW_SCALE, pull, min_chunk=MIN_ROWS_PER_THREAD)
    ends = np.empty((2, n), np.int32)
    run_chunks(follow, n, ys, xs, pull, n_steps, tolerance, ends, min_chunk=MIN_PIXELS, uneven=True)
    counts = np.zeros(cells.shape, np.int32)
    count_ends(ends, counts)
    seeds, sizes = find_seeds(counts)
    sinks = grow_sinks(counts, seeds[np.argsort(sizes, kind="stable")])
    labels[ys, xs] = sinks[ends[0], ends[1]]
    return renumber(labels)[0]


def drop_by_area(labels: np.ndarray, smallest: float, largest: float = np.inf) -> np.ndarray:
    """Remove instances outside ``smallest..largest`` pixels; (H, W) int32 in and out, renumbered 1..N."""
    _, areas = boxes_and_areas(labels, int(labels.max(initial=0)))
    return keep_instances(labels, (areas >= max(smallest, 1)) & (areas <= largest))


def drop_inconsistent(labels: np.ndarray, flows: np.ndarray, threshold: float, across_borders: bool) -> np.ndarray:
    """Remove instances whose own flow differs from the predicted one.

    Args:
        labels: (H, W) int32, ids 0..N.
        flows: (2, H, W) floating, predicted flow times 5.
        threshold: largest mean squared difference of flows of unit length.
        across_borders: see ``cellbundle.targets.flows.labels_to_flows``.

    Returns:
        (H, W) int32 label map, ids 1..M.
    """
    n = int(labels.max(initial=0))
    if n == 0:
        return labels
    boxes, _ = boxes_and_areas(labels, n)
    own = flows_of_compact(labels, boxes, across_borders=across_borders)
    errors = np.zeros(n)
    run_chunks(mean_flow_errors, n, labels, boxes, own, flows, FLOW_SCALE, errors, min_chunk=MIN_INSTANCES_PER_THREAD)
    return keep_instances(labels, errors <= threshold)


def drop_uncertain(labels: np.ndarray, logits: np.ndarray, min_score: float) -> np.ndarray:
    """Remove instances whose ``mean_probability`` is below ``min_score``; (H, W) int32 in and out, renumbered 1..N."""
    return keep_instances(labels, mean_probability(labels, logits) >= min_score)


def _group_array(
    prediction: np.ndarray, cell_threshold: float, n_steps: int, tolerance: float
) -> tuple[np.ndarray, Channels]:
    """Group the pixels of an array; (H, W) int32 label map, ids 1..N, and its channels."""
    values = prediction.astype(np.float32, copy=False)
    labels = group_by_sink(values[1:], values[0] > cell_threshold, n_steps=n_steps, tolerance=tolerance)
    return labels, values.__getitem__


def _group_tensor(
    prediction: torch.Tensor, cell_threshold: float, n_steps: int, tolerance: float
) -> tuple[np.ndarray, Channels]:
    """As ``_group_array``, for a tensor. One on a GPU is grouped there; channels are copied to the CPU on demand."""
    values = prediction.detach().float()
    if not values.is_cuda:
        return _group_array(values.numpy(), cell_threshold, n_steps, tolerance)
    grouped = group_by_sink_tensor(values[1:], values[0] > cell_threshold, FLOW_SCALE, n_steps)
    return renumber(grouped.cpu().numpy())[0], lambda channels: values[channels].cpu().numpy()


def keep_instances(labels: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Keep the instances 1..n for which (n,) ``good`` is True, renumbered 1..N."""
    return keep_ids(labels, np.concatenate([[False], good]))
