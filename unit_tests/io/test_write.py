"""Atomic files, and label maps that come back as they were."""

import numpy as np
import pytest
import tifffile

from cellbundle.errors import ArrayError
from cellbundle.io import atomic_path, read_labels, stem, write_labels


@pytest.mark.parametrize("sync", [False, True])
def test_atomic_path_replaces_on_success(tmp_path, sync):
    target = tmp_path / "Größe a.txt"
    target.write_text("old")
    with atomic_path(target, sync=sync) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_path_leaves_nothing_half_written(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("highest", "dtype"), [(0, "uint16"), (65535, "uint16"), (65536, "uint32"), (2**32 - 1, "uint32")]
)
def test_the_largest_id_decides_the_type(tmp_path, highest, dtype):
    labels = np.array([[0, 1], [2, highest]])
    write_labels(tmp_path / "a.tif", labels)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.series[0].axes == "YX"
        assert tiff.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        written = tiff.asarray()
    assert written.dtype == dtype
    np.testing.assert_array_equal(written, labels)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1000), (300, 300)])
def test_round_trip_of_many_instances(tmp_path, shape):
    labels = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)  # up to 89,999 instances
    write_labels(tmp_path / "a.tif", labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), labels)


def test_the_same_labels_give_the_same_file(tmp_path):
    labels = np.arange(12).reshape(3, 4)
    for name in ("a.tif", "b.tif"):
        write_labels(tmp_path / name, labels)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 3, 4), int), r"\(H, W\).*\(2, 3, 4\)"),
        (np.zeros((3, 4)), "integer.*got .*float64"),
        (np.zeros((3, 4), bool), "integer.*got .*bool"),
        (np.full((3, 4), -1), "negative"),
        (np.zeros((0, 4), int), r"one pixel.*\(0, 4\)"),
        (np.full((3, 4), 2**32), r"2\*\*32 - 1.* 4294967296.*renumber"),
    ],
)
def test_refused_labels_write_nothing(tmp_path, labels, message):
    with pytest.raises(ArrayError, match=message):
        write_labels(tmp_path / "a.tif", labels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b.png", "b"), ("a.b.png", "a.b"), ("x.ome.tif", "x.ome"), ("a b.TIF", "a b"), ("a", "a")]
)
def test_stem_loses_the_last_suffix_only(name, expected):
    assert stem(name) == expected
