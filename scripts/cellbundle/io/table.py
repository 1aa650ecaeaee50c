"""Tables of measurements as csv and Parquet files.

Spreadsheets run text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break as a formula ("CSV injection").
In csv files such text gets a leading apostrophe, and so does text that begins with apostrophes and such a character:
``plain_cell`` gives the original of each.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from itertools import chain
from numbers import Number
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pandas.api.types import is_numeric_dtype

from ..errors import DependencyError
from .write import atomic_path

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NEUTRAL = re.compile(r"'+[=+\-@\t\r\n]")
_Quoting = Literal[0, 2]
_PLAIN: _Quoting = csv.QUOTE_MINIMAL
_ALL_TEXT: _Quoting = csv.QUOTE_NONNUMERIC


def neutral_cell(value: Any) -> Any:
    """Return text that a spreadsheet takes for a formula with a leading apostrophe; numbers and other text as it is."""
    if value is None or isinstance(value, Number):
        return value
    text = str(value)
    return f"'{text}" if _FORMULA.match(text) else value


def plain_cell(text: str) -> str:
    """Return the original of text that ``neutral_cell`` gave."""
    return text[1:] if _NEUTRAL.match(text) else text


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as a csv file: UTF-8, header, comma, decimal point, empty cells for missing values.

    Text and column names that a spreadsheet takes for a formula get a leading apostrophe; numbers never do.

    Args:
        path: the file to write; its folder must exist. A suffix like ``.gz`` compresses it.
        table: any table; its index is left out.

    Raises:
        OSError: if the file cannot be written.
    """
    shown, quoting = _neutral(table)
    with atomic_path(path) as temporary:
        shown.to_csv(temporary, index=False, lineterminator="\n", quoting=quoting)


def write_rows(path: str | Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write rows as a csv file, in the format of ``write_csv``.

    Args:
        path: the file to write; its folder must exist.
        header: names of the columns.
        rows: values of the cells; None is an empty cell.

    Raises:
        OSError: if the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writers = {quoting: csv.writer(file, lineterminator="\n", quoting=quoting) for quoting in (_PLAIN, _ALL_TEXT)}
        for row in chain([header], rows):
            cells = list(map(neutral_cell, row))
            writers[_quoting(cells)].writerow(cells)


def _neutral(table: pd.DataFrame) -> tuple[pd.DataFrame, _Quoting]:
    """The table with neutral cells, and how to quote it; columns without formulas are not copied."""
    shown, names = table.copy(deep=False), list(map(neutral_cell, table.columns))
    quoting = _quoting(names)
    for number, dtype in enumerate(table.dtypes):
        if is_numeric_dtype(dtype):
            continue
        values = list(table.iloc[:, number])
        cells = list(map(neutral_cell, values))
        quoting = max(quoting, _quoting(cells))
        if any(cell is not value for cell, value in zip(cells, values, strict=True)):
            shown.isetitem(number, pd.Series(cells, index=table.index, dtype=object))
    if names != list(table.columns):
        shown.columns = pd.Index(names)
    return shown, quoting


def _quoting(cells: Iterable[Any]) -> _Quoting:
    """How to quote some cells: Python's csv leaves a carriage return alone, which readers take for the end of a row."""
    return _ALL_TEXT if any(not isinstance(cell, Number) and "\r" in str(cell) for cell in cells) else _PLAIN


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
