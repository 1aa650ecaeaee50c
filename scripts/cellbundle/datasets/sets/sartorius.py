"""Sartorius Cell Instance Segmentation (Kaggle 2021): neurons and astrocytes in phase contrast, a table of run lengths.

Run lengths count along the rows, unlike those of the Data Science Bowl, and masks overlap. A sample such as
``shsy5y[diff]_E10-4_Vid...`` names plate, well and place in the well. There are no public labels of the test images, so
that whole plates and wells of the training images are held out for testing.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from ...errors import ArrayError, DatasetError, LabelReadError
from ...instances.painting import paint_masks, paint_rles
from ..model import Found, Item, Problem, Sample
from ..splits import by_group as split
from ..tree import Tree
from ._remarks import remarks_on

__all__ = ["convert", "locate", "split"]

TABLE = "train.csv"
OF_IMAGE = ["width", "height", "cell_type", "sample_id"]  # columns that are the same in all rows of an image
COLUMNS = ["id", "annotation", *OF_IMAGE]
PLATE_AND_WELL = re.compile(r"(.+?_[A-P]\d{1,2})-\d+(?:_.*)?")


def locate(tree: Tree, variant: str, options: Mapping[str, Any], work: Path) -> Found:
    """Bring the images of ``train`` and the rows of ``train.csv`` together; see ``DatasetModule``.

    Raises:
        DatasetError: if there is not just one table, or it is another one.
    """
    del variant, options, work
    tables = tree.glob(TABLE)
    if len(tables) != 1:
        raise DatasetError(f"{tree.root}: expected one {TABLE}, found {', '.join(tables) or 'none'}")
    path = tree.files[tables[0]]
    rows = dict(list(_read_table(path).groupby("id")))
    images = {PurePosixPath(name).stem: name for name in tree.glob("train/*.png")}
    found = Found()
    for name in sorted(rows.keys() | images.keys()):
        if name not in images:
            found.problems.append(Problem(name, f"stands in {TABLE}, but train/{name}.png is not there; get it"))
        elif name not in rows:
            found.problems.append(Problem(name, f"{images[name]} has no row in {TABLE}; get the whole table"))
        elif len(rows[name][OF_IMAGE].drop_duplicates()) > 1:
            found.problems.append(Problem(name, f"has different {', '.join(OF_IMAGE)} in {TABLE}; get the table again"))
        else:
            found.items.append(_item(name, tree.files[images[name]], path, rows[name]))
    return found


def convert(item: Item, options: Mapping[str, Any]) -> Sample:
    """Paint the run lengths of an image; see ``DatasetModule``."""
    rles, (height, width) = item.detail["rles"], item.detail["shape"]
    shape = (height, width)
    try:
        if options["fill_holes"]:
            painted = paint_masks((_filled(rle, shape) for rle in rles), shape)
        else:
            painted = paint_rles(rles, shape, "kaggle_rows")
    except ArrayError as error:
        raise LabelReadError(f"{item.labels[0]}: image {item.name}: {error}") from error
    return Sample(item.image, painted.labels, tuple(remarks_on(item, painted, "cells")))


def _item(name: str, image: Path, table: Path, rows: pd.DataFrame) -> Item:
    """An image with its rows."""
    first = rows.iloc[0]
    plate_and_well = PLATE_AND_WELL.fullmatch(first["sample_id"])
    detail = {
        "rles": [text for text in rows["annotation"] if text],  # an image without cells may have an empty row
        "shape": [int(first["height"]), int(first["width"])],
    }
    group = plate_and_well[1] if plate_and_well else first["sample_id"]
    return Item(name, image, (table,), group, subsets=(first["cell_type"],), detail=detail)


def _read_table(path: Path) -> pd.DataFrame:
    """The rows."""
    types = dict.fromkeys(COLUMNS, str) | {"width": int, "height": int}
    try:
        return pd.read_csv(path, usecols=COLUMNS, dtype=types, keep_default_na=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"{path}: is no table with the columns {', '.join(COLUMNS)} ({reason}); get it again"
        ) from error


def _filled(rle: str, shape: tuple[int, int]) -> NDArray[np.int32]:
    """(H, W) mask of one cell, without holes."""
    mask = paint_rles([rle], shape, "kaggle_rows").labels
    for box in ndimage.find_objects(mask):
        mask[box] = ndimage.binary_fill_holes(mask[box])
    return mask
