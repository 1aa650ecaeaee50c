"""Limits on the directories of a TIFF file, checked before tifffile follows them."""

import os
import struct
from typing import BinaryIO, NamedTuple

from ...errors import ImageReadError

MAX_DIRECTORIES = 10_000  # pages and thumbnails; tifffile compares them pair by pair
MAX_TAGS = 4096  # in a directory; tifffile ignores directories with more
MAX_TEXT = 2**24  # bytes of one description, which may be XML
MAX_VALUES = 2**25  # bytes of all tags that tifffile loads: offsets become Python numbers of 36 bytes each
IMAGE_DESCRIPTION, SUB_IFDS = 270, 330
LOADED = {258, 270, 273, 277, 279, 282, 283, 305, 324, 325, 330, 338, 339, 347, 513, 514, 530, 50838}
OFFSET_FORMS = {4: "I", 13: "I", 16: "Q", 18: "Q"}
VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

TOO_MANY = (
    f"holds more than {MAX_DIRECTORIES} pages, expected one 2-D image; save the plane to use as a file of its own"
)


class _Form(NamedTuple):
    """Layout of a TIFF or BigTIFF file: format strings of ``struct``, position of the first offset."""

    number: str
    entry: str
    offset: str
    first: int


class _Directory(NamedTuple):
    """A directory: bytes of values outside of it, offsets of its sub-directories and of the next directory."""

    value_bytes: int
    sub_directories: tuple[int, ...]
    following: int


def check_directories(file: BinaryIO) -> None:
    """Refuse a TIFF file whose directories are too many or too large, or form a loop.

    A directory that cannot be read ends the check without an error; tifffile reports it.

    Args:
        file: the open file.

    Raises:
        ImageReadError: if a limit is exceeded.
    """
    form = _form(file)
    offset = _number(file, form.first, form.offset)
    visited: set[int] = set()
    number = value_bytes = 0
    while offset:
        if offset in visited:
            raise ImageReadError("is damaged: its directories form a loop; export it again")
        visited.add(offset)
        main = _directory(file, offset, form)
        number += 1 + len(main.sub_directories)
        if number > MAX_DIRECTORIES:
            raise ImageReadError(TOO_MANY)
        value_bytes = _added(value_bytes, main)
        for sub in main.sub_directories:
            value_bytes = _added(value_bytes, _directory(file, sub, form, is_main=False))
        offset = main.following


def _added(value_bytes: int, directory: _Directory) -> int:
    value_bytes += directory.value_bytes
    if value_bytes > MAX_VALUES:
        raise ImageReadError(f"has tags of more than {MAX_VALUES} bytes; export it with larger strips or tiles")
    return value_bytes


def _form(file: BinaryIO) -> _Form:
    file.seek(0)
    head = file.read(4)
    order = "<" if head[:2] == b"II" else ">"
    if head[2:] in (b"+\0", b"\0+"):
        return _Form(order + "Q", order + "HHQQ", order + "Q", 8)
    return _Form(order + "H", order + "HHII", order + "I", 4)


def _number(file: BinaryIO, position: int, form: str) -> int:
    """Unsigned number at a position, 0 behind the end of the file."""
    file.seek(position)
    data = file.read(struct.calcsize(form))
    return int(struct.unpack(form, data)[0]) if len(data) == struct.calcsize(form) else 0


def _directory(file: BinaryIO, offset: int, form: _Form, *, is_main: bool = True) -> _Directory:
    """Read a directory, and its sub-directories if it is in the main chain; an empty one where none can be read."""
    tags = _number(file, offset, form.number)
    if not 0 < tags <= MAX_TAGS:
        return _Directory(0, (), 0)
    entries = file.read(tags * struct.calcsize(form.entry))
    following = _number(file, offset + struct.calcsize(form.number) + len(entries), form.offset)
    if len(entries) < tags * struct.calcsize(form.entry):
        return _Directory(0, (), 0)
    inline, size = struct.calcsize(form.offset), os.fstat(file.fileno()).st_size
    value_bytes = 0
    subs: tuple[int, ...] = ()
    for code, kind, count, value in struct.iter_unpack(form.entry, entries):
        length = count * VALUE_BYTES.get(kind, 1)
        if length > inline and value + length > size:  # tifffile does not load it
            continue
        if code == IMAGE_DESCRIPTION and length > MAX_TEXT:
            raise ImageReadError(f"has a description of {length} bytes, more than {MAX_TEXT}; export it without")
        if code in LOADED and length > inline:
            value_bytes += length
        if code == SUB_IFDS and is_main:
            subs = _sub_directories(file, kind, count, struct.pack(form.offset, value), form)
    return _Directory(value_bytes, subs, following)


def _sub_directories(file: BinaryIO, kind: int, count: int, value: bytes, form: _Form) -> tuple[int, ...]:
    """Offsets in a tag, which holds them or the place where they are."""
    letter = OFFSET_FORMS.get(kind)
    if letter is None:
        return ()
    if count > MAX_DIRECTORIES:
        raise ImageReadError(TOO_MANY)
    single = struct.Struct(form.offset[0] + letter)
    if count * single.size > len(value):
        file.seek(struct.unpack(form.offset, value)[0])
        value = file.read(count * single.size)
    return tuple(offset for (offset,) in single.iter_unpack(value[: count * single.size]))
