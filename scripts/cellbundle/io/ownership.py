"""The list of the files in a results folder that cellbundle wrote: no others are replaced or removed."""

import json
import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from ..errors import ConfigError
from . import atomic_path, first_few, printable
from .sealed import seal, unseal

STATE = ".cellbundle"  # folder in that of the results
NAME, COPY = "files.json", "files.copy.json"
DATA_SET = f"{STATE}/dataset"  # file with the name of the data set that was prepared there
OPTION = "--replace-foreign"
MAX_SHOWN = 10


def is_record(name: str) -> bool:
    """Whether a file is a list of the files of a folder, by its name with "/" between levels."""
    return f"/{name}".endswith((f"/{STATE}/{NAME}", f"/{STATE}/{COPY}"))


class Manifest:
    """Names of the files of a results folder that belong to cellbundle, kept in ``.cellbundle/files.json``.

    A file is listed before it is written, so that what a stopped run leaves is known.

    Args:
        folder: of the results.
        recover: gives the files that earlier runs wrote, relative to the folder, where the list is missing or damaged.
            Without it, a copy of the list is kept.
        shown: name of the folder in messages, where it is a copy of a remote one.
        elsewhere: files of the remote one, relative to it, "/" between levels.
    """

    def __init__(
        self,
        folder: Path,
        recover: Callable[[], Iterable[Path]] | None = None,
        *,
        shown: str | None = None,
        elsewhere: Collection[str] = (),
    ) -> None:
        self.folder, self.shown, self.elsewhere = folder, shown or str(folder), elsewhere
        path, copy = (folder / STATE / name for name in (NAME, COPY))
        self.paths = [path] if recover and not copy.exists() else [path, copy]
        names = next((names for names in map(_read, self.paths) if names is not None), None)
        if names is None:
            names = {path.as_posix() for path in recover()} if recover else set()
        self.names = names

    def check(self, paths: Iterable[Path], replace_foreign: bool = False) -> None:
        """Raise ``ConfigError`` naming what is in the way of files that are to be written.

        Args:
            paths: of these files, relative to the folder.
            replace_foreign: files that are not listed may be replaced; folders never are.
        """
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise ConfigError(f"{self.shown} is not a folder; give a folder for the results")
        planned = list(paths)
        files = self._present(planned)
        occupied = [path for path in files if (self.folder / path).is_dir()]
        if occupied:
            raise ConfigError(f"{self.shown} holds folders in the place of files: {_shown(occupied)}; move them away")
        foreign = [*self._not_folders(planned), *(path for path in files if path.as_posix() not in self.names)]
        if foreign and not replace_foreign:
            raise ConfigError(
                f"{self.shown} holds files that cellbundle did not write: {_shown(foreign)}; choose another folder for "
                f"the results, or replace them with {OPTION}"
            )

    def add(self, paths: Iterable[Path]) -> None:
        """List files that are about to be written; a file in the place of one of their folders is removed."""
        files = list(paths)
        for path in self._not_folders(files):
            (self.folder / path).unlink()
        names = {path.as_posix() for path in files}
        if not self.names >= names:
            self.names |= names
            self._write()

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove those of some files that cellbundle wrote."""
        for path in paths:
            if path.as_posix() in self.names:
                (self.folder / path).unlink(missing_ok=True)

    def forget_missing(self) -> None:
        """Drop the names of files that do not exist, so that files which a user puts there are not taken for ours."""
        existing = {name for name in self.names if self._exists(name)}
        if existing != self.names:
            self.names = existing
            self._write()

    def _present(self, paths: Iterable[Path]) -> list[Path]:
        """Those of some paths that exist; each folder is listed once, because they may be many."""
        listed: dict[Path, set[str]] = {}
        found = []
        for path in dict.fromkeys(paths):
            parent = path.parent
            if parent not in listed:
                listed[parent] = _names(self.folder / parent)
            if (_key(path.name) in listed[parent] or self.elsewhere) and self._exists(path.as_posix()):
                found.append(path)
        return found

    def _exists(self, name: str) -> bool:
        return os.path.lexists(self.folder / name) or name in self.elsewhere

    def _not_folders(self, files: Iterable[Path]) -> list[Path]:
        """What is in the place of a folder that the files need, and is no folder."""
        parents = dict.fromkeys(path.parent for path in files)
        folders = dict.fromkeys([Path(STATE), *(one for path in parents for one in (path, *path.parents) if one.name)])
        return [path for path in folders if os.path.lexists(self.folder / path) and not (self.folder / path).is_dir()]

    def _write(self) -> None:
        (self.folder / STATE).mkdir(parents=True, exist_ok=True)
        text = json.dumps(seal({"files": sorted(self.names)}), indent=0)
        for path in self.paths:
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")


def _names(folder: Path) -> set[str]:
    """Keys of the names in a folder; none if it is no folder."""
    try:
        return {_key(path.name) for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _key(name: str) -> str:
    """The same for names that some file systems do not tell apart."""
    return unicodedata.normalize("NFC", name).casefold()


def _shown(paths: Sequence[Path]) -> str:
    """The first few of some paths, and how many there are more."""
    return printable(first_few([path.as_posix() for path in paths], MAX_SHOWN))


def _read(path: Path) -> set[str] | None:
    """Names in a list, None if it is missing or damaged."""
    try:
        names = unseal(path.read_bytes())["files"] if path.is_file() else None
    except (OSError, ValueError, LookupError):
        return None
    return set(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
