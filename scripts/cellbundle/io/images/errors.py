"""Errors that say which file they are about."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import CellBundleError, DependencyError
from ..regular import IRREGULAR, is_irregular


@contextmanager
def named(path: Path, kind: type[CellBundleError]) -> Iterator[None]:
    """Put the name of the file in front of every message, and raise all errors of decoders as one kind.

    A FIFO, device or socket is refused: the block does not run.
    """
    if is_irregular(path):
        raise kind(f"{path}: {IRREGULAR}")
    try:
        yield
    except (DependencyError, MemoryError):
        raise
    except CellBundleError as error:
        raise kind(f"{path}: {error}") from error
    except Exception as error:  # decoders raise anything on damaged bytes
        if isinstance(error, OSError) and error.errno is not None:
            raise kind(f"{path}: cannot be opened ({error.strerror}); check the path and the permissions") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise kind(f"{path}: cannot be decoded ({reason}); it is damaged or incomplete, export it again") from error
