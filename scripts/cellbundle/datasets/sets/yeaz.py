"""YeaZ: budding yeast in bright field and phase contrast, with a label map each.

Several images are of one field: its crops and, in bright field, each crop at up to six settings. Some files of phase
contrast are time series; each frame becomes an image. There is no published split.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import tifffile
from numpy.typing import NDArray

from ...errors import DatasetError
from ...instances.labels import check_labels
from ...io.images.tiff import ONE_FILE
from .. import label_maps
from ..model import Found, Item, Problem, Sample
from ..splits import by_group as split
from ..tree import Tree

__all__ = ["convert", "locate", "split"]

SUBSETS = {"gold-standard-bf": "bf", "gold-standard-phc": "phc"}  # by the beginning of the folder
# wtF11BF_1.5 is field 11 of a wild type at a setting of 1.5, Ahmad_frame_16 a time of Ahmad.
FIELD = re.compile(r"(.+?)(?:(?<=BF)_[\d.]+|_frame_\d+)?(?:_crop_.*)?")


def locate(tree: Tree, variant: str, options: Mapping[str, Any], work: Path) -> Found:
    """Find ``gold-standard-*/x_im.tif`` with ``x_mask.tif``; see ``DatasetModule``."""

    def complete(item: Item, name: str) -> Item:
        folder = PurePosixPath(name).parent.name.lower()
        subsets = tuple(subset for start, subset in SUBSETS.items() if folder.startswith(start))
        return replace(item, group=_field(item.name), subsets=subsets)

    images, labels = (
        [name for start in SUBSETS for name in tree.glob(f"{start}*/*_{kind}.tif")] for kind in ("im", "mask")
    )
    found = label_maps.locate_pairs(tree, images, labels, _item_name, complete)
    items = []
    for item in found.items:
        try:
            items += _frames(item)
        except DatasetError as error:
            found.problems.append(Problem(item.name, str(error)))
    return replace(found, items=items)


def convert(item: Item, options: Mapping[str, Any]) -> Sample:
    """The image file as it is, or one frame of it, and its ids; see ``DatasetModule``."""
    if "frame" not in item.detail:
        return label_maps.convert(item, options)
    labels = _read_frame(item.labels[0], item.detail["frame"])
    check_labels(labels, str(item.labels[0]))
    return Sample(_read_frame(item.image, item.detail["frame"]), labels)


def _item_name(name: str) -> str:
    """``wtF11BF_1.5_crop_1`` of ``wtF11BF_1.5_crop_1_im.tif``."""
    return PurePosixPath(name).stem.rpartition("_")[0]


def _field(name: str) -> str:
    found = FIELD.fullmatch(name)
    return found[1] if found else name


def _frames(item: Item) -> list[Item]:
    """An item a frame, if its files are time series; else the item."""
    n, n_labels = _count_frames(item.image), _count_frames(item.labels[0])
    if n != n_labels:
        raise DatasetError(f"{item.image}: has {n} frames and its label file {n_labels}; get both files again")
    if n == 1:
        return [item]
    return [replace(item, name=f"{item.name}_t{i:03d}", detail={"frame": i}) for i in range(n)]


def _count_frames(path: Path) -> int:
    try:
        with tifffile.TiffFile(path, **ONE_FILE) as file:
            series = file.series[0]
            return series.shape[0] if series.ndim == 3 and series.axes[-1] == "X" and series.axes[0] != "C" else 1
    except Exception as error:  # tifffile raises anything on damaged bytes
        raise DatasetError(f"{path}: cannot be read as TIFF ({error}); get the file again") from error


def _read_frame(path: Path, frame: int) -> NDArray:
    try:
        return tifffile.imread(path, key=frame, **ONE_FILE)
    except Exception as error:  # as above
        raise DatasetError(f"{path}: frame {frame} cannot be decoded ({error}); get the file again") from error
