"""Metadata of the arrays in a Zarr store, checked before the package zarr opens the store."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...errors import ImageReadError
from ..regular import open_regular

MAX_JSON = 2**24  # bytes of a metadata file
MAX_CHUNKS = 2**17  # of an array; zarr makes a task for each
# Other codecs evaluate pickles, make Python objects, or use memory without a bound.
COMPRESSORS = {"blosc", "zstd", "gzip", "zlib", "lz4"}
FILTERS = {"bytes", "transpose", "delta", "shuffle"}
CHECKSUM = "crc32c"
SHARDING = "sharding_indexed"
TYPES = {
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}


@dataclass(frozen=True)
class ShardIndex:
    """The index of a shard: at its start or its end, with or without a checksum."""

    at_end: bool
    has_checksum: bool


@dataclass(frozen=True)
class ZarrArray:
    """An array as its metadata describe it.

    Attributes:
        folder: of the array.
        version: of the format, 2 or 3.
        shape: of the array.
        dtype: of its values.
        file_shape: part of the array in one file, a chunk or a shard of several.
        chunk_shape: part that is compressed at once.
        codecs: names of the codecs of a chunk, in the order of encoding.
        index: where the places of the chunks in a shard are, None without shards.
    """

    folder: Path
    version: Literal[2, 3]
    shape: tuple[int, ...]
    dtype: np.dtype
    file_shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    codecs: tuple[str, ...]
    index: ShardIndex | None = None


def read_json(path: Path) -> dict[str, Any]:
    """Read a metadata file of a store.

    Raises:
        ImageReadError: if it is too large, no regular file, or no JSON object.
        OSError: if it cannot be opened.
    """
    with open_regular(path, follow=False) as file:
        content = file.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise ImageReadError(f"has metadata of more than {MAX_JSON} bytes ({path.name}); export it again")
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ImageReadError(f"has no JSON object in {path.name}; export it again")
    return document


def array_folder(store: Path, name: object) -> Path:
    """Find the folder of an array that metadata name.

    Raises:
        ImageReadError: if it is not a folder below the store, or a link is on the way.
    """
    folder = store
    for part in name.split("/") if isinstance(name, str) else [""]:
        folder = folder / part
        if part in ("", ".", "..") or "\\" in part or "\0" in part or folder.is_symlink() or not folder.is_dir():
            shown = repr(str(name)[:80])
            raise ImageReadError(f"names {shown} as its array, expected a folder of the store; export it again")
    return folder


def read_array(folder: Path, version: Literal[2, 3]) -> ZarrArray:
    """Read and check the metadata of an array.

    Args:
        folder: of the array.
        version: of the format, 2 or 3.

    Raises:
        ImageReadError: if the array holds anything but numbers, its codecs are unknown, or it has too many chunks.
    """
    array = (_version_2 if version == 2 else _version_3)(folder)
    shapes = (array.shape, array.file_shape, array.chunk_shape)
    if len({len(shape) for shape in shapes}) > 1 or 0 in (*array.file_shape, *array.chunk_shape):
        raise ImageReadError(f"has chunks of shape {array.chunk_shape} and an array of shape {array.shape}")
    _check_codecs(array.codecs)
    n_chunks = math.prod(-(-size // chunk) for size, chunk in zip(array.shape, array.chunk_shape, strict=True))
    per_file = math.prod(-(-size // chunk) for size, chunk in zip(array.file_shape, array.chunk_shape, strict=True))
    if max(n_chunks, per_file) > MAX_CHUNKS:
        raise ImageReadError(f"has {n_chunks} chunks, more than {MAX_CHUNKS}; export it with larger chunks")
    return array


def _version_2(folder: Path) -> ZarrArray:
    document = read_json(folder / ".zarray")
    kind = document["dtype"]
    if not isinstance(kind, str) or np.dtype(kind).kind not in "buif":
        raise ImageReadError(f"holds values of type {str(kind)[:80]}, expected integers or floats; convert the array")
    codecs = [*(document.get("filters") or ()), *([document["compressor"]] if document.get("compressor") else ())]
    chunk = _shape(document["chunks"])
    names = tuple(str(codec["id"]) for codec in codecs)
    return ZarrArray(folder, 2, _shape(document["shape"]), np.dtype(kind), chunk, chunk, names)


def _version_3(folder: Path) -> ZarrArray:
    document = read_json(folder / "zarr.json")
    kind, grid = document["data_type"], document["chunk_grid"]
    if not isinstance(kind, str) or kind not in TYPES:
        raise ImageReadError(f"holds values of type {str(kind)[:80]}, expected integers or floats; convert the array")
    if grid["name"] != "regular" or document.get("storage_transformers"):
        raise ImageReadError("has an irregular grid of chunks or storage transformers, which are not read")
    chunk = file = _shape(grid["configuration"]["chunk_shape"])
    codecs, index = document["codecs"], None
    if SHARDING in _names(codecs):
        if len(codecs) > 1:
            raise ImageReadError(f"has shards with the codecs {', '.join(_names(codecs))[:80]}, which are not read")
        options = codecs[0]["configuration"]
        chunk, codecs, index = _shape(options["chunk_shape"]), options["codecs"], _shard_index(options)
    return ZarrArray(folder, 3, _shape(document["shape"]), np.dtype(kind), file, chunk, _names(codecs), index)


def _shard_index(options: dict[str, Any]) -> ShardIndex:
    bytes_codec, *others = options["index_codecs"]
    endian = bytes_codec.get("configuration", {}).get("endian", "little")
    if bytes_codec["name"] != "bytes" or endian != "little" or _names(others) not in ((), (CHECKSUM,)):
        raise ImageReadError("has shards with an index of unknown codecs; export it again")
    return ShardIndex(options.get("index_location", "end") == "end", bool(others))


def _names(codecs: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(str(codec["name"]).removeprefix("numcodecs.") for codec in codecs)


def _shape(sizes: object) -> tuple[int, ...]:
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise ImageReadError(f"has the shape {str(sizes)[:80]}, expected whole numbers; export it again")
    return tuple(sizes)


def _check_codecs(codecs: tuple[str, ...]) -> None:
    """Refuse codecs other than the known ones; one compressor with a checksum may follow filters."""
    rest = list(codecs)
    if rest and rest[-1] == CHECKSUM:
        rest.pop()
    if rest and rest[-1] in COMPRESSORS:
        rest.pop()
    if unknown := set(rest) - FILTERS:
        raise ImageReadError(
            f"has the codecs {', '.join(codecs)[:80]}; {', '.join(sorted(unknown))[:80]} is not read there; export it "
            f"with one of {', '.join(sorted(COMPRESSORS))}"
        )
