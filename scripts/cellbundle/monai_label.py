"""What is different in a server of MONAI Label."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import CellBundleError

BAD_REQUEST = 400


def runs_in_monai_label() -> bool:
    """Return whether this process is a server of MONAI Label, whose trainings replace the weights of its own copy."""
    return "monailabel" in sys.modules


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
