"""Run lengths of the Kaggle tables, decoded by hand, and tables of Kaggle read."""

import numpy as np
import pandas as pd
import pytest

from cellbundle.errors import ArrayError, ConfigError, LabelReadError
from cellbundle.instances.painting import paint_rles
from cellbundle.io.formats.kaggle import KaggleImage, read_kaggle, write_kaggle, write_submission

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
    with pytest.raises(ConfigError, match=r"order.*'F'.*column, row"):
        write_kaggle(tmp_path / "a.csv", make([[1]]), "a", order="F")
    assert not list(tmp_path.iterdir())


def test_rows_of_images_in_the_order_of_the_file(tmp_path):
    (tmp_path / "a.csv").write_text("ImageId,EncodedPixels\nb,1 2\n007,\na,5 1\nb,3 1\nNA,nan\nNA,4 1 6 1\nc\n")
    assert read_kaggle(tmp_path / "a.csv") == {
        "b": KaggleImage(["1 2", "3 1"], None),
        "007": KaggleImage([], None),
        "a": KaggleImage(["5 1"], None),
        "NA": KaggleImage(["4 1 6 1"], None),
        "c": KaggleImage([], None),
    }


def test_a_table_of_sartorius_has_sizes_and_runs_along_rows(tmp_path):
    (tmp_path / "a.csv").write_text(
        "id,annotation,width,height,cell_type\n0a,1 2 7 1,3,4,astro\n0a,3 1,3,4,astro\n0b,1 1,5,1,cort\n"
    )
    images = read_kaggle(tmp_path / "a.csv")
    assert images == {"0a": KaggleImage(["1 2 7 1", "3 1"], (4, 3)), "0b": KaggleImage(["1 1"], (1, 5))}
    painted = paint_rles(images["0a"].runs, images["0a"].shape, "kaggle_rows")
    np.testing.assert_array_equal(painted.labels, [[1, 1, 2], [0, 0, 0], [1, 0, 0], [0, 0, 0]])


def test_a_submission_by_hand(tmp_path):
    write_submission(tmp_path / "a.csv", [("b,c", ["1 2", "4 1 6 1"]), ("007", []), ("a", ["3 1"])])
    text = 'idx,id,annotation\n0,"b,c",1 2\n1,"b,c",4 1 6 1\n2,007,-1\n3,a,3 1\n'
    assert (tmp_path / "a.csv").read_text() == text
    assert read_kaggle(tmp_path / "a.csv") == {
        "b,c": KaggleImage(["1 2", "4 1 6 1"], None),
        "007": KaggleImage([], None),
        "a": KaggleImage(["3 1"], None),
    }
    write_submission(tmp_path / "none.csv", [])
    assert read_kaggle(tmp_path / "none.csv") == {}


def test_a_failed_submission_leaves_the_older_one(tmp_path):
    write_submission(tmp_path / "a.csv", [("a", ["3 1"])])

    def images():
        yield "b", ["1 1"]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_submission(tmp_path / "a.csv", images())
    assert [p.read_text() for p in tmp_path.iterdir()] == ["idx,id,annotation\n0,a,3 1\n"]


def test_other_columns_can_be_named(tmp_path):
    (tmp_path / "a.csv").write_text("id,rle,file\n1,1 2,x\n2,3 1,x\n")
    images = read_kaggle(tmp_path / "a.csv", id_columns=["file"], rle_columns=["rle"])
    assert images == {"x": KaggleImage(["1 2", "3 1"], None)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,EncodedPixels\na,1 2\n", "columns image, EncodedPixels.*ImageId or id"),
        ("id,runs\na,1 2\n", "columns id, runs.*EncodedPixels or annotation"),
        ("id,annotation,width,height\na,1 2,3,4\na,1 2,4,3\n", r"image a .*\[\('3', '4'\), \('4', '3'\)\].*height"),
        ("id,annotation,width,height\na,1 2,3,x\n", r"image a .*\[\('x', '3'\)\].*height"),
        ("id,annotation,width,height\na,1 2,0,4\n", r"image a .*\[\('4', '0'\)\].*height"),
        ("id,annotation,width,height\na,1 2,-3,4\n", r"image a .*\[\('4', '-3'\)\].*height"),
        ("", "cannot be decoded"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(LabelReadError, match=rf"x\.csv.*{message}"):
        read_kaggle(tmp_path / "x.csv")


def test_broken_runs_are_found_when_they_are_painted(tmp_path):
    (tmp_path / "a.csv").write_text("id,annotation\na,1 2\na,1 2 3\n")
    with pytest.raises(ArrayError, match=r"mask 1 .*3 numbers"):
        paint_rles(read_kaggle(tmp_path / "a.csv")["a"].runs, (2, 3), "kaggle")
    (tmp_path / "b.csv").write_text("id,annotation,width,height\nb,1 2 12 2,3,4\n")
    image = read_kaggle(tmp_path / "b.csv")["b"]
    with pytest.raises(ArrayError, match=r"mask 0.*run 1 .*start 11.*length 2.*12 pixels"):
        paint_rles(image.runs, image.shape, "kaggle_rows")


def test_copies_of_a_row_are_found_when_they_are_painted(tmp_path):
    (tmp_path / "a.csv").write_text("id,annotation\na,1 2\nb,5 1\na,1 2\n")
    painted = paint_rles(read_kaggle(tmp_path / "a.csv")["a"].runs, (1, 5), "kaggle_rows")
    np.testing.assert_array_equal(painted.labels, [[1, 1, 0, 0, 0]])
    assert painted.lost == [1]


@pytest.mark.parametrize("name", ["=1+1", "-5", "@a", "+a,b", "'=a", "''=a", "'a", "a"])
def test_ids_that_look_like_formulas_come_back(tmp_path, name):
    write_kaggle(tmp_path / "a.csv", make([[1, 0, 2]]), name)
    assert read_kaggle(tmp_path / "a.csv") == {name: KaggleImage(["1 1", "3 1"], None)}
    write_submission(tmp_path / "b.csv", [(name, ["1 2"]), (f"{name}2", [])])
    assert read_kaggle(tmp_path / "b.csv") == {name: KaggleImage(["1 2"], None), f"{name}2": KaggleImage([], None)}
    first = pd.read_csv(tmp_path / "b.csv", dtype=str)
    assert list(first["annotation"]) == ["1 2", "-1"]
    assert not first["id"][0].startswith(("=", "-", "@", "+"))
