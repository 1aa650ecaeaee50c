"""How the kernels are compiled, and where their machine code is kept."""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile a function at its first call, without the GIL, and keep the machine code for later processes.

    numba keeps it in ``NUMBA_CACHE_DIR``, else beside the module, else in the user's cache folder. Where it may write
    to none of them (a read-only installation of a user without a home), a folder of the user's own in the temporary
    directory takes it; where there is none either, every process compiles for itself.
    """
    compiled: Any
    try:
        compiled = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "no locator available"
        try:
            compiled = _compile_into(_private_folder(), function)
        except OSError:
            compiled = numba.njit(nogil=True)(function)
    return compiled


def _compile_into(folder: str, function: Callable[..., Any]) -> Any:
    """Compile with the machine code in ``folder``; numba looks at its configuration once, when it decorates."""
    config: Any = numba.config
    configured = config.CACHE_DIR
    config.CACHE_DIR = folder
    try:
        return numba.njit(cache=True, nogil=True)(function)
    finally:
        config.CACHE_DIR = configured


def _private_folder() -> str:
    """A folder that only this user writes to, because what lies in it is run: one for all processes if possible."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir(), f"cellbundle-kernels-{user}")
    folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    status = folder.lstat()
    open_to_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if stat.S_ISDIR(status.st_mode) and status.st_uid == user and not open_to_others:
        return str(folder)
    return tempfile.mkdtemp(prefix="cellbundle-kernels-")
