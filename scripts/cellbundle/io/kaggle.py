"""Run lengths in a csv table, as Kaggle's cell challenges exchange masks."""

import csv
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import ConfigError
from ..instances import Instances
from ..kernels.runs import find_runs
from .write import atomic_path

HEADER = ("ImageId", "EncodedPixels")
ORDERS = ("column", "row")


def write_kaggle(
    path: str | Path, instances: Instances, image_id: str, *, order: Literal["column", "row"] = "column"
) -> None:
    """Write one row for each instance: the image, and ``start length start length …``, counted from 1.

    An image without instances gets one row with empty runs. Holes and several parts are exact. For a set of images,
    join the files without the headers.

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
    rows = [(image_id, runs) for runs in _encode(instances, order)] or [(image_id, "")]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(rows)


def _encode(instances: Instances, order: Literal["column", "row"]) -> list[str]:
    """The text of each instance."""
    flat = instances.labels.ravel(order="F" if order == "column" else "C")
    offsets, starts, lengths = find_runs(flat, len(instances))
    numbers = list(map(str, np.column_stack([starts + 1, lengths]).ravel().tolist()))
    ends = (2 * offsets).tolist()
    return [" ".join(numbers[first:last]) for first, last in pairwise(ends)]
