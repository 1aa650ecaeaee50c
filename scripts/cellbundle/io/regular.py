"""Opening a FIFO waits until something is written to it, and a device may never end: neither is opened."""

import os
import stat
from pathlib import Path

IRREGULAR = "is a FIFO, a device or a socket; give a regular file"


def is_irregular(path: str | Path) -> bool:
    """Return whether a path, or the target of a link, exists and is neither a regular file nor a folder."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - also called for 10⁵ strings
    except (OSError, ValueError):  # does not exist, or cannot be a path: opening it says why
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
