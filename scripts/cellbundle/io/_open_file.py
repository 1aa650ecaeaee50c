"""Open a file that may be anything: the check of its kind holds for the file that is open."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from ..errors import ImageReadError
from .regular import IRREGULAR

WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0)  # for a writer of a FIFO; Windows has neither flag
WITHOUT_LINKS = getattr(os, "O_NOFOLLOW", 0)


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: the file.
        follow: whether the path may be a link.

    Returns:
        The open file.

    Raises:
        ImageReadError: if it is a folder, a FIFO, a device, a socket, or a link that is not followed.
        OSError: if it cannot be opened.
    """
    _check_kind(path.stat() if follow else path.lstat())
    flags = WITHOUT_WAITING | (0 if follow else WITHOUT_LINKS)
    file = open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags))  # noqa: SIM115
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
