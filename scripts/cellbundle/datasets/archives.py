"""Unpacks archives that were downloaded: safely, completely, and on from where an earlier run was stopped."""

import errno
import hashlib
import lzma
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath

from ..errors import DatasetError
from ..io import atomic_path
from .archive_members import CHUNK, MIB, Member, read_members, read_paths, size_text

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SPARE = 64 * MIB  # disk space that stays free: a full disk breaks more than this program

# What zipfile and tarfile raise for bad data, and besides for headers that make no sense.
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError, NotImplementedError
)  # fmt: skip
HEADER_DAMAGE = (*DAMAGE, ValueError, RuntimeError, OverflowError, IndexError, struct.error)
DAMAGE_NUMBERS = {None, errno.EINVAL}  # of an OSError: gzip and bz2 give none, a seek to before the start gives EINVAL


def is_archive(path: Path) -> bool:
    """Whether the name of a file ends like that of an archive (``SUFFIXES``, in any case)."""
    return path.name.lower().endswith(SUFFIXES)


def archive_stem(name: str) -> str:
    """The name of an archive without its suffix: ``a.b.tar.gz`` gives ``a.b``; other names stay as they are."""
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def first_names(archive: Path, count: int) -> list[str]:
    """Paths of the first files that ``extract`` would write, with ``/``.

    Names that ``extract`` refuses are among them, and a file that cannot be read has none: it is for ``extract`` to
    say why.
    """
    try:
        with ExitStack() as stack:
            paths = (path for path in read_paths(archive, stack) if not _is_junk(path))
            return [str(path) for path in islice(paths, count)]
    except (DatasetError, OSError, *HEADER_DAMAGE):
        return []


def check_free_space(path: Path, needed: int) -> None:
    """Raise ``DatasetError`` unless ``needed`` bytes, and ``SPARE``, are free where ``path`` is or will be."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed + SPARE > free:
        raise DatasetError(
            f"{path}: needs {size_text(needed + SPARE)}, but only {size_text(free)} are free there; "
            "make space, and the same command goes on"
        )


def extract(
    archive: Path,
    target: Path,
    *,
    members: Callable[[str], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Unpack the regular files of a zip or tar archive (plain, gz, bz2 or xz), whatever its suffix says.

    The files go to ``<target>.incomplete`` first, so that ``target`` is there only when it is complete. A later run
    with the same archive keeps the files that an earlier one has finished. All names and sizes are checked before
    anything is written; what macOS adds (``__MACOSX``, ``.DS_Store``, ``._*``) is left out.

    Args:
        archive: the file.
        target: the folder to make. If it exists, nothing is done.
        members: gets the path of each file in the archive, with ``/``, and says whether it is wanted; by default all.
        progress: called as ``progress(done, total)``, in bytes of the wanted files.

    Returns:
        ``target``.

    Raises:
        DatasetError: if the archive is none, is damaged, encrypted or not safe (paths that leave the target, links,
            devices, sizes out of proportion), or has no wanted file; if space is short, or a file cannot be written.
    """
    if target.exists():
        return target
    with ExitStack() as stack:
        with explained(archive, HEADER_DAMAGE):
            found = read_members(archive, stack)
        identity = hashlib.sha256(repr([(m.path, m.size, m.check) for m in found]).encode()).hexdigest()
        wanted = [m for m in found if not _is_junk(m.path) and (members is None or members(str(m.path)))]
        if not wanted:
            raise DatasetError(f"{archive}: has none of the files that are needed; is it the right archive?")
        with explained(archive, DAMAGE):
            _unpack(archive, target, wanted, identity, progress)
    return target


def is_junk(name: str) -> bool:
    """Whether a file has a name that macOS gives to those that it adds to folders and archives."""
    return name == ".DS_Store" or name.startswith("._")


def _is_junk(path: PurePosixPath) -> bool:
    return "__MACOSX" in path.parts or is_junk(path.name)


def _unpack(
    archive: Path,
    target: Path,
    wanted: Sequence[Member],
    identity: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    work = target.with_name(f"{target.name}.incomplete")
    origin = target.with_name(f"{work.name}.sha256")
    same = origin.is_file() and origin.read_bytes() == identity.encode()
    done = _clean(work, wanted, keep=same)
    total = sum(member.size for member in wanted)
    finished = sum(member.size for member in done)
    check_free_space(work, total - finished)
    work.mkdir(parents=True, exist_ok=True)
    origin.write_text(identity, encoding="utf-8")

    def advance(count: int) -> None:
        nonlocal finished
        finished += count
        if progress is not None:
            progress(finished, total)

    advance(0)
    for member in wanted:
        if member not in done:
            _write(archive, member, work / member.path, advance)
    work.rename(target)
    origin.unlink()


def _clean(work: Path, wanted: Sequence[Member], *, keep: bool) -> set[Member]:
    """Remove what a stopped run left that is not finished, not wanted or, without ``keep``, of another archive."""
    if work.exists() and not keep:
        shutil.rmtree(work)
    places = {work / member.path: member for member in wanted}
    done = set()
    for path in [path for path in work.rglob("*") if path.is_file()]:
        if path in places and path.stat().st_size == places[path].size:
            done.add(places[path])
        else:
            path.unlink()
    return done


def _write(archive: Path, member: Member, path: Path, advance: Callable[[int], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with atomic_path(path) as temporary:
        with member.open() as source, temporary.open("wb") as file:  # type: ignore[union-attr]
            while written <= member.size and (chunk := source.read(CHUNK)):
                file.write(chunk)
                written += len(chunk)
                advance(len(chunk))
        if written != member.size:
            raise DatasetError(
                f"{archive}: is damaged: {str(member.path)!r} does not have the declared {member.size} bytes; "
                "download it again"
            )


@contextmanager
def explained(archive: Path, damage: tuple[type[Exception], ...]) -> Iterator[None]:
    """Raise ``damage``, and errors of the file system, as ``DatasetError`` about the archive."""
    try:
        yield
    except OSError as error:
        if error.errno not in DAMAGE_NUMBERS:
            raise DatasetError(
                f"{archive}: cannot be unpacked: {error.filename or 'a file'}: {error.strerror}; "
                "put that right, and the same command goes on"
            ) from error
        raise _damaged(archive, error) from error
    except damage as error:
        raise _damaged(archive, error) from error


def _damaged(archive: Path, error: Exception) -> DatasetError:
    reason = str(error) or type(error).__name__
    return DatasetError(f"{archive}: is damaged or incomplete ({reason}); download it again")
