"""Packages of a small bundle: making and reading them, and checking what is installed."""

import json
import zipfile
from contextlib import contextmanager

import pytest
from unit_tests.packages.packaging import package, write_files

from cellbundle.errors import ConfigError

METADATA = {"version": "1.2.3", "description": "tiny", "required_packages_version": {"numpy": "2.0"}}
SOURCES = {
    "LICENSE": "Apache-2.0\n",
    "large_files.yml": "large_files: []\n",
    "configs/metadata.json": json.dumps(METADATA),
    "configs/inference.json": "{}",
    "docs/README.md": "tiny",
    "scripts/__init__.py": "",
}


def make_package(folder, changes=None):
    """Archive of the bundle ``tiny`` with changed files; None leaves a file out."""
    files = {name: text for name, text in (SOURCES | (changes or {})).items() if text is not None}
    write_files(folder / "bundles" / "tiny", files)
    return package("tiny", folder / "dist", folder)


def with_metadata(**changes):
    """Changes for ``make_package``."""
    return {"configs/metadata.json": json.dumps(METADATA | changes)}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@contextmanager
def refused(home, message, error=ConfigError):
    """Check that the block raises an error, and that all that is installed stays as it was."""
    before = content(home)
    with pytest.raises(error, match=message) as caught:
        yield caught
    assert content(home) == before


def read_zip(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write_zip(path, members, **last):
    """Write members; the entry of the last one in the directory of the archive is changed."""
    with zipfile.ZipFile(path, "w") as file:
        for name, text in members:
            file.writestr(zipfile.ZipInfo(name), text)
        for key, value in last.items():
            setattr(file.infolist()[-1], key, value)
