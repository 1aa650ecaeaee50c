"""Run lengths in a csv table, as Kaggle's cell challenges exchange masks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from ...errors import ConfigError, LabelReadError
from ...instances import Instances
from ...instances.overlaps import labels_to_rles
from ...instances.rle import Form
from ..images.errors import named
from ..table import plain_cell, write_rows

HEADER = ("ImageId", "EncodedPixels")
SUBMISSION_HEADER = ("idx", "id", "annotation")
ORDERS: dict[str, Form] = {"column": "kaggle", "row": "kaggle_rows"}  # in which pixels count, and the form of RLE
NOTHING = "-1"  # in a submission, of an image without instances
NO_RUNS = ("", "nan", NOTHING)


@dataclass(frozen=True)
class KaggleImage:
    """The rows of one image in a table of run lengths.

    Attributes:
        runs: text of each instance in the order of the file, not checked; none for an image without instances.
            ``cellbundle.instances.painting.paint_rles`` paints them: form ``"kaggle"`` for runs down the columns,
            ``"kaggle_rows"`` along the rows, which the table does not tell.
        shape: (H, W) of the image, or None if the table has no columns ``height`` and ``width``.
    """

    runs: list[str]
    shape: tuple[int, int] | None


def read_kaggle(
    path: str | Path,
    *,
    id_columns: Sequence[str] = ("ImageId", "id"),
    rle_columns: Sequence[str] = ("EncodedPixels", "annotation"),
) -> dict[str, KaggleImage]:
    """Read a table of run lengths, one row for each instance.

    Args:
        path: a csv file with a header.
        id_columns: names of the column that says to which image a row belongs; the first one that is there.
        rle_columns: names of the column of run lengths, likewise.

    Returns:
        The images by id, in the order of the file.

    Raises:
        LabelReadError: if the file cannot be read, a column is missing, rows of one image differ in its size, or that
            is no number of pixels.
    """
    with named(Path(path), LabelReadError):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        rle_column = _choose(table, rle_columns)
        id_column = _choose(table, id_columns)
        table[id_column] = table[id_column].map(plain_cell)
        images = {}
        for name, rows in table.groupby(id_column, sort=False):
            runs = [text for text in rows[rle_column] if text.strip().lower() not in NO_RUNS]
            images[str(name)] = KaggleImage(runs, _shape(str(name), rows))
        return images


def _choose(table: pd.DataFrame, names: Sequence[str]) -> str:
    """The first of the names that the table has as a column."""
    for name in names:
        if name in table:
            return name
    raise LabelReadError(f"has the columns {', '.join(map(str, table))}, expected one named {' or '.join(names)}")


def _shape(name: str, rows: pd.DataFrame) -> tuple[int, int] | None:
    """(H, W) that all rows of an image agree on."""
    if not {"height", "width"} <= set(rows):
        return None
    sizes = set(zip(rows["height"], rows["width"], strict=True))
    if len(sizes) > 1 or not all(text.isdecimal() and int(text) for text in min(sizes)):
        raise LabelReadError(f"image {name} has the sizes {sorted(sizes)}, expected one height and width in pixels")
    height, width = sizes.pop()
    return int(height), int(width)


def write_kaggle(
    path: str | Path, instances: Instances, image_id: str, *, order: Literal["column", "row"] = "column"
) -> None:
    """Write one row for each instance: the image, and ``start length start length …``, counted from 1.

    An image without instances gets one row with empty runs. Holes and several parts are exact. For a set of images,
    join the files without the headers. An id that a spreadsheet takes for a formula gets a leading apostrophe, which
    ``read_kaggle`` removes.

    Args:
        path: the file to write; its folder must exist.
        instances: any number of instances; rows are in the order of the ids.
        image_id: what the first column says.
        order: ``"column"`` counts pixels down the columns (Data Science Bowl 2018), ``"row"`` along the rows
            (Sartorius 2021).

    Raises:
        ConfigError: for another order.
        OSError: if the file cannot be written.
    """
    if order not in ORDERS:
        raise ConfigError(f"order is {order!r}; choose one of {', '.join(ORDERS)}")
    runs = labels_to_rles(instances.labels, ORDERS[order])
    write_rows(path, HEADER, [(image_id, text) for text in runs or [""]])


def write_submission(path: str | Path, images: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Write a table ``idx,id,annotation`` of the instances of many images, one a row; ``read_kaggle`` reads it.

    Args:
        path: the file to write; its folder must exist.
        images: id of each image, and the runs of its instances, ``start length start length …`` from 1, in the order
            of pixels that the challenge asks for; an image without instances gets a row that says -1.

    Raises:
        OSError: if the file cannot be written.
    """
    nothing = [int(NOTHING)]  # a number, which needs no apostrophe
    rows = ((name, cell) for name, runs in images for cell in (runs or nothing))
    write_rows(path, SUBMISSION_HEADER, ((number, *row) for number, row in enumerate(rows)))
