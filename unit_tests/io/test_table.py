"""Tables come back as they were."""

import pandas as pd
import pytest

from cellbundle.errors import DependencyError
from cellbundle.io import table as module
from cellbundle.io.table import write_csv, write_parquet


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


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_a_failed_write_leaves_nothing(tmp_path, scored, full_disk, write):
    if write is write_parquet:
        pytest.importorskip("pyarrow")
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "a", scored.table)
    assert not list(tmp_path.iterdir())
