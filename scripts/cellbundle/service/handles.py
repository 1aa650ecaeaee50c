"""Files reached without following a link, whatever becomes of the folders above them in the meantime.

A path that was checked may lead elsewhere when it is used: somebody may have put a link in the place of a folder. Here
each part of a path is opened relative to the part before it, and none may be a link.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from ..errors import ImageReadError
from ..io.regular import open_regular
from .paths import OutsideError

SUPPORTED = os.open in os.supports_dir_fd  # not on Windows
DESCRIPTORS = Path("/proc/self/fd")  # of Linux: a path for each open file, at which it can be opened once more
PERMISSIONS = 0o666  # less what the umask takes away


@contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """Descriptor of a folder.

    Args:
        path: absolute, without links.

    Raises:
        OutsideError: if a part of the path does not exist, is no folder, or is a link.
    """
    # With O_PATH, a folder may be passed through that may not be listed.
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_PATH", os.O_RDONLY)
    handle = os.open(path.anchor, flags)
    try:
        for part in path.parts[1:]:
            try:
                below = os.open(part, flags, dir_fd=handle)
            except OSError as error:
                raise OutsideError from error
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def open_file(name: str, folder: int) -> BinaryIO:
    """Open a regular file in a folder for reading.

    Args:
        name: of the file.
        folder: descriptor of the folder.

    Raises:
        OutsideError: if it is no regular file, or a link.
        OSError: if it does not exist, or may not be read.
    """
    try:
        return open_regular(name, follow=False, folder=folder)
    except ImageReadError as error:
        raise OutsideError from error


@contextmanager
def pinned(path: Path) -> Iterator[Path]:
    """Another path of a regular file, which leads to it as long as the block lasts.

    Args:
        path: absolute, without links.

    Raises:
        OutsideError: if there is none, a part of the path is a link, or it may not be read.
    """
    with ExitStack() as stack:
        with open_folder(path.parent) as folder:
            try:
                file = stack.enter_context(open_file(path.name, folder))
            except OSError as error:
                raise OutsideError from error
        if DESCRIPTORS.is_dir():
            yield DESCRIPTORS / str(file.fileno())
            return
        copy = stack.enter_context(tempfile.NamedTemporaryFile())
        shutil.copyfileobj(file, copy)
        copy.flush()
        yield Path(copy.name)


@contextmanager
def replacing(name: str, folder: int) -> Iterator[BinaryIO]:
    """A new file in a folder, which takes the place of ``name`` when the block ends well.

    Args:
        name: of the file.
        folder: descriptor of the folder.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = f".{uuid4().hex}{Path(name).suffix}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    file = os.fdopen(os.open(temporary, flags, PERMISSIONS, dir_fd=folder), "wb")
    try:
        with file:
            yield file
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
