"""Bundle packages, as scripts/package_bundle.py writes them: unpacked and checked."""

import json
import re
import zipfile
from collections.abc import Collection, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from ..bundles import INFERENCE
from ..datasets.archive_members import MIB, ZIP_ENCRYPTED, size_text
from ..datasets.archives import HEADER_DAMAGE, explained, extract
from ..datasets.convert import file_hash
from ..errors import CellBundleError
from ..record import METADATA

STAMP = "BUILD.json"  # name, versions, and SHA-256 of all other files
MAX_ARCHIVE = 64 * MIB  # bytes of a package, whose weights have at most 25 MB
MAX_SIZE = 512 * MIB  # bytes of all its files
MAX_FILES = 5000

PART = re.compile(r"(?!\.+$)[A-Za-z0-9_.-]+")  # of a path in a package
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # of a bundle, or of a Python package
VERSION = re.compile(r"[A-Za-z0-9_.+-]+")
HASH = re.compile(r"[0-9a-f]{64}")
NO_PACKAGE = "it is not a bundle package written by package_bundle.py"


class PackageError(CellBundleError):
    """A bundle package cannot be fetched, is damaged or unsafe, or is not a bundle package."""


class Stamp(NamedTuple):
    """Content of ``BUILD.json``.

    Attributes:
        name: of the bundle.
        version: of the bundle.
        core_version: of the copy of cellbundle in the bundle.
        files: SHA-256 of every other file by its path in the bundle.
    """

    name: str
    version: str
    core_version: str
    files: dict[str, str]


