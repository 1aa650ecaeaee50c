"""``failures.csv``: inputs that could not be processed, with the reason."""

from collections.abc import Sequence
from pathlib import Path

from ..addresses import redact_text
from .table import write_rows

FAILURES = "failures.csv"


def write_failures(folder: Path, failures: Sequence[tuple[str, str]], column: str = "image") -> bool:
    """Write ``failures.csv`` into a folder, or remove an older one if nothing failed.

    Args:
        folder: made if there are failures.
        failures: name of the input and reason; addresses in reasons are redacted.
        column: header of the names.

    Returns:
        Whether there are failures.

    Raises:
        OSError: if the file cannot be written.
    """
    path = folder / FAILURES
    if not failures:
        path.unlink(missing_ok=True)
        return False
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(path, (column, "reason"), ((name, redact_text(reason)) for name, reason in failures))
    return True
