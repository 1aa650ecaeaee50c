"""Run lengths of the Kaggle tables, decoded by hand."""

import numpy as np
import pandas as pd
import pytest

from cellbundle.errors import ConfigError
from cellbundle.io.kaggle import write_kaggle

from .conftest import make


def decode(path, shape, order):
    table = pd.read_csv(path, keep_default_na=False)
    assert list(table.columns) == ["ImageId", "EncodedPixels"]
    flat = np.zeros(np.prod(shape), np.int32)
    for label, text in enumerate(table["EncodedPixels"], start=1):
        numbers = np.array(text.split(), int).reshape(-1, 2)
        assert np.all(numbers[1:, 0] > numbers[:-1].sum(axis=1))  # ascending, and no two runs that touch
        for start, length in numbers:
            assert not flat[start - 1 : start - 1 + length].any()
            flat[start - 1 : start - 1 + length] = label
    return flat.reshape(shape, order=order), table


@pytest.mark.parametrize(("order", "memory"), [("column", "F"), ("row", "C")])
def test_pixels_come_back(tmp_path, instances, order, memory):
    write_kaggle(tmp_path / "a.csv", instances, "image", order=order)
    labels, table = decode(tmp_path / "a.csv", instances.labels.shape, memory)
    np.testing.assert_array_equal(labels, instances.labels)
    assert len(table) == max(1, len(instances))
    assert set(table["ImageId"]) == {"image"}


def test_file_by_hand(tmp_path):
    write_kaggle(tmp_path / "a.csv", make([[1, 0, 2], [1, 1, 0]]), "a,b")
    assert (tmp_path / "a.csv").read_bytes() == b'ImageId,EncodedPixels\n"a,b",1 2 4 1\n"a,b",5 1\n'
    write_kaggle(tmp_path / "a.csv", make([[0, 0]]), "x")
    assert (tmp_path / "a.csv").read_bytes() == b"ImageId,EncodedPixels\nx,\n"


def test_many_instances(tmp_path, many):
    write_kaggle(tmp_path / "a.csv", many, "image")
    labels, _ = decode(tmp_path / "a.csv", many.labels.shape, "F")
    np.testing.assert_array_equal(labels, many.labels)


def test_an_unknown_order_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="order is 'F'; choose one of column, row"):
        write_kaggle(tmp_path / "a.csv", make([[1]]), "a", order="F")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing(tmp_path, scored, full_disk):
    with pytest.raises(OSError, match="No space"):
        write_kaggle(tmp_path / "a.csv", scored, "a")
    assert not list(tmp_path.iterdir())
