"""The list of the files in a results folder that cellbundle wrote: no others are replaced or removed."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import ConfigError
from ..io import atomic_path, printable
from .jobs import RECORDS

NAME = "files.json"
MAX_SHOWN = 10


class Manifest:
    """Names of the files of a results folder that belong to cellbundle, kept in ``.cellbundle/files.json``.

    A file is listed before it is written, so that what a stopped run leaves is known.

    Args:
        folder: of the results.
        recover: gives the files that earlier runs wrote, relative to the folder, where the list is missing or damaged.
    """

    def __init__(self, folder: Path, recover: Callable[[], Iterable[Path]] = tuple) -> None:
        self.folder, self.path = folder, folder / RECORDS / NAME
        names = self._read()
        self.names = {path.as_posix() for path in recover()} if names is None else names

    def check(self, paths: Iterable[Path]) -> None:
        """Raise ``ConfigError`` naming the files at these paths, relative to the folder, that are not listed."""
        names = [path.as_posix() for path in paths]
        foreign = [name for name in names if name not in self.names and os.path.lexists(self.folder / name)]
        if foreign:
            more = f" and {len(foreign) - MAX_SHOWN} more" if len(foreign) > MAX_SHOWN else ""
            raise ConfigError(
                f"{self.folder} holds files that cellbundle did not write: {printable(', '.join(foreign[:MAX_SHOWN]))}"
                f"{more}; choose another --output, or replace them with --replace-foreign"
            )

    def add(self, paths: Iterable[Path]) -> None:
        """List files that are about to be written."""
        names = {path.as_posix() for path in paths}
        if not self.names >= names:
            self.names |= names
            self._write()

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove those of some files that cellbundle wrote."""
        for path in paths:
            if path.as_posix() in self.names:
                (self.folder / path).unlink(missing_ok=True)

    def _read(self) -> set[str] | None:
        """Names in the file, None if it is missing or damaged."""
        try:
            names = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return set(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(sorted(self.names), indent=0), encoding="utf-8")
