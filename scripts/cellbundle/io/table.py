"""Tables of measurements as csv and Parquet files."""

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from ..errors import DependencyError
from .write import atomic_path


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as a csv file: UTF-8, header, comma, decimal point, empty cells for missing values.

    Args:
        path: the file to write; its folder must exist. A suffix like ``.gz`` compresses it.
        table: any table; its index is left out.

    Raises:
        OSError: if the file cannot be written.
    """
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def write_parquet(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as a Parquet file, which keeps the types of the columns.

    Args:
        path: the file to write; its folder must exist.
        table: any table with string column names; its index is left out.

    Raises:
        DependencyError: if pyarrow is not installed.
        OSError: if the file cannot be written.
    """
    check_parquet()
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, engine="pyarrow", index=False)


def check_parquet() -> None:
    """Raise ``DependencyError`` if Parquet files cannot be written."""
    if find_spec("pyarrow") is None:
        raise DependencyError('Parquet files need the package pyarrow; pip install "cellbundle[parquet]"')
