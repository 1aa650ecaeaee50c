"""Arrays of .npz files that are larger than memory: each becomes a file of its own, which can be memory-mapped."""

import glob
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, LabelReadError
from ..io import atomic_path
from ..io.formats._safe_pickle import load_npy
from .archive_members import CHUNK
from .archives import HEADER_DAMAGE, check_free_space


def unpack_arrays(path: Path, keys: Sequence[str], work: Path) -> list[Path]:
    """Write arrays of a .npz file as .npy files, unless an earlier run did so and the file is still the same.

    What belongs to an earlier state of the file, or was left by a run that was killed, is removed.

    Args:
        path: the .npz file.
        keys: names of the arrays.
        work: an existing folder, for nothing else.

    Returns:
        A path for each key.

    Raises:
        DatasetError: if the file is damaged or lacks an array, or the disk has too little space.
    """
    state = path.stat()
    targets = [work / f"{path.stem}_{key}_{state.st_size:x}_{state.st_mtime_ns:x}.npy" for key in keys]
    for old in [*work.glob(".*.npy"), *work.glob(f"{glob.escape(path.stem)}_*.npy")]:
        if old not in targets:
            old.unlink()
    with _open(path) as archive:
        members = [_member(path, archive, key) for key in keys]
        missing = [pair for pair in zip(members, targets, strict=True) if not _is_whole(*pair)]
        check_free_space(work, sum(member.file_size for member, _ in missing))
        for member, target in missing:
            with archive.open(member) as source, atomic_path(target) as temporary, temporary.open("wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
    return targets


def map_array(path: Path, source: Path) -> NDArray:
    """Open a .npy file without reading it; errors name the file ``source`` that it comes from.

    Raises:
        DatasetError: if it does not hold an array of numbers.
    """
    try:
        array: NDArray = np.load(path, mmap_mode="r")
    except (ValueError, EOFError, SyntaxError) as error:
        raise DatasetError(f"{source}: {path.name} holds no array of numbers ({error}); download it again") from error
    return array


def read_array(path: Path, key: str) -> NDArray | None:
    """Read a small array, also of Python objects, whose pickles are not executed; None if there is none of this name.

    Raises:
        DatasetError: if the file is damaged, or a pickle asks for more than texts and numbers.
    """
    with _open(path) as archive:
        if f"{key}.npy" not in archive.namelist():
            return None
        with archive.open(f"{key}.npy") as file:
            return load_npy(cast(BinaryIO, file))


def _is_whole(member: zipfile.ZipInfo, target: Path) -> bool:
    return target.is_file() and target.stat().st_size == member.file_size


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a .npz file; any damage that shows while it is open becomes an error that names it."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except LabelReadError as error:
        raise DatasetError(f"{path}: {error}") from error
    except HEADER_DAMAGE as error:
        raise DatasetError(f"{path}: is damaged or incomplete ({error}); download it again") from error


def _member(path: Path, archive: zipfile.ZipFile, key: str) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(f"{key}.npy")
    except KeyError:
        held = ", ".join(name.removesuffix(".npy") for name in archive.namelist()) or "nothing"
        raise DatasetError(f"{path}: has no array {key!r}, only {held}; is it the published file?") from None
