"""Label maps: checks, renumbering and connected components that everything else relies on."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ArrayError
from ..kernels.geometry import mark_present, rename
from ..kernels.parallel import run_chunks
from ..kernels.watershed import number_components

DENSE_ID_LIMIT = 1 << 24  # up to this id a lookup table is faster than a sort
MIN_PIXELS_PER_THREAD = 1 << 18


def check_labels(labels: np.ndarray, name: str = "labels") -> int:
    """Return the largest id, or raise ``ArrayError`` unless ``labels`` is a 2-D map of non-negative integers."""
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.dtype.kind not in "iu":
        got = f"shape {np.shape(labels)} dtype {getattr(labels, 'dtype', type(labels).__name__)}"
        raise ArrayError(f"{name} must be a 2-D integer array (H, W), got {got}")
    # As unsigned numbers, negative ones are above all others: one pass finds both.
    largest = _largest(labels.view(f"{labels.dtype.byteorder}u{labels.itemsize}"))
    if largest > np.iinfo(labels.dtype).max:
        got = f"got {labels.min()} in shape {labels.shape} dtype {labels.dtype}"
        raise ArrayError(f"{name} must not have negative ids, {got}; 0 is the background")
    return largest


def check_numbered(labels: np.ndarray) -> int:
    """Return the largest id, or raise ``ArrayError`` unless ``labels`` is a 2-D map whose ids can be 1..N."""
    n = check_labels(labels)
    if n > labels.size:
        got = f"got id {n} in shape {labels.shape} dtype {labels.dtype}"
        raise ArrayError(f"labels must have ids 1..N, at most one a pixel, {got}; renumber them")
    return n


def renumber(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Number instances 1..N in the order of their ids.

    Args:
        labels: (H, W) non-negative integers of any integer type.

    Returns:
        (H, W) int32, C-contiguous, and N.
    """
    if labels.size == 0:
        return np.zeros(labels.shape, np.int32), 0
    largest = _largest(labels)
    if largest <= DENSE_ID_LIMIT:
        labels = np.ascontiguousarray(labels, np.int32)
        present = np.zeros(largest + 1, np.bool_)
        mark_present(labels.reshape(-1), present)
        present[0] = False
        return keep_ids(labels, present), int(present.sum())
    ids, inverse = np.unique(labels, return_inverse=True)
    offset = 0 if ids[0] == 0 else 1
    return (inverse.reshape(labels.shape) + offset).astype(np.int32), len(ids) - 1 + offset


def keep_ids(labels: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Drop instances and number the others 1..N in the order of their ids.

    Args:
        labels: (H, W) integers from 0 to n.
        keep: (n + 1,) bool, one for each id; the first, of the background, is False.

    Returns:
        (H, W) int32, C-contiguous.
    """
    table = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    labels = np.ascontiguousarray(labels, np.int32)
    renamed = np.empty_like(labels)
    run_chunks(rename, labels.size, labels.reshape(-1), table, renamed.reshape(-1), min_chunk=MIN_PIXELS_PER_THREAD)
    return renamed


def _largest(labels: np.ndarray) -> int:
    """The largest of (H, W) non-negative integers; 0 if there is none."""
    rows = max(1, MIN_PIXELS_PER_THREAD // max(1, labels.shape[1]))
    return max(
        int(part) for part in run_chunks(lambda a, b: labels[a:b].max(initial=0), labels.shape[0], min_chunk=rows)
    )


def label_components(
    labels: NDArray[np.bool_] | NDArray[np.integer], *, connectivity: Literal[4, 8] = 8, min_size: int = 1
) -> tuple[NDArray[np.int32], int]:
    """Number the connected components of a mask, or those of every instance of a label map.

    Args:
        labels: (H, W) bool, or integers in the range of int32; 0 background. Two instances that touch are two
            components.
        connectivity: 8 if pixels that share a corner are connected, 4 if they must share an edge.
        min_size: smaller components (pixels) become background.

    Returns:
        (H, W) int32, ids 1..N in the order of the first pixels row by row, C-contiguous, and N.
    """
    values = np.ascontiguousarray(labels)
    values = values.view(np.uint8) if values.dtype == np.bool_ else values.astype(np.int32, copy=False)
    numbers = np.zeros(values.shape, np.int32)
    n = number_components(values, 1 if connectivity == 8 else 0, min_size, numbers)
    return numbers, n
