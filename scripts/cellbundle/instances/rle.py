"""RLE as COCO and Kaggle files have it, and runs of pixels: the one to the other, and masks to runs.

Runs of a mask are (R, 2) int64: start in the flat image, from 0, and length. ``cellbundle.instances.overlaps`` makes
label maps of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import index as exact_int
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ArrayError, ConfigError
from ..kernels.masks import find_broken_run, mask_runs
from ..kernels.runs import coco_counts, read_coco_text

Form = Literal["coco", "kaggle", "kaggle_rows"]
FORMS = ("coco", "kaggle", "kaggle_rows")
"""COCO's counts; Kaggle's ``start length …`` from 1, down the columns (Data Science Bowl 2018) or along the rows
(Sartorius 2021)."""


def check_form(form: str) -> None:
    """Raise ``ConfigError`` unless ``form`` is one of ``FORMS``."""
    if form not in FORMS:
        raise ConfigError(f"form is {form!r}; choose one of {', '.join(FORMS)}")


def is_by_columns(form: str) -> bool:
    """Whether pixels count down the columns in a form, not along the rows."""
    return form != "kaggle_rows"


def rles_to_runs(rles: Iterable[Any], form: str, height: int, width: int) -> Iterator[np.ndarray]:
    """Read RLE, one mask at a time.

    Args:
        rles: as for ``cellbundle.instances.overlaps.rles_to_labels``.
        form: one of ``FORMS``.
        height: of the image.
        width: of the image.

    Yields:
        The runs of each mask in the flat image, which goes down the columns if ``is_by_columns(form)``; not checked,
        see ``check_runs``.

    Raises:
        ArrayError: if RLE cannot be read or is of another image size.
    """
    for i, rle in enumerate(rles):
        try:
            runs = _coco_runs(rle, height, width) if form == "coco" else _kaggle_runs(rle)
        except (ValueError, TypeError, OverflowError, KeyError) as error:
            raise ArrayError(f"run lengths of mask {i} are no {form} ones: {error}") from error
        yield runs


def runs_to_rles(
    offsets: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64], n_pixels: int, form: Form
) -> list[str]:
    """Write the RLE of N masks.

    Args:
        offsets: (N + 1,), the runs of mask i are ``offsets[i]:offsets[i + 1]``.
        starts: (R,) in the flat image, which goes down the columns if ``is_by_columns(form)``, from 0; ascending in a
            mask.
        lengths: (R,).
        n_pixels: of the image.
        form: one of ``FORMS``. COCO's counts are compressed, as ``pycocotools.mask.encode`` gives them.

    Returns:
        A text for each mask. Kaggle writes a mask without pixels as an empty text.
    """
    if form == "coco":
        text, ends = coco_counts(offsets, starts, lengths, n_pixels)
        counts = text.tobytes().decode("ascii")
        return [counts[first:last] for first, last in pairwise(ends.tolist())]
    numbers = list(map(str, np.column_stack([starts + 1, lengths]).ravel().tolist()))
    return [" ".join(numbers[first:last]) for first, last in pairwise((2 * offsets).tolist())]


def mask_to_runs(mask: NDArray[np.bool_] | NDArray[np.uint8], top: int, left: int, width: int) -> NDArray[np.int64]:
    """Find the runs of a mask in the flat image that it is a part of.

    Args:
        mask: (h, w); every value but 0 is inside. Give ``mask.T`` for an image that is flat down the columns, and
            exchange rows and columns in the other arguments.
        top: row of the image that its first row lies on.
        left: column of the image that its first column lies on.
        width: of the image. A run of a mask of this width continues from one row to the next.
    """
    rows = np.ascontiguousarray(mask).view(np.uint8)
    if rows.shape[1] == width:
        rows = rows.reshape(1, -1)  # blank rows are skipped together
    return mask_runs(rows, top * width + left, width)


def coco_rle(counts: str, shape: Sequence[int]) -> dict[str, Any]:
    """The RLE of a mask as COCO files and pycocotools have it: its counts with the size (H, W) of the image."""
    return {"size": list(shape), "counts": counts}


def check_runs(i: int, runs: np.ndarray, n_pixels: int) -> np.ndarray:
    """The runs of mask i; ``ArrayError`` unless they are ascending, apart and inside of the image."""
    broken = find_broken_run(runs, n_pixels)
    if broken >= 0:
        start, length = runs[broken].tolist()
        raise ArrayError(
            f"run lengths of mask {i}: run {broken} (start {start} from 0, length {length}) must lie behind the "
            f"one before it and inside of the image of {n_pixels} pixels"
        )
    return runs


def _coco_runs(rle: Any, height: int, width: int) -> np.ndarray:
    """(R, 2) runs, not checked, of one mask in a COCO file."""
    if isinstance(rle, Mapping):
        if list(rle["size"]) != [height, width]:
            raise ValueError(f"size is {list(rle['size'])}, that of the image {[height, width]}")
        rle = rle["counts"]
    if isinstance(rle, str | bytes):
        text = rle.encode() if isinstance(rle, str) else rle
        counts, used = read_coco_text(np.frombuffer(text, np.uint8))
        if used < len(text):
            raise ValueError(f"the characters from {used} on are no number")
    else:
        counts = np.fromiter(map(exact_int, rle), np.int64)
    if counts.sum() != height * width:
        raise ValueError(f"counts add up to {counts.sum()} pixels, the image has {height * width}")
    runs = np.empty((len(counts) // 2, 2), np.int64)
    runs[:, 0], runs[:, 1] = counts.cumsum()[: len(counts) - 1 : 2], counts[1::2]
    return runs


def _kaggle_runs(text: Any) -> np.ndarray:
    """(R, 2) runs, not checked, of one mask in a Kaggle table."""
    if not isinstance(text, str):
        raise TypeError(f"expected text, got {text!r}")
    numbers = np.fromiter(map(int, text.split()), np.int64)
    if len(numbers) % 2:
        raise ValueError(f"expected pairs of start and length, got {len(numbers)} numbers")
    return numbers.reshape(-1, 2) - (1, 0)
