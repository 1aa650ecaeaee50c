# SPDX-License-Identifier: AGPL-3.0-or-later
"""One image as square 8-bit tiles with a file of outlines each, as ultralytics reads them."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellbundle.errors import CellBundleError, DatalistError, LabelReadError
from cellbundle.inference.detection import tile_corners
from cellbundle.inference.tiling import plan_tiles
from cellbundle.instances.labels import keep_ids, renumber
from cellbundle.io import stem
from cellbundle.io.formats.yolo import write_yolo

FILL = 114  # grey beside smaller images, as ultralytics' own letterbox has it
MAX_NAME = 80  # characters of an image's name that the names of its tiles keep
DATA_YAML = "data.yaml"
COUNTED = (
    "fullest",
    "images",
    "instances",
    "tiles",
    "tiles without instances",
    "outlines",
    "outlines of instances with holes",
    "outlines of instances in several parts",
    "outlines of fewer pixels than min_size",
    "remnants at tile edges left out",
)


Entry = dict[str, Any]
Transform = Callable[[Any], Any]


@dataclass(frozen=True)
class TileOptions:
    """What decides what is written of an image; see ``prepare_dataset``.

    Attributes:
        tile: side in pixels.
        overlap: share of a tile.
        min_size: pixels.
        class_names: at least one.
    """

    tile: int
    overlap: float
    min_size: int
    class_names: tuple[str, ...]


def export_image(
    folder: Path, numbered: tuple[int, Entry], *, transforms: Sequence[Transform], options: TileOptions
) -> Counter[str]:
    """Write the tiles of one image into ``folder`` and their outlines beside it, and count."""
    number, entry = numbered
    image, labels, classes = _read(entry, transforms, options.class_names)
    pixels = np.bincount(labels.ravel())
    counts = Counter({"images": 1, "instances": len(classes)})
    plan = plan_tiles(labels.shape, (options.tile, options.tile), options.overlap, multiple=1, fixed=True)
    base = re.sub(r"[^A-Za-z0-9_-]", "_", stem(entry["image"]))[:MAX_NAME]
    for y, x in tile_corners(plan, labels.shape):
        name = f"{number:06d}_{base}_{y}_{x}"
        Image.fromarray(_cut(image, y, x, options.tile, FILL)).save(folder / f"{name}.png", compress_level=1)
        seen = _cut(labels, y, x, options.tile, 0)
        inside = np.bincount(seen.ravel(), minlength=len(pixels))
        inside[0] = 0
        keep = (inside >= options.min_size) | ((inside > 0) & (inside == pixels))
        path = folder.parents[1] / "labels" / folder.name / f"{name}.txt"
        written = write_yolo(path, keep_ids(seen, keep), classes[keep[1:]].tolist())
        counts["fullest"] = max(counts["fullest"], written.lines)
        counts += Counter(
            {
                "tiles": 1,
                "tiles without instances": int(not written.lines),
                "outlines": written.lines,
                "outlines of instances with holes": written.with_holes,
                "outlines of instances in several parts": written.in_parts,
                "outlines of fewer pixels than min_size": int((inside[keep] < options.min_size).sum()),
                "remnants at tile edges left out": int(((inside > 0) & ~keep).sum()),
            }
        )
    return counts


def _read(
    entry: Entry, transforms: Sequence[Transform], class_names: Sequence[str]
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int64]]:
    """Image (H, W, 3), labels (H, W) with ids 1..N, and the class of each, from 0."""
    if not entry.get("label"):
        raise DatalistError(f"{entry['image']}: has no 'label'; training and validation need one")
    item: dict[str, Any] = dict(entry)
    try:
        for transform in transforms:
            item = transform(item)
    except CellBundleError as error:
        if str(entry["image"]) in str(error):
            raise
        raise type(error)(f"{entry['image']}: {error}") from error
    image = np.rint(np.asarray(item["image"]).clip(0, 1) * 255).astype(np.uint8)
    labels, n = renumber(np.asarray(item["label"])[0])
    table = item.get("classes")
    classes = np.zeros(n, np.int64) if table is None else np.asarray(table)[1:] - 1
    if classes.max(initial=0) >= len(class_names):
        raise LabelReadError(
            f"{entry['image']}: has class {classes.max() + 1}, but {DATA_YAML} has only {', '.join(class_names)}"
        )
    return image.transpose(1, 2, 0), labels, classes


def _cut(values: NDArray, y: int, x: int, tile: int, fill: int) -> NDArray:
    """A tile (tile, tile, ...) from (y, x) on; what lies beyond the image is ``fill``."""
    inside = values[y : y + tile, x : x + tile]
    result = np.full((tile, tile, *values.shape[2:]), fill, values.dtype)
    result[: inside.shape[0], : inside.shape[1]] = inside
    return result
