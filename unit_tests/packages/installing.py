"""Small bundle packages, and a user who has installed nothing."""

import json
import zipfile

from unit_tests.packages.packaging import package, package_bundle, write_files

METADATA = {"version": "1.2.3", "description": "tiny", "required_packages_version": {"numpy": "2.0"}}
SOURCES = {
    "LICENSE": "Apache-2.0\n",
    "large_files.yml": "large_files: []\n",
    "configs/metadata.json": json.dumps(METADATA),
    "configs/inference.json": "{}",
    "docs/README.md": "tiny",
    "scripts/__init__.py": "",
}


def prepare(tmp_path, monkeypatch):
    """Folder of the bundles that a new user installs; the core in packages becomes one small file."""
    monkeypatch.delenv("CELLBUNDLE_BUNDLES", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    write_files(tmp_path / "core", {"__init__.py": '__version__ = "0"\n'})
    monkeypatch.setattr(package_bundle, "CORE", tmp_path / "core")
    return tmp_path / "data" / "cellbundle" / "bundles"


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
