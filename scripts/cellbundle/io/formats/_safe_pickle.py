"""NumPy's .npy files with Python objects, without running what a pickle in them asks for."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ...errors import LabelReadError
from ..images.errors import named

HEADER_READERS: Mapping[tuple[int, int], Callable] = MappingProxyType(
    {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
)


def load_npy(source: str | Path | BinaryIO) -> NDArray[Any]:
    """Read a .npy file that may hold Python objects, such as a dictionary of arrays.

    A pickle can call any function. Here it gets only what rebuilds arrays and numbers of NumPy; lists, dictionaries,
    texts and Python's numbers need nothing.

    Args:
        source: a path, or a file that is open for reading bytes, such as a member of a .npz file.

    Returns:
        The array; one of objects for what ``numpy.save`` had to pickle.

    Raises:
        LabelReadError: if the file cannot be read, or its pickle asks for anything else.
    """
    if isinstance(source, str | Path):
        with named(Path(source), LabelReadError), Path(source).open("rb") as file:
            return _load(file)
    with named(Path(str(getattr(source, "name", "file"))), LabelReadError):
        return _load(source)


def _load(file: BinaryIO) -> NDArray[Any]:
    start = file.tell()
    read_header = HEADER_READERS.get(npy.read_magic(file))
    if read_header is None or not read_header(file)[2].hasobject:
        file.seek(start)
        return npy.read_array(file, allow_pickle=False)
    array = _Unpickler(file).load()
    if not isinstance(array, np.ndarray):
        raise LabelReadError(f"holds a pickled {type(array).__name__}, expected an array; save it with numpy.save")
    return array


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, as pickles of protocol 2, of NumPy before 1.17, have them."""
    if encoding != "latin1":
        raise LabelReadError(f"asks for the encoding {encoding!r}, expected latin1")
    return text.encode("latin1")


_RECONSTRUCT = np.empty(0).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]
ALLOWED: Mapping[tuple[str, str], Any] = MappingProxyType(
    {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,  # NumPy 1
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy.core.multiarray", "scalar"): _SCALAR,
        ("numpy._core.multiarray", "scalar"): _SCALAR,
        ("_codecs", "encode"): _encode,
        ("__builtin__", "bytes"): bytes,  # of an empty array
    }
)


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the names in ``ALLOWED`` only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise LabelReadError(
                f"asks for {module}.{name}, which is refused because a pickle could run anything; only arrays, texts, "
                "numbers, lists and dictionaries are read; save it again with these alone"
            )
        return ALLOWED[module, name]
