"""Install bundle packages where bundles are found by name."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ..addresses import redact
from ..bundles import SEARCH_VARIABLE, install_folder
from ..datasets.archives import is_junk
from ..datasets.download import fetch, split_login
from ..errors import ConfigError, DatasetError
from .archive import (
    HASH,
    MAX_ARCHIVE,
    STAMP,
    PackageError,
    Stamp,
    changed_files,
    check_archive,
    missing_packages,
    read_metadata,
    read_stamp,
    unpack,
)

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.I)  # one letter is a drive
TIMEOUT = 30.0  # seconds without an answer of a server


class Installed(NamedTuple):
    """An installed bundle.

    Attributes:
        name: of the bundle.
        version: of the bundle.
        folder: of the bundle.
        is_new: False if exactly this package was installed before.
        missing: required Python packages that are not installed, as arguments of ``pip install``.
    """

    name: str
    version: str
    folder: Path
    is_new: bool
    missing: list[str]


def install_bundle(source: str | Path, *, sha256: str | None = None, overwrite: bool = False) -> Installed:
    """Install a bundle package in ``cellbundle.bundles.install_folder()``.

    The package is unpacked and checked in a temporary folder beside the bundles, which is then renamed. An error leaves
    an installed version as it was. The checks do not show whether a bundle can be trusted: it is code, which runs on
    this computer.

    Args:
        source: zip archive that scripts/package_bundle.py wrote: a path, or an address of http or https.
        sha256: expected hash of the archive, in hexadecimal digits.
        overwrite: replace another version, or a version with changed files.

    Raises:
        PackageError: if the archive cannot be fetched, has another hash, or is not an undamaged and safe package.
        ConfigError: for an invalid argument, or if the folder of the bundle may not be replaced.
        OSError: if a file cannot be read or written.
    """
    if sha256 is not None and not HASH.fullmatch(sha256.lower()):
        raise ConfigError(f"the SHA-256 is {sha256!r}, expected 64 hexadecimal digits")
    shown = _shown(str(source))
    folder = install_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".install-", dir=folder) as temporary:
        archive = _find_archive(str(source), Path(temporary, "package.zip"))
        with _messages_about(archive, shown):
            check_archive(archive, sha256)
            new = unpack(archive, Path(temporary, "new"))
            stamp = read_stamp(new)
            missing = missing_packages(read_metadata(new, stamp))
        target = folder / stamp.name
        is_new = not is_installed(target, stamp, overwrite)
        if is_new:
            replace_folder(new, target, Path(temporary, "old"))
    return Installed(stamp.name, stamp.version, target, is_new, missing)


def _shown(source: str) -> str:
    """A source as messages name it, redacted; raises ``ConfigError`` if it cannot be used."""
    if ADDRESS.match(source):
        try:
            return redact(split_login(source)[0])
        except DatasetError as error:
            raise ConfigError(str(error)) from None
    if not Path(source).is_file():
        raise ConfigError(f"{source} is not a file; give a zip archive written by package_bundle.py, or its address")
    return source


def _find_archive(source: str, target: Path) -> Path:
    """Path of the archive, which is downloaded to ``target`` if the source is an address."""
    if not ADDRESS.match(source):
        return Path(source)
    try:
        return fetch(source, target, timeout=TIMEOUT, limit=MAX_ARCHIVE, advice="install from a file")
    except DatasetError as error:
        raise PackageError(str(error)) from error


@contextmanager
def _messages_about(archive: Path, shown: str) -> Iterator[None]:
    """Raise the errors of an archive as ``PackageError`` with its name in front."""
    try:
        yield
    except (PackageError, DatasetError) as error:
        raise PackageError(f"{shown}: {str(error).removeprefix(f'{archive}: ')}") from error


def is_installed(target: Path, stamp: Stamp, overwrite: bool = False) -> bool:
    """Return whether a package is installed as it is; False if it may be put in place.

    Args:
        target: folder of the bundle.
        stamp: of the package.
        overwrite: whether another version, or changed files, may be replaced.

    Raises:
        ConfigError: if the folder may not be replaced.
    """
    if not target.exists() and not target.is_symlink():
        return False
    try:
        old = read_stamp(target)
    except PackageError as error:
        raise ConfigError(
            f"{target} is not an installed package (it has no valid {STAMP}), so it is never replaced; move it "
            f"elsewhere, or set {SEARCH_VARIABLE} to another folder"
        ) from error
    changed = changed_files(target, old)
    if old == stamp and not changed:
        return True
    if not overwrite:
        difference = f"the package has {stamp.version}"
        if old.version == stamp.version:
            difference = f"its {changed[0]!r} was changed" if changed else "the package has other files"
        raise ConfigError(
            f"{old.name} {old.version} is installed in {target}, {difference}; replace it with --overwrite"
        )
    if added := added_files(target, old):
        raise ConfigError(
            f"{target / added[0]} is not a file of the package and would be lost; move it elsewhere first"
        )
    return False


def added_files(bundle: Path, stamp: Stamp) -> list[str]:
    """Paths of the files that were not in the package, apart from what Python and macOS add."""
    paths = sorted(path.relative_to(bundle) for path in bundle.rglob("*") if path.is_symlink() or not path.is_dir())
    names = [path.as_posix() for path in paths if "__pycache__" not in path.parts and not is_junk(path.name)]
    return [name for name in names if name not in stamp.files and name != STAMP]


def replace_folder(new: Path, target: Path, old: Path) -> None:
    """Rename ``new`` to ``target``, and an existing ``target`` to ``old``, which is restored if this fails."""
    if not target.exists() and not target.is_symlink():
        new.rename(target)
        return
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
