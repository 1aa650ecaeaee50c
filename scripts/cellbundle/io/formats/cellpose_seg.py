"""Cellpose's ``_seg.npy`` files, which its graphical interface opens for correction."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import LabelReadError
from ...instances import Instances
from ...instances.labels import check_labels
from ...kernels.geometry import boxes_and_areas
from ...kernels.parallel import run_chunks
from ...kernels.polygons import mark_outer_pixels
from ..images.errors import named
from ..overlay import OUTLINE_COLOURS
from ..write import atomic_path
from ._safe_pickle import load_npy

MAX_UINT16_ID = 65534  # cellpose itself goes on with uint32 from here


def write_cellpose_seg(path: str | Path, instances: Instances, file_name: str | Path) -> None:
    """Write a ``_seg.npy`` file.

    Cellpose finds the file beside an image ``a.tif`` by the name ``a_seg.npy``. It holds no flows, so the interface
    shows and edits the masks, but cannot recompute them with other thresholds.

    Args:
        path: the file to write; its folder must exist.
        instances: any number of instances.
        file_name: path of the image; where it is not found, cellpose looks for its name in the folder of ``path``.

    Raises:
        OSError: if the file cannot be written.

    Source: keys as in cellpose 4, ``io.masks_flows_to_seg`` and ``gui/io._load_seg`` (BSD-3).
    """
    n = len(instances)
    dtype = np.uint16 if n <= MAX_UINT16_ID else np.uint32
    content: dict[str, Any] = {
        "outlines": _outlines(instances).astype(dtype),
        "masks": instances.labels.astype(dtype),
        "chan_choose": [0, 0],
        "ismanual": np.zeros(n, bool),
        "filename": str(file_name),
        "flows": [[], [], [], [], [[]]],
        "diameter": np.nan,
        "colors": OUTLINE_COLOURS[np.arange(1, n + 1) % len(OUTLINE_COLOURS)],
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.array(content, dtype=object), allow_pickle=True)


def read_cellpose_seg(path: str | Path) -> NDArray[np.int32]:
    """Read the label map of a ``_seg.npy`` file, of any version of cellpose; nothing in the file is run.

    Args:
        path: a file that cellpose or ``write_cellpose_seg`` has saved.

    Returns:
        (H, W) int32, 0 background; ids as in the file, not necessarily consecutive.

    Raises:
        LabelReadError: if the file cannot be read, is none of cellpose, or holds no 2-D label map.
    """
    content = load_npy(path)
    with named(Path(path), LabelReadError):
        saved = content.item() if content.dtype == object and content.size == 1 else None
        if not isinstance(saved, dict) or "masks" not in saved:
            got = f"keys {sorted(map(str, saved))}" if isinstance(saved, dict) else f"an array {content.shape}"
            raise LabelReadError(f"is no _seg.npy file of cellpose: holds {got}, expected a dictionary with 'masks'")
        labels = np.asarray(saved["masks"])
        if check_labels(labels, "masks") > np.iinfo(np.int32).max:
            raise LabelReadError(f"masks have ids up to {labels.max()}, expected at most 2**31 - 1; renumber them")
        return labels.astype(np.int32)


def _outlines(instances: Instances) -> NDArray[np.int32]:
    """(H, W) int32: ids at the outer pixels of each instance, else 0; edges of holes do not count, as in cellpose."""
    labels = np.ascontiguousarray(instances.labels)
    marked = np.zeros(labels.shape, np.bool_)
    boxes, _ = boxes_and_areas(labels, len(instances))
    run_chunks(mark_outer_pixels, len(instances), labels, boxes, marked)
    return np.where(marked, labels, 0)
