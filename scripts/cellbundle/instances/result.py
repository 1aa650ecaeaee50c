"""The result for one image: which pixels belong to which cell, and what is known about each cell."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import ArrayError
from .labels import check_labels


@dataclass(frozen=True, eq=False)
class Instances:
    """A label map with a table that has one row for each instance.

    Attributes:
        labels: (H, W) int32, ids 1..N without gaps, 0 background.
        table: N rows in the order of the ids. Column ``label`` holds the ids; ``class`` (str, may be missing in some
            rows), ``score`` (0..1) and measurements may follow.
        pixel_size_um: (y, x) size of a pixel in µm, or None where unknown.

    Raises:
        ArrayError: if the labels are no such map, or if the rows of the table are not its instances.
    """

    labels: NDArray[np.int32]
    table: pd.DataFrame
    pixel_size_um: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_labels(self.labels)
        if self.labels.dtype != np.int32:
            raise ArrayError(f"labels must be int32, got {self.labels.dtype}; labels.renumber gives it")
        n = len(self.table)
        if "label" not in self.table or not np.array_equal(self.table["label"], np.arange(1, n + 1)):
            raise ArrayError(f"table must have a column 'label' with 1..{n}, got columns {list(self.table.columns)}")
        highest = int(self.labels.max(initial=0))
        if highest != n:
            raise ArrayError(f"table must have one row for each of the {highest} ids, got {n} rows")
        present = np.zeros(n + 1, np.bool_)
        present[self.labels.reshape(-1)] = True
        if not present[1:].all():
            absent = 1 + int(np.argmin(present[1:]))
            raise ArrayError(f"labels must have ids 1..{n} without gaps, got no pixel of {absent}; renumber them")

    def __len__(self) -> int:
        """Number of instances."""
        return len(self.table)

    @property
    def classes(self) -> list[str | None]:
        """The class of each instance; None where the table names none."""
        if "class" not in self.table:
            return [None] * len(self)
        column = self.table["class"]
        return [str(name) if known else None for name, known in zip(column, column.notna(), strict=True)]
