"""What is in a zip or tar archive, read and checked before anything is written."""

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import IO, Self

from ..errors import DatasetError

MIB = 2**20
GIB = 2**30
CHUNK = MIB  # bytes read at once

# Label maps and run lengths shrink to a hundredth at most; archives beyond that are refused if they are large as well.
MAX_RATIO = 200
MAX_SIZE = GIB
MAX_MEMBER_RATIO = 1000  # the most that deflate can do is 1032
MAX_MEMBER_SIZE = 256 * MIB
MAX_MEMBERS = 10**6  # files and folders; of the known data sets, stage1_train.zip of DSB2018 has most: about 32,000
MAX_HEADER = MIB  # of a tar: a long name or a table of attributes, which tarfile reads into memory at once

ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")  # with files, without, one part of several
TAR_OPENERS: Mapping[bytes, Callable[[Path], BufferedIOBase]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
ZIP_ENCRYPTED = 0x1  # bit of the flags of a member
TAR_HEADERS = {
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE
}  # fmt: skip
WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|\?xml)", re.IGNORECASE)
# Absolute, on a drive, or with a part "..", also with the spaces and dots that Windows drops from the end of a part.
OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.[. ]*([/\\]|$)", re.DOTALL)


@dataclass(frozen=True)
class Member:
    """A regular file in an archive: ``path`` is below the target, ``check`` changes with the content."""

    path: PurePosixPath
    size: int
    check: float
    open: Callable[[], IO[bytes] | None]


class _TarInfo(tarfile.TarInfo):
    """A header whose size, when it is made up, takes neither all memory nor all time."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in TAR_HEADERS and info.size > MAX_HEADER):
            raise tarfile.ReadError(f"a header declares {info.size} bytes")
        return info


def is_web_page(start: bytes) -> bool:
    """Whether a file that starts with these bytes is HTML, or XML: what servers send to say what went wrong."""
    return WEB_PAGE.match(start) is not None


def size_text(count: int) -> str:
    """Bytes as a person reads them."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1024:.1f} KiB"


def read_members(archive: Path, stack: ExitStack) -> list[Member]:
    """List the regular files of an archive, whose kind is told by its first bytes.

    Args:
        archive: the file.
        stack: keeps the archive open, and the members readable, until it ends.

    Raises:
        DatasetError: if the archive is none, or is one that ``extract`` refuses.
        OSError: if the file cannot be read. What the libraries raise for damaged files comes through as it is.
    """
    start = _start(archive)
    if not start:
        raise DatasetError(f"{archive}: is empty; download it again")
    if is_web_page(start):
        raise DatasetError(
            f"{archive}: is a web page, not an archive: a log-in or error page was saved under this name; "
            "log in or accept the terms where it comes from, and download it again"
        )
    if start.startswith(ZIP_STARTS):
        found = _zip_members(archive, stack.enter_context(zipfile.ZipFile(archive)))
    else:
        found = _tar_members(archive, stack.enter_context(_tar_stream(archive, start)))
    _check_places(archive, found)
    return found


def read_paths(archive: Path, stack: ExitStack) -> Iterator[PurePosixPath]:
    """Paths of the files of an archive one by one, for comparing only: nothing is checked.

    Args:
        archive: the file.
        stack: as in ``read_members``.

    Raises:
        DatasetError: if the file is no archive.
        OSError: as in ``read_members``.
    """
    start = _start(archive)
    if start.startswith(ZIP_STARTS):
        names = stack.enter_context(zipfile.ZipFile(archive)).namelist()
        yield from (_as_path(name) for name in names if not _is_folder(name))
    else:
        tar = _open_tar(stack.enter_context(_tar_stream(archive, start)))
        yield from (_as_path(info.name) for info in tar if info.isfile())


def _start(archive: Path) -> bytes:
    with archive.open("rb") as file:
        return file.read(tarfile.BLOCKSIZE)


def _open_tar(stream: BufferedIOBase) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r:", tarinfo=_TarInfo)


