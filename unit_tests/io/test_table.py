"""Tables come back as they were."""

import csv
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
import pytest

from cellbundle.errors import DependencyError
from cellbundle.io import table as module
from cellbundle.io.table import neutral_cell, plain_cell, write_csv, write_parquet, write_rows

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=", "'=1", "''-1", '=cmd|"/c calc"!A0', "-5"]
HARMLESS = ["", "a=b", "a\r=1", "a\r\n=1", " =1", "'", "'a", "a'=1", "1-2", "''", "é=", "(-1)", ".5"]


def test_csv_comes_back(tmp_path, scored):
    write_csv(tmp_path / "a.csv", scored.table)
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "a.csv", dtype={"round": "Int64"}), scored.table, check_dtype=False
    )
    assert (tmp_path / "a.csv").read_bytes().startswith(b"label,class,score,area_px,note,round\n1,tumour,0.5,3,a,1\n")
    assert len(list(tmp_path.iterdir())) == 1


def test_parquet_comes_back_with_its_types(tmp_path, scored):
    pytest.importorskip("pyarrow")
    table = scored.table.set_index(pd.Index([4, 5, 6, 7]))
    write_parquet(tmp_path / "a.parquet", table)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), scored.table)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("columns", [["label"], ["label", "class", "score"]])
def test_tables_without_rows(tmp_path, columns):
    pytest.importorskip("pyarrow")
    empty = pd.DataFrame({name: [] for name in columns})
    write_csv(tmp_path / "a.csv", empty)
    write_parquet(tmp_path / "a.parquet", empty)
    assert list(pd.read_csv(tmp_path / "a.csv")) == list(pd.read_parquet(tmp_path / "a.parquet")) == columns


def test_many_rows(tmp_path, many):
    pytest.importorskip("pyarrow")
    write_csv(tmp_path / "a.csv", many.table)
    write_parquet(tmp_path / "a.parquet", many.table)
    for table in (pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "a.parquet")):
        pd.testing.assert_frame_equal(table, many.table, check_dtype=False)


def test_a_missing_package_is_named(tmp_path, monkeypatch, scored):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"cellbundle\[parquet\]"):
        write_parquet(tmp_path / "a.parquet", scored.table)
    assert not list(tmp_path.iterdir())


def cells(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("text", [*FORMULAS, *HARMLESS])
def test_text_that_a_spreadsheet_runs_gets_an_apostrophe(tmp_path, text):
    expected = f"'{text}" if text in FORMULAS else text
    assert neutral_cell(text) == expected
    write_csv(tmp_path / "a.csv", pd.DataFrame({text: [text, "plain", None], "n": [-1.5, 2, np.nan]}))
    assert cells(tmp_path / "a.csv") == [[expected, "n"], [expected, "-1.5"], ["plain", "2.0"], ["", ""]]
    write_rows(tmp_path / "b.csv", [text, "n"], iter([(text, -1.5), ("plain", 2.0), (None, None)]))
    assert cells(tmp_path / "b.csv") == cells(tmp_path / "a.csv")
    assert plain_cell(expected) == text


def test_originals_of_neutral_text_are_unique():
    texts = [*FORMULAS, *HARMLESS]
    assert len({neutral_cell(text) for text in texts}) == len(texts)
    assert [plain_cell(neutral_cell(text)) for text in texts] == texts


@pytest.mark.parametrize("dtype", ["object", "str", "category"])
def test_every_type_of_text_column(tmp_path, dtype):
    table = pd.DataFrame({"name": pd.Series(["=a", "b", "=a"], dtype=dtype)}).set_axis([3, 3, 1])
    before = table.copy()
    write_csv(tmp_path / "a.csv", table)
    assert cells(tmp_path / "a.csv") == [["name"], ["'=a"], ["b"], ["'=a"]]
    pd.testing.assert_frame_equal(table, before)


def test_numbers_are_as_they_are(tmp_path):
    mixed = [-1, np.float32(-0.5), np.int64(-7), True, None, "=a", PurePosixPath("-x"), float("-inf")]
    table = pd.DataFrame({"mixed": pd.Series(mixed, dtype=object), "n": range(-8, 0)})
    table["twice"] = table["mixed"]
    table.columns = ["mixed", "n", "mixed"]
    write_csv(tmp_path / "a.csv", table)
    column = ["-1", "-0.5", "-7", "True", "", "'=a", "'-x", "-inf"]
    rows = [[cell, str(number), cell] for cell, number in zip(column, range(-8, 0), strict=True)]
    assert cells(tmp_path / "a.csv") == [["mixed", "n", "mixed"], *rows]


def test_failed_rows_leave_the_older_file(tmp_path):
    write_rows(tmp_path / "a.csv", ["a"], [[1]])
    with pytest.raises(ZeroDivisionError):
        write_rows(tmp_path / "a.csv", ["a"], ([1 / n] for n in (1, 0)))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["a\n1\n"]
