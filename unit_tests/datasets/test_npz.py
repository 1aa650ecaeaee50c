"""Arrays of .npz files: written once, again when the file changed, with little memory, complete or not at all."""

import os
import shutil
import tracemalloc

import numpy as np
import pytest

from cellbundle.datasets import archives
from cellbundle.datasets.npz import map_array, read_array, unpack_arrays
from cellbundle.errors import DatasetError


@pytest.fixture
def work(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_arrays_are_mapped(tmp_path, work):
    np.savez_compressed(tmp_path / "a.npz", X=np.arange(6).reshape(2, 3), y=np.array([0.5]))
    files = unpack_arrays(tmp_path / "a.npz", ["X", "y"], work)
    arrays = [map_array(file, tmp_path / "a.npz") for file in files]
    assert all(isinstance(array, np.memmap) for array in arrays)
    assert [array.tolist() for array in arrays] == [[[0, 1, 2], [3, 4, 5]], [0.5]]


def test_memory_does_not_grow_with_the_array(tmp_path, work):
    np.savez_compressed(tmp_path / "a.npz", X=np.zeros(2**25, np.uint8))
    tracemalloc.start()
    (file,) = unpack_arrays(tmp_path / "a.npz", ["X"], work)
    map_array(file, file)[2**20]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


def test_an_unchanged_file_is_not_unpacked_again(tmp_path, work):
    np.savez(tmp_path / "a.npz", X=np.arange(3))
    (file,) = unpack_arrays(tmp_path / "a.npz", ["X"], work)
    before = file.stat().st_mtime_ns
    assert unpack_arrays(tmp_path / "a.npz", ["X"], work) == [file]
    assert file.stat().st_mtime_ns == before


def test_a_changed_file_is_unpacked_again_and_the_old_array_removed(tmp_path, work):
    np.savez(tmp_path / "a.npz", X=np.arange(3))
    np.savez(tmp_path / "b.npz", X=np.arange(3))
    (other,) = unpack_arrays(tmp_path / "b.npz", ["X"], work)
    unpack_arrays(tmp_path / "a.npz", ["X"], work)
    np.savez(tmp_path / "a.npz", X=np.arange(3, 6))
    os.utime(tmp_path / "a.npz", ns=(0, 10**18))
    (file,) = unpack_arrays(tmp_path / "a.npz", ["X"], work)
    assert map_array(file, file).tolist() == [3, 4, 5]
    assert sorted(work.iterdir()) == sorted([file, other])


def test_what_is_finished_stays_and_the_rest_of_a_killed_run_goes(tmp_path, work, monkeypatch):
    np.savez(tmp_path / "a.npz", X=np.arange(3), y=np.arange(4))

    def stop_at_the_second(source, target, length):
        if next(work.glob("a_X_*"), None):
            (work / ".half.npy").write_bytes(b"left by a run that could not clean up")
            raise KeyboardInterrupt
        copy(source, target, length)

    copy = shutil.copyfileobj
    monkeypatch.setattr(shutil, "copyfileobj", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        unpack_arrays(tmp_path / "a.npz", ["X", "y"], work)
    monkeypatch.undo()
    done = next(work.glob("a_X_*"))
    before = done.stat().st_mtime_ns
    files = unpack_arrays(tmp_path / "a.npz", ["X", "y"], work)
    assert sorted(work.iterdir()) == sorted(files)
    assert done.stat().st_mtime_ns == before
    assert map_array(files[1], files[1]).tolist() == [0, 1, 2, 3]


def test_a_flipped_byte_is_found_and_nothing_is_left(tmp_path, work):
    path = tmp_path / "a.npz"
    np.savez(path, X=np.full(1000, 7))
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.npz.*damaged.*Bad CRC"):
        unpack_arrays(path, ["X"], work)
    assert list(work.iterdir()) == []


def test_missing_space_is_told_before_writing(tmp_path, work, leave_free):
    np.savez_compressed(tmp_path / "a.npz", X=np.zeros(2**25, np.uint8))
    leave_free(2**25 + archives.SPARE)  # the header of the array is too much
    with pytest.raises(DatasetError, match=r"work.* 96\.0 MiB.* 96\.0 MiB"):
        unpack_arrays(tmp_path / "a.npz", ["X"], work)
    assert list(work.iterdir()) == []


def test_a_web_page_is_no_npz(tmp_path, work):
    (tmp_path / "a.npz").write_text("<html>log in</html>")
    with pytest.raises(DatasetError, match=r"a\.npz.*damaged.*download"):
        unpack_arrays(tmp_path / "a.npz", ["X"], work)


def test_small_arrays_may_hold_objects(tmp_path):
    np.savez(tmp_path / "a.npz", allow_pickle=True, meta=np.array([["name", "n"], ["x", 3]], object))
    assert read_array(tmp_path / "a.npz", "meta").tolist() == [["name", "n"], ["x", 3]]
    assert read_array(tmp_path / "a.npz", "other") is None
