"""Run lengths in a csv table, as Kaggle's cell challenges exchange masks."""

import csv
from pathlib import Path
from typing import Literal

from ..errors import ConfigError
from ..instances import Instances
from ..masks import labels_to_rles
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
    runs = labels_to_rles(instances.labels, "kaggle" if order == "column" else "kaggle_rows")
    rows = [(image_id, text) for text in runs or [""]]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(rows)
