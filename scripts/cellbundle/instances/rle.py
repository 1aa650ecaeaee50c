"""Run lengths of masks as COCO and Kaggle files have them, read to runs of pixels and checked."""

from collections.abc import Iterable, Iterator, Mapping
from operator import index as exact_int
from typing import Any

import numpy as np

from ..errors import ArrayError
from ..kernels.masks import find_broken_run
from ..kernels.runs import read_coco_text


def read_runs(rles: Iterable[Any], form: str, height: int, width: int) -> Iterator[np.ndarray]:
    """Read run lengths, one mask at a time.

    Args:
        rles: as for ``cellbundle.instances.overlaps.rles_to_labels``.
        form: one of ``cellbundle.instances.overlaps.FORMS``.
        height: of the image.
        width: of the image.

    Yields:
        (R, 2) int64 start and length in the flat image of each mask, ascending and inside of the image.

    Raises:
        ArrayError: if run lengths are broken or of another image size.
    """
    for i, rle in enumerate(rles):
        try:
            runs = _coco_runs(rle, height, width) if form == "coco" else _kaggle_runs(rle)
        except (ValueError, TypeError, OverflowError, KeyError) as error:
            raise ArrayError(f"run lengths of mask {i} are no {form} ones: {error}") from error
        yield check_runs(i, runs, height * width)


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
