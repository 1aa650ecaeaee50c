"""Opening a FIFO waits until something is written to it, and a device may never end: neither is opened."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from ..errors import ImageReadError

IRREGULAR = "is a FIFO, a device or a socket; give a regular file"
WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0)  # for a writer of a FIFO; Windows has neither flag
WITHOUT_LINKS = getattr(os, "O_NOFOLLOW", 0)


def is_irregular(path: str | Path) -> bool:
    """Return whether a path, or the target of a link, exists and is neither a regular file nor a folder."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - also called for 10⁵ strings
    except (OSError, ValueError):  # does not exist, or cannot be a path: opening it says why
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def open_regular(path: str | Path, *, follow: bool = True, folder: int | None = None) -> BinaryIO:
    """Open a regular file for reading; the check of its kind holds for the file that is open.

    Args:
        path: the file.
        follow: whether the path may be a link.
        folder: descriptor of the folder that the path is relative to.

    Returns:
        The open file.

    Raises:
        ImageReadError: if it is a folder, a FIFO, a device, a socket, or a link that is not followed.
        OSError: if it cannot be opened.
    """
    _check_kind(os.stat(path, dir_fd=folder, follow_symlinks=follow))
    flags = WITHOUT_WAITING | (0 if follow else WITHOUT_LINKS)
    opener = lambda name, mode: os.open(name, mode | flags, dir_fd=folder)  # noqa: E731
    file = open(path, "rb", opener=opener)  # noqa: SIM115
    try:
        _check_kind(os.fstat(file.fileno()))  # another file may have taken the path
    except ImageReadError:
        file.close()
        raise
    return file


def _check_kind(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ImageReadError("is a folder; give an image file")
    if stat.S_ISLNK(status.st_mode):
        raise ImageReadError("is a link, which is not followed here")
    if not stat.S_ISREG(status.st_mode):
        raise ImageReadError(IRREGULAR)
