"""Files of NumPy with objects are read without running anything that a pickle asks for."""

import functools
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cellbundle.errors import LabelReadError
from cellbundle.io.formats._safe_pickle import load_npy

from ..damage import Call


def save(path, data, protocol):
    """A .npy file of objects with a pickle of any protocol; data are an object, or the bytes of a pickle."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(data if isinstance(data, bytes) else pickle.dumps(data, protocol))
    return path


def as_array(content):
    array = np.empty((), object)
    array[()] = content
    return array


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("numpy_1", [False, True])
def test_arrays_numbers_and_texts_come_back(tmp_path, protocol, numpy_1):
    content = {
        "masks": np.arange(6, dtype=np.uint16).reshape(2, 3),
        "big endian": np.array([1.5, 2], ">f4"),
        "bools": np.array([True, False]),
        "texts": np.array(["a", "äö"]),
        "objects": np.array([["a", 1, None]], object),
        "numbers": [np.float32(1.5), np.int64(-3), np.bool_(True), 1, 2.5, 1 << 70, True, None],
        "nested": {"tuple": (1, "Größe"), "list": [[[]]]},
        "empty": np.zeros((0, 3)),
    }
    data = pickle.dumps(as_array(content), protocol)
    if numpy_1:
        assert b"numpy._core" in data
        old = data.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
        data = old.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
        if protocol == 4:
            data = pickle.PROTO + b"\x04" + data[11:]  # without its frame, whose length has changed
        assert b"numpy._core" not in data
    read = load_npy(save(tmp_path / "a.npy", data, protocol))
    assert (read.shape, read.dtype) == ((), object)
    back = read.item()
    assert back.keys() == content.keys()
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            assert (back[key].dtype, back[key].shape) == (value.dtype.newbyteorder("="), value.shape)
            np.testing.assert_array_equal(back[key], value)
    assert back["numbers"] == content["numbers"]
    assert [type(number) for number in back["numbers"]] == [type(number) for number in content["numbers"]]
    assert back["nested"] == content["nested"]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([["tissue", "platform"], ["lung", 3]], object),
        np.array("x"),
        np.zeros((0, 2), bool),
        np.array([(1, 2.5)], [("a", int), ("ß", float)]),
    ],
)
def test_what_numpy_saves_comes_back(tmp_path, array):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez_compressed(tmp_path / "b.npz", meta=array)
    for source in (tmp_path / "a.npy", str(tmp_path / "a.npy"), io.BytesIO((tmp_path / "a.npy").read_bytes())):
        read = load_npy(source)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
    with zipfile.ZipFile(tmp_path / "b.npz") as archive, archive.open("meta.npy") as file:
        np.testing.assert_array_equal(load_npy(file), array)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("function", [os.system, os.popen, Path.touch, eval, exec, open, functools.partial])
def test_a_call_is_refused_and_not_made(tmp_path, monkeypatch, protocol, function):
    monkeypatch.chdir(tmp_path)
    arguments = {
        os.system: ["touch made"],
        os.popen: ["touch made"],
        Path.touch: [Path("made")],
        eval: ["__import__('os').mkdir('made')"],
        exec: ["import os; os.mkdir('made')"],
        open: ["made", "w"],
        functools.partial: [os.system, "touch made"],
    }[function]
    path = save(tmp_path / "x.npy", {"masks": [1, Call(function, *arguments)]}, protocol)
    with pytest.raises(LabelReadError, match=r"x\.npy.* [\w.]+, .*refused.*pickle"):
        load_npy(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npy"]
    if function in (os.system, eval, exec):  # the same file does harm where it is trusted
        np.load(path, allow_pickle=True)
        assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("pickled", "name"),
    [
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "numpy.ndarray.tofile"),
        (b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.", "numpy.load"),
        (b"cnumpy\nfromfile\n.", "numpy.fromfile"),
        (b"c_codecs\ndecode\n.", "_codecs.decode"),
        (b"cbuiltins\neval\n.", "builtins.eval"),
        (b"(Vtouch made\nios\nsystem\n.", "os.system"),
    ],
)
def test_names_outside_of_the_list_are_refused(tmp_path, pickled, name):
    with pytest.raises(LabelReadError, match=f" {name}, .*refused"):
        load_npy(save(tmp_path / "x.npy", pickled, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"masks": 1}), "pickled dict.*array"),
        (b"c_codecs\nencode\n(Vabc\nVzlib\ntR.", "encoding 'zlib'.*latin1"),
        (b"", "cannot be decoded"),
        (pickle.dumps(np.zeros(3, object))[:-5], "cannot be decoded"),
        (b"\x80\x04\x82\x01.", "cannot be decoded"),  # an extension
        (b"P1\n.", "cannot be decoded"),  # a persistent id
    ],
)
def test_broken_pickles_are_refused(tmp_path, content, message):
    with pytest.raises(LabelReadError, match=rf"x\.npy.*{message}"):
        load_npy(save(tmp_path / "x.npy", content, 4))


@pytest.mark.parametrize("data", [b"", b"x", b"\x93NUMPY\x09\x00", b"\x80\x04N.", b"\x93NUMPY\x01\x00\x10\x00"])
def test_other_files_are_refused(tmp_path, data):
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(LabelReadError, match=r"x\.npy.*cannot be decoded"):
        load_npy(tmp_path / "x.npy")
    with pytest.raises(LabelReadError, match=r"^file.*cannot be decoded"):
        load_npy(io.BytesIO(data))
    with pytest.raises(LabelReadError, match=r"y\.npy.*No such file"):
        load_npy(tmp_path / "y.npy")


def test_a_truncated_array_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(100))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    with pytest.raises(LabelReadError, match=r"x\.npy.*cannot be decoded.* 99 "):
        load_npy(tmp_path / "x.npy")
