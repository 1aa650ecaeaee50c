"""Files of a Zarr array, checked before the package zarr reads them: links, sizes, bytes that chunks decode to."""

import gzip
import math
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import imagecodecs

from ...errors import ImageReadError
from ..regular import open_regular
from .zarr_array import CHECKSUM, COMPRESSORS, MAX_CHUNKS, MAX_JSON, ShardIndex, ZarrArray

METADATA = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")
CHUNK = re.compile(r"(c[/.])?\d+([/.]\d+)*")  # its key: 0.0, 0/0, c/0/0
MAX_FILES = 2 * MAX_CHUNKS  # folders and metadata included
CHECKSUM_BYTES = 4
ENTRY = struct.Struct("<QQ")  # offset and length of a chunk in a shard
MISSING = 2**64 - 1  # its offset if the chunk is not there
SLACK = 2**12  # bytes that an encoded chunk may have for headers
HEADER = 16
LARGEST_ITEM = 8  # bytes of a value after a delta filter


def check_files(array: ZarrArray) -> None:
    """Refuse an array with links, files that are not regular ones, or chunks that decode to more than their shape.

    Raises:
        ImageReadError: if there is such a file.
    """
    item = LARGEST_ITEM if "delta" in array.codecs else array.dtype.itemsize
    chunk_bytes = math.prod(array.chunk_shape) * item
    largest = _chunks_per_file(array) * (2 * chunk_bytes + SLACK)
    for path, size in _files(array.folder):
        shown = path.relative_to(array.folder).as_posix()
        is_chunk = CHUNK.fullmatch(shown) is not None
        if (is_chunk and size > largest) or (path.name in METADATA and size > MAX_JSON):
            raise ImageReadError(f"has a file of {size} bytes, too many for what it holds ({shown}); export it again")
        if is_chunk:
            _check_chunks(array, path, size, chunk_bytes)


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Regular files below a folder, and their sizes."""
    waiting, number = [folder], 0
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                number += 1
                if number > MAX_FILES:
                    raise ImageReadError(f"holds more than {MAX_FILES} files; export it with larger chunks")
                if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
                    raise ImageReadError(f"holds a link, a FIFO or a device ({entry.name}), which is not read")
                if entry.is_dir():
                    waiting.append(Path(entry.path))
                else:
                    yield Path(entry.path), entry.stat().st_size


def _chunks_per_file(array: ZarrArray) -> int:
    return math.prod(size // chunk for size, chunk in zip(array.file_shape, array.chunk_shape, strict=True))


def _check_chunks(array: ZarrArray, path: Path, size: int, limit: int) -> None:
    """Refuse a file with a chunk that decodes to more than ``limit`` bytes."""
    compressor = next((codec for codec in array.codecs if codec in COMPRESSORS), None)
    if compressor is None:
        return
    fits, trailing = FITS[compressor], CHECKSUM_BYTES * (array.codecs[-1] == CHECKSUM)
    with open_regular(path, follow=False) as file:
        places = [(0, size)] if array.index is None else _places(file, size, _chunks_per_file(array), array.index)
        for offset, length in places:
            file.seek(offset)
            data = file.read(min(length, HEADER) if compressor in ONLY_HEADER else max(0, length - trailing))
            try:
                is_right = fits(data, limit)
            except Exception as error:  # decoders raise anything on damaged bytes
                raise ImageReadError(f"has a damaged or too large chunk ({path.name}: {error})") from error
            if not is_right:
                raise ImageReadError(f"has a chunk that decodes to more than {limit} bytes ({path.name})")


def _places(file: BinaryIO, size: int, number: int, index: ShardIndex) -> list[tuple[int, int]]:
    """Offset and length of the chunks in a shard."""
    length = number * ENTRY.size
    file.seek(max(0, size - length - CHECKSUM_BYTES * index.has_checksum) if index.at_end else 0)
    content = file.read(length)
    entries = ENTRY.iter_unpack(content[: len(content) // ENTRY.size * ENTRY.size])
    places = [(offset, count) for offset, count in entries if offset != MISSING]
    if len(content) < length or any(offset + count > size for offset, count in places):
        raise ImageReadError("has a damaged shard; export it again")
    return places


def _blosc(data: bytes, limit: int) -> bool:
    return int.from_bytes(data[4:8], "little") <= limit


def _lz4(data: bytes, limit: int) -> bool:
    return int.from_bytes(data[:4], "little") <= limit


def _zstd(data: bytes, limit: int) -> bool:
    return len(imagecodecs.zstd_decode(data, out=limit)) <= limit


def _gzip(data: bytes, limit: int) -> bool:
    with gzip.GzipFile(fileobj=BytesIO(data)) as file:
        return len(file.read(limit + 1)) <= limit


def _zlib(data: bytes, limit: int) -> bool:
    return len(zlib.decompressobj().decompress(data, limit + 1)) <= limit


ONLY_HEADER = ("blosc", "lz4")  # tells how many bytes are decoded
FITS: Mapping[str, Callable[[bytes, int], bool]] = {
    "blosc": _blosc,
    "lz4": _lz4,
    "zstd": _zstd,
    "gzip": _gzip,
    "zlib": _zlib,
}
