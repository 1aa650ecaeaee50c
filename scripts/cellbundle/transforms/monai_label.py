"""Support for servers of MONAI Label."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CellBundleError

APP_VARIABLE = "MONAI_LABEL_APP_DIR"  # set by a server of MONAI Label, also for the processes that it starts
BAD_REQUEST = 400


def runs_in_monai_label() -> bool:
    """Return whether a server of MONAI Label runs this process, or started it to train on a GPU."""
    return bool(os.environ.get(APP_VARIABLE))


@contextmanager
def answered_errors(path: str | Path | None = None) -> Iterator[None]:
    """In MONAI Label, raise errors about an image as HTTP 400 with their message; it answers 500 without one else.

    Args:
        path: of the image, of which the answer has the name only.
    """
    try:
        yield
    except CellBundleError as error:
        if not runs_in_monai_label():
            raise
        from starlette.exceptions import HTTPException  # noqa: PLC0415  (MONAI Label brings it)

        message = str(error) if path is None else str(error).replace(str(path), Path(path).name)
        raise HTTPException(BAD_REQUEST, f"{type(error).__name__}: {message}") from error
