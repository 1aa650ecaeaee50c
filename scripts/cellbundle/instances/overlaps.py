"""Masks that overlap, as detectors give them, to a label map; label maps to RLE and back.

Overlaps are solved best first: in the order of the scores, each mask takes those of its pixels that are still free. A
mask that is dropped takes none, so they stay free for the next one. Masks become runs of pixels one at a time: beside
the label map there are only the runs, never all masks as images.
"""

from collections.abc import Iterable, Iterator, Sequence
from operator import index as exact_int
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ArrayError, ConfigError
from ..kernels.masks import LENGTH, START, give_free_pixels, mask_runs
from ..kernels.parallel import run_chunks
from ..kernels.runs import label_runs, write_columns
from .labels import check_numbered
from .rle import Form, check_form, check_runs, is_by_columns, mask_to_runs, rles_to_runs, runs_to_rles

NO_RUNS = np.empty((0, 2), np.int64)
MIN_PIXELS_PER_THREAD = 1 << 22
MIN_COLUMNS_PER_THREAD = 256


def masks_to_labels(
    masks: Iterable[ArrayLike],
    scores: ArrayLike | None,
    shape: tuple[int, int] | None = None,
    boxes_yxyx: ArrayLike | None = None,
    *,
    min_size: int = 1,
    max_overlap: float = 1.0,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Give every pixel to the best of the masks that hold it.

    Args:
        masks: N masks, bool or integers of which 0 is outside: an (N, H, W) array, or any iterable of (H, W) arrays,
            of which one at a time is held. With ``boxes_yxyx``, the part of each mask in its box instead.
        scores: (N,) numbers, higher is better; of equal scores the earlier mask is better. None: the smaller mask is
            better, so that none disappears under a larger one.
        shape: (H, W) of the image; not needed for an (N, H, W) array without boxes.
        boxes_yxyx: (N, 4) integers, half-open (y0, x0, y1, x1). They may reach over the edge of the image, as boxes in
            padded tiles do; pixels outside of it do not count.
        min_size: drop a mask if it would get fewer pixels than this.
        max_overlap: drop a mask if better ones have taken more than this share of its pixels, 0..1; 1 drops none.

    Returns:
        (H, W) int32 label map with ids 1..M from the best mask down, C-contiguous, and (M,) int64 index of the mask
        of each id. Masks that get no pixel have no id.

    Raises:
        ArrayError: if shapes, types or numbers of masks, scores and boxes do not fit, or a score is NaN.
        ConfigError: if ``max_overlap`` is not a share.

    Source: the order, and the share of a mask's own area, as in the merging of instances of Kirillov et al., Panoptic
    Segmentation, CVPR 2019.
    """
    if shape is None:
        if boxes_yxyx is not None or not isinstance(masks, np.ndarray) or masks.ndim != 3:
            got = f"{type(masks).__name__} of shape {getattr(masks, 'shape', 'unknown')}"
            raise ArrayError(f"give the shape (H, W) of the image unless masks are an (N, H, W) array; got {got}")
        shape = masks.shape[1:]
    height, width = _check_shape(shape)
    _check_share(max_overlap)
    order = None if scores is None else _best_first(scores)
    n = None if order is None else len(order)
    corners = None if boxes_yxyx is None else _check_boxes(boxes_yxyx, n)
    n = n if corners is None else len(corners)
    given = "boxes" if scores is None else "scores"
    if corners is None and _is_plain_stack(masks, n, height, width):
        runs, offsets = _stack_runs(masks)
    else:
        runs, offsets = _join(_mask_runs(masks, corners, n, given, height, width), n, given)
    flat, kept = _paint(runs, offsets, order, height * width, min_size, max_overlap)
    return flat.reshape(height, width), kept


def rles_to_labels(
    rles: Iterable[Any],
    scores: ArrayLike | None,
    shape: tuple[int, int],
    form: Form = "coco",
    *,
    min_size: int = 1,
    max_overlap: float = 1.0,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Give every pixel to the best of the masks that hold it, from their RLE.

    Args:
        rles: N masks: Kaggle's texts, or COCO's counts, compressed (str or bytes) or not (a list), alone or in a
            dictionary of ``size`` and ``counts``.
        scores: as for ``masks_to_labels``.
        shape: (H, W) of the image.
        form: one of ``cellbundle.instances.rle.FORMS``.
        min_size: as for ``masks_to_labels``.
        max_overlap: as for ``masks_to_labels``.

    Returns:
        As ``masks_to_labels``.

    Raises:
        ArrayError: if RLE is broken or of another image size, or for scores as in ``masks_to_labels``.
        ConfigError: for another form, or if ``max_overlap`` is not a share.

    Source: https://cocodataset.org/#format-data; layout of compressed counts as in pycocotools, maskApi.c.
    """
    check_form(form)
    height, width = _check_shape(shape)
    return runs_to_labels(
        rles_to_runs(rles, form, height, width),
        scores,
        (height, width),
        by_columns=is_by_columns(form),
        min_size=min_size,
        max_overlap=max_overlap,
    )


def runs_to_labels(
    runs: Iterable[NDArray[np.int64]],
    scores: ArrayLike | None,
    shape: tuple[int, int],
    *,
    by_columns: bool = False,
    min_size: int = 1,
    max_overlap: float = 1.0,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Give every pixel to the best of the masks that hold it, from their runs of pixels.

    Args:
        runs: for each mask (R, 2) int64, start in the flat image, from 0, and length; ascending.
        scores: as for ``masks_to_labels``.
        shape: (H, W) of the image.
        by_columns: whether the flat image goes down the columns; else along the rows.
        min_size: as for ``masks_to_labels``.
        max_overlap: as for ``masks_to_labels``.

    Returns:
        As ``masks_to_labels``.

    Raises:
        ArrayError: if runs overlap or leave the image, or for scores as in ``masks_to_labels``.
        ConfigError: if ``max_overlap`` is not a share.
    """
    height, width = _check_shape(shape)
    _check_share(max_overlap)
    order = None if scores is None else _best_first(scores)
    checked = (check_runs(i, of_mask, height * width) for i, of_mask in enumerate(runs))
    joined, offsets = _join(checked, None if order is None else len(order), "scores")
    flat, kept = _paint(joined, offsets, order, height * width, min_size, max_overlap)
    labels = flat.reshape(width, height).T if by_columns else flat.reshape(height, width)
    return np.ascontiguousarray(labels), kept


def labels_to_rles(labels: NDArray[np.integer], form: Form = "coco") -> list[str]:
    """RLE of every instance, in one pass for all.

    Args:
        labels: (H, W) integers, ids 1..N, 0 background.
        form: as for ``cellbundle.instances.rle.runs_to_rles``.

    Returns:
        The text of each id 1..N; also of one without pixels, which Kaggle writes as an empty text.

    Raises:
        ArrayError: if ``labels`` is not a map of non-negative integers, or the largest id exceeds the pixel count.
        ConfigError: for another form.
    """
    n = check_numbered(labels)
    check_form(form)
    labels = np.ascontiguousarray(labels, np.int32)
    flat = labels.reshape(-1)
    if is_by_columns(form):
        flat = np.empty(labels.size, np.int32)
        run_chunks(write_columns, labels.shape[1], labels, flat, min_chunk=MIN_COLUMNS_PER_THREAD)
    return runs_to_rles(*label_runs(flat, n), labels.size, form)


def _paint(
    runs: np.ndarray, offsets: np.ndarray, order: np.ndarray | None, n_pixels: int, min_size: int, max_overlap: float
) -> tuple[np.ndarray, np.ndarray]:
    """(n_pixels,) int32 ids in the flat image, and (M,) int64 index of the mask of each; see ``give_free_pixels``."""
    if order is None:
        pixels_before = np.append(0, runs[:, LENGTH].cumsum())[offsets]
        order = np.argsort(np.diff(pixels_before), kind="stable")
    flat = np.zeros(n_pixels, np.int32)
    return flat, give_free_pixels(order, offsets, runs, max(1, min_size), float(max_overlap), flat)


def _is_plain_stack(masks: Any, n: int | None, height: int, width: int) -> TypeGuard[np.ndarray]:
    """Whether the masks are an array of n images of this size that can be read as it lies in memory."""
    return (
        isinstance(masks, np.ndarray)
        and masks.shape == (len(masks) if n is None else n, height, width)
        and masks.dtype.kind in "biu"
        and masks.dtype.itemsize == 1
        and masks.flags.c_contiguous
    )


def _stack_runs(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R, 2) runs of all masks of a plain stack, and (N + 1,) offsets; in threads, as it may be gigabytes."""
    n, n_pixels = len(masks), masks[0].size if len(masks) else 0
    rows = masks.view(np.uint8).reshape(n, n_pixels)

    def find(start: int, stop: int) -> np.ndarray:
        return mask_runs(rows[start:stop], start * n_pixels, n_pixels)

    runs = np.concatenate(run_chunks(find, n, min_chunk=MIN_PIXELS_PER_THREAD // max(1, n_pixels)))
    offsets = np.searchsorted(runs[:, START], np.arange(n + 1) * n_pixels)
    runs[:, START] %= max(1, n_pixels)
    return runs, offsets


def _mask_runs(
    masks: Iterable[ArrayLike], boxes_yxyx: list[list[int]] | None, n: int | None, given: str, height: int, width: int
) -> Iterator[np.ndarray]:
    """(R, 2) runs of each mask."""
    for i, mask in enumerate(masks):
        if i == n:
            raise ArrayError(f"there must be as many {given} as masks, got {n} {given} and more masks")
        y0, x0, y1, x1 = (0, 0, height, width) if boxes_yxyx is None else boxes_yxyx[i]
        crop = _check_mask(mask, i, (y1 - y0, x1 - x0))
        crop = crop[max(-y0, 0) : max(height - y0, 0), max(-x0, 0) : max(width - x0, 0)]
        yield mask_to_runs(crop, max(y0, 0), max(x0, 0), width)


def _join(parts: Iterable[np.ndarray], n: int | None, given: str) -> tuple[np.ndarray, np.ndarray]:
    """(R, 2) runs of all masks, of which there must be n if that is known, and (n + 1,) offsets."""
    listed = list(parts)
    if n is not None and len(listed) != n:
        raise ArrayError(f"there must be as many {given} as masks, got {n} {given} and {len(listed)} masks")
    return np.concatenate([NO_RUNS, *listed]), np.cumsum([0, *map(len, listed)], dtype=np.int64)


def _best_first(scores: ArrayLike) -> np.ndarray:
    """(N,) int64 indices from the highest score down; of equal ones the first one first."""
    values = np.asarray(scores)
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iuf"):
        raise ArrayError(f"scores must be a 1-D array of numbers, got shape {values.shape} dtype {values.dtype}")
    values = values.astype(np.float64)
    if np.isnan(values).any():
        raise ArrayError(f"score {np.isnan(values).argmax()} is NaN; give every mask a number")
    return np.argsort(-values, kind="stable")


def _check_mask(mask: ArrayLike, i: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The mask as (h, w) uint8."""
    array = np.asarray(mask)
    if array.shape != shape or array.dtype.kind not in "biu":
        got = f"shape {array.shape} dtype {array.dtype}"
        hint = "; compare it with a threshold first" if array.dtype.kind == "f" else ""
        raise ArrayError(f"mask {i} must be bool or integers of shape {shape}, got {got}{hint}")
    return array.view(np.uint8) if array.itemsize == 1 else (array != 0).view(np.uint8)


def _check_boxes(boxes_yxyx: ArrayLike, n: int | None) -> list[list[int]]:
    """The boxes as lists of int, one for each of the n masks if that is given."""
    values = np.asarray(boxes_yxyx)
    n = len(values) if n is None else n
    if values.size + n > 0 and (values.shape != (n, 4) or values.dtype.kind not in "iu"):
        raise ArrayError(f"boxes must be ({n}, 4) integers, got shape {values.shape} dtype {values.dtype}")
    return values.tolist()


def _check_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width as int."""
    try:
        height, width = map(exact_int, shape)
    except (TypeError, ValueError):
        height = width = -1
    if min(height, width) < 0:
        raise ArrayError(f"shape must be (H, W) of the image, got {shape!r}")
    return height, width


def _check_share(max_overlap: float) -> None:
    if not 0 <= max_overlap <= 1:
        raise ConfigError(f"max_overlap is {max_overlap}; give a share of the pixels of a mask, 0..1")