def check_archive(archive: Path, sha256: str | None) -> None:
    """Check size and hash of a package.

    Args:
        archive: zip archive.
        sha256: expected hash in hexadecimal digits, if one is known.

    Raises:
        PackageError: if the archive is too large or has another hash.
    """
    size = archive.stat().st_size
    if size > MAX_ARCHIVE:
        raise PackageError(f"has {size_text(size)}, expected at most {size_text(MAX_ARCHIVE)}; {NO_PACKAGE}")
    if sha256 is not None and (digest := file_hash(archive)) != sha256.lower():
        raise PackageError(f"has the SHA-256 {digest}, expected {sha256.lower()}; do not use it, or correct --sha256")


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a package to a new folder and check its files.

    Args:
        archive: zip archive.
        folder: to make.

    Returns:
        The folder of the bundle in ``folder``.

    Raises:
        PackageError: if the archive is not a safe and complete package.
        DatasetError: if it is damaged, or ``cellbundle.datasets.archives.extract`` refuses it.
    """
    with explained(archive, HEADER_DAMAGE), zipfile.ZipFile(archive) as file:
        members = file.infolist()
    top, names = check_members(members)
    bundle = extract(archive, folder) / top
    stamp = read_stamp(bundle)
    if stamp.name != top:
        raise PackageError(f"its folder is {top!r}, but its {STAMP} is of {stamp.name!r}; {NO_PACKAGE}")
    check_files(bundle, stamp, names)
    return bundle


def check_members(members: Sequence[zipfile.ZipInfo]) -> tuple[str, list[str]]:
    """Check names and declared sizes of a package before anything is unpacked.

    Args:
        members: of the archive.

    Returns:
        Name of the folder that holds everything, and the paths of the files in it.

    Raises:
        PackageError: if there is no ``BUILD.json``, a name is not safe, or there are too many or too large files.
    """
    top = members[0].orig_filename.partition("/")[0] if members else ""
    if f"{top}/{STAMP}" not in {member.orig_filename for member in members}:
        raise PackageError(f"has no {STAMP} in its first folder {top!r}; {NO_PACKAGE}")
    if len(members) > MAX_FILES:
        raise PackageError(f"is not safe: it has {len(members)} files, expected at most {MAX_FILES}; do not use it")
    size = sum(member.file_size for member in members)
    if size > MAX_SIZE:
        raise PackageError(f"is not safe: it would become {size_text(size)}, expected at most {size_text(MAX_SIZE)}")
    taken: set[str] = set()
    for member in members:
        _check_name(member.orig_filename, top)
        name = member.orig_filename.removesuffix("/").lower()
        if name in taken:
            raise PackageError(f"is not safe: it has {member.orig_filename!r} twice; do not use it")
        taken.add(name)
        if member.flag_bits & ZIP_ENCRYPTED:
            raise PackageError(f"needs a password ({member.orig_filename!r} is encrypted); {NO_PACKAGE}")
    files = [member.orig_filename.removeprefix(f"{top}/") for member in members if not member.is_dir()]
    return top, files


def _check_name(name: str, top: str) -> None:
    parts = name.removesuffix("/").split("/")
    if not all(map(PART.fullmatch, parts)):
        raise PackageError(
            f"is not safe: it has {name!r}, expected names of letters, digits, '_', '.' and '-'; do not use it"
        )
    if parts[0] != top or (len(parts) == 1 and not name.endswith("/")):
        raise PackageError(f"is not safe: {name!r} is outside its folder {top!r}; do not use it")


def read_stamp(bundle: Path) -> Stamp:
    """Read the ``BUILD.json`` of an unpacked bundle.

    Raises:
        PackageError: if it cannot be read or is not as scripts/package_bundle.py writes it.
    """
    content = _read_json(bundle / STAMP, STAMP)
    for field, pattern in (("name", NAME), ("version", VERSION), ("core_version", VERSION)):
        if not isinstance(content.get(field), str) or not pattern.fullmatch(content[field]):
            raise PackageError(f"its {STAMP} has the {field} {content.get(field)!r}; {NO_PACKAGE}")
    files = content.get("files")
    hashes = list(files.values()) if isinstance(files, dict) else []
    if not hashes or not all(isinstance(value, str) and HASH.fullmatch(value) for value in hashes):
        raise PackageError(f"its {STAMP} does not name files with their SHA-256; {NO_PACKAGE}")
    return Stamp(*(content[field] for field in Stamp._fields))


def check_files(bundle: Path, stamp: Stamp, names: Collection[str]) -> None:
    """Check that a package has the files of its ``BUILD.json``, and no others.

    Args:
        bundle: folder of the unpacked bundle.
        stamp: its ``BUILD.json``.
        names: paths of the files in the archive.

    Raises:
        PackageError: naming the first file that is missing, not expected or changed, or that every bundle needs.
    """
    if missing := sorted(stamp.files.keys() - set(names)):
        raise PackageError(f"lacks {missing[0]!r}, which its {STAMP} names; download it again")
    if extra := sorted(set(names) - stamp.files.keys() - {STAMP}):
        raise PackageError(f"has {extra[0]!r}, which its {STAMP} does not name; do not use it")
    for needed in (METADATA, INFERENCE):
        if needed not in stamp.files:
            raise PackageError(f"has no {needed}; {NO_PACKAGE}")
    if changed := changed_files(bundle, stamp):
        raise PackageError(f"{changed[0]!r} has another SHA-256 than its {STAMP} says; download it again")


def changed_files(bundle: Path, stamp: Stamp) -> list[str]:
    """Paths of the files of a bundle that are missing, or are not as they were packaged."""
    return [
        name
        for name, digest in stamp.files.items()
        if not (bundle / name).is_file() or file_hash(bundle / name) != digest
    ]


def read_metadata(bundle: Path, stamp: Stamp) -> dict[str, Any]:
    """Read the metadata of an unpacked bundle.

    Raises:
        PackageError: if they cannot be read, or have another version than ``BUILD.json``.
    """
    metadata = _read_json(bundle / METADATA, METADATA)
    if str(metadata.get("version")) != stamp.version:
        raise PackageError(
            f"its {METADATA} has the version {metadata.get('version')!r}, its {STAMP} has {stamp.version!r}; package "
            "the bundle again"
        )
    return metadata


def _read_json(path: Path, name: str) -> dict[str, Any]:
    """Read a file with a JSON object; messages call it ``name``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PackageError(f"its {name} cannot be read ({type(error).__name__}); {NO_PACKAGE}") from error
    if not isinstance(content, dict):
        raise PackageError(f"its {name} is a JSON {type(content).__name__}, expected an object; {NO_PACKAGE}")
    return content


def missing_packages(metadata: dict[str, Any]) -> list[str]:
    """Required Python packages that are not installed, as arguments of ``pip install``.

    Args:
        metadata: of a bundle; ``required_packages_version`` has a version for each package.

    Raises:
        PackageError: if these are not names of packages.
    """
    required = metadata.get("required_packages_version", {})
    if not isinstance(required, dict) or not all(map(NAME.fullmatch, required)):
        raise PackageError(f"its {METADATA} has required_packages_version {required!r}, expected versions by name")
    return [
        f"{name}=={wanted}" if VERSION.fullmatch(str(wanted)) else name
        for name, wanted in required.items()
        if not _has_package(name)
    ]


def _has_package(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