def _tar_stream(archive: Path, start: bytes) -> BufferedIOBase:
    opener = next((opener for magic, opener in TAR_OPENERS.items() if start.startswith(magic)), None)
    if opener is None and start[257:262] != b"ustar":
        raise DatasetError(f"{archive}: is not a zip or tar archive; download it again, or unpack it by hand")
    return opener(archive) if opener else archive.open("rb")


def _zip_members(archive: Path, file: zipfile.ZipFile) -> list[Member]:
    found = []
    _check_count(archive, len(file.infolist()))
    _check_ratio(archive, sum(info.file_size for info in file.infolist()))
    for info in file.infolist():
        path = _place(archive, info.filename)
        if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise DatasetError(f"{archive}: is not safe: {info.filename!r} is a link or device; do not use it")
        if info.flag_bits & ZIP_ENCRYPTED:
            raise DatasetError(f"{archive}: needs a password ({info.filename!r} is encrypted); unpack it by hand")
        if info.compress_type not in ZIP_METHODS:
            raise DatasetError(
                f"{archive}: {info.filename!r} is compressed by method {info.compress_type}, which Python cannot read; "
                "unpack it by hand, for example with 7-Zip"
            )
        if info.file_size > max(MAX_MEMBER_SIZE, MAX_MEMBER_RATIO * info.compress_size):
            raise DatasetError(
                f"{archive}: is not safe: {info.filename!r} would grow from {size_text(info.compress_size)} to "
                f"{size_text(info.file_size)}; do not use it"
            )
        if not _is_folder(info.filename):
            found.append(Member(path, info.file_size, info.CRC, partial(file.open, info)))
    return found


def _tar_members(archive: Path, stream: BufferedIOBase) -> list[Member]:
    tar = _open_tar(stream)
    found = []
    total = 0
    for count, info in enumerate(tar, start=1):
        _check_count(archive, count)
        if info.size < 0:
            raise tarfile.ReadError(f"{info.name!r} declares {info.size} bytes")
        path = _place(archive, info.name)
        if not (info.isfile() or info.isdir()):
            raise DatasetError(f"{archive}: is not safe: {info.name!r} is a link or device; do not use it")
        total += info.size
        _check_ratio(archive, max(total, tar.offset))  # headers may be larger than the files
        if info.isfile():
            found.append(Member(path, info.size, info.mtime, partial(tar.extractfile, info)))
    # tarfile takes a cut or a broken header for the end, and leaves unread what tells whether the stream is sound.
    stream.seek(tar.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it stops without an end mark")
    while chunk := stream.read(CHUNK):
        total += len(chunk)
        _check_ratio(archive, total)
    return found


def _place(archive: Path, name: str) -> PurePosixPath:
    """Path of a member below the target."""
    if "\0" in name:
        raise ValueError(f"it names a file {name!r}")
    if OUTSIDE.match(name):
        raise DatasetError(f"{archive}: is not safe: {name!r} would be written outside of its folder; do not use it")
    return _as_path(name)


def _as_path(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))  # archives from Windows may have backslashes


def _is_folder(name: str) -> bool:
    return name.endswith(("/", "\\"))


def _check_count(archive: Path, count: int) -> None:
    if count > MAX_MEMBERS:
        raise DatasetError(
            f"{archive}: is not safe: it has more than {MAX_MEMBERS:,} members; do not use it, or unpack it by hand if "
            "you trust it"
        )


def _check_ratio(archive: Path, total: int) -> None:
    size = archive.stat().st_size
    if total > max(MAX_SIZE, MAX_RATIO * size):
        raise DatasetError(
            f"{archive}: is not safe: {size_text(size)} would become at least {size_text(total)}; do not use it, "
            "or unpack it by hand if you trust it"
        )


def _check_places(archive: Path, found: Sequence[Member]) -> None:
    """Refuse two files at one place, and a file where others need a folder."""
    taken = {PurePosixPath()} | {parent for member in found for parent in member.path.parents}
    for member in found:
        if member.path in taken:
            raise DatasetError(f"{archive}: has {str(member.path)!r} twice; it is damaged or made by mistake")
        taken.add(member.path)
