"""``manifest.csv``: what a prepared folder holds; and the check that it still does."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatasetError
from ..io import atomic_path
from ..io.regular import IRREGULAR, is_irregular
from ..io.table import neutral_cell, plain_cell
from ..kernels.parallel import n_threads
from .convert import file_hash

MANIFEST = "manifest.csv"
SEAL = ".cellbundle/manifest.sha256"
AGAIN = "prepare the data set again to write it anew"
COLUMNS = ("path", "source", "bytes", "sha256", "height", "width", "instances")


@dataclass(frozen=True)
class Row:
    """One file of a prepared folder.

    Attributes:
        path: relative to the folder, with ``/``.
        source: published files that it was made from; empty for lists and reports.
        bytes: its size.
        sha256: its hash, in hexadecimal digits.
        height: of the image in it; None for lists and reports.
        width: the same.
        instances: in it, or in all it lists; None for images.
    """

    path: str
    source: str
    bytes: int
    sha256: str
    height: int | None = None
    width: int | None = None
    instances: int | None = None


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was written, and how."""

    path: str
    reason: str


def write_manifest(folder: Path, rows: Iterable[Row]) -> None:
    """Write the manifest, sorted by path, and its own hash beside the journal."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(rows, key=lambda row: row.path):
        values = (neutral_cell(getattr(row, name)) for name in COLUMNS)
        writer.writerow(["" if value is None else value for value in values])
    content = text.getvalue().encode()
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_bytes(content)
    (folder / SEAL).parent.mkdir(exist_ok=True)
    with atomic_path(folder / SEAL) as temporary:
        temporary.write_text(hashlib.sha256(content).hexdigest() + "\n")


def read_manifest(folder: Path) -> list[Row]:
    """Read the manifest of a prepared folder.

    Raises:
        DatasetError: if there is none, or it is not one of ours.
    """
    path = folder / MANIFEST
    if is_irregular(path):
        raise DatasetError(f"{path}: {IRREGULAR}")
    try:
        return _parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{folder} has no {MANIFEST}; prepare the data set first, or give its folder") from error
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be used ({error}); {AGAIN}") from error


def verify(folder: Path, progress: Callable[[int, int], None] | None = None) -> list[Damage]:
    """Compare every file of a prepared folder with the manifest.

    Args:
        folder: that ``prepare`` wrote.
        progress: called with the number of files done and of all.

    Returns:
        Each damaged file once, sorted by path. If the manifest itself was changed, only that is said, because nothing
        else can be compared.

    Raises:
        DatasetError: if there is no manifest, or it cannot be read.
    """
    if _is_unsealed(folder):
        return [Damage(MANIFEST, f"was changed since it was written; {AGAIN}")]
    rows = read_manifest(folder)
    incomplete = _why_incomplete(folder, rows)
    if incomplete:
        return [Damage(MANIFEST, f"{incomplete}; {AGAIN}")]
    owners: dict[str, str] = {}
    for row in rows:
        owners.setdefault(row.sha256, row.path)
    found = []
    with ThreadPoolExecutor(n_threads()) as pool:
        for done, reason in enumerate(pool.map(lambda row: _compare(folder, row, owners), rows), start=1):
            if reason:
                found.append(Damage(rows[done - 1].path, reason))
            if progress:
                progress(done, len(rows))
    return found


def _parse(text: str) -> list[Row]:
    """Rows of a manifest; ``ValueError`` if it is none."""
    head, *lines = [*csv.reader(io.StringIO(text, newline=""), strict=True)] or [[]]
    if tuple(head) != COLUMNS:
        raise ValueError(f"its first line is {','.join(head)!r}, not {','.join(COLUMNS)!r}")
    rows = []
    for path, source, size, digest, *numbers in lines:
        height, width, instances = [int(value) if value else None for value in numbers]
        rows.append(Row(plain_cell(path), plain_cell(source), int(size), digest, height, width, instances))
    return rows


def _why_incomplete(folder: Path, rows: Sequence[Row]) -> str | None:
    """What a manifest lacks that was cut off or edited: every data list, or images and label maps in one of them."""
    known = {row.path for row in rows}
    lists = [row for row in rows if row.path.endswith(".json")]
    if not lists:
        return "has no data list"
    for row in lists:
        if _compare(folder, row, {}) is None:
            content = json.loads((folder / row.path).read_text(encoding="utf-8"))
            listed = {entry[key] for entries in content.values() for entry in entries for key in ("image", "label")}
            if not listed <= known:
                return f"lacks {len(listed - known)} files of {row.path}"
    return None


def _is_unsealed(folder: Path) -> bool:
    """Whether the manifest has another hash than when it was written."""
    path, seal = folder / MANIFEST, folder / SEAL
    return path.is_file() and seal.is_file() and file_hash(path).encode() != seal.read_bytes().strip()


def _compare(folder: Path, row: Row, owners: dict[str, str]) -> str | None:
    """What is wrong with a file, or None."""
    path = folder / row.path
    try:
        size, digest = path.stat().st_size, file_hash(path)
    except (FileNotFoundError, ValueError):  # a path in a damaged manifest may hold NUL
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if digest == row.sha256:
        return None
    if digest in owners:
        return f"has the content of {owners[digest]}"
    if size != row.bytes:
        return f"has {size} bytes, not {row.bytes} as when it was written"
    return "has other content than when it was written, with the same size"
