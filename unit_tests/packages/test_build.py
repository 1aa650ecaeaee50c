"""Packages of bundles: what they hold, and what is refused."""

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile

import pytest
from unit_tests.packages.packaging import BUNDLES, ROOT, package, package_bundle, write_files

import cellbundle
from cellbundle.errors import CellBundleError, ConfigError
from cellbundle.packages.build import vendored

SOURCES = {
    "LICENSE": "Apache-2.0\n",
    "large_files.yml": "large_files: []\n",
    "configs/metadata.json": json.dumps({"version": "1.2.3", "description": "made with cellbundle.io tools"}),
    "configs/hyper_parameters.yaml": "imports:\n- $from cellbundle.device import choose_device  # why\n",
    "configs/inference.json": json.dumps({"loader": {"_target_": "cellbundle.transforms.LoadCelld"}}),
    "configs/logging.conf": "[loggers]\n",
    "docs/README.md": "See https://github.com/cellbundle/cellbundle\n\n    from cellbundle.io import read_image\n",
    "scripts/__init__.py": "",
    "scripts/workflow.py": "from cellbundle.engine.workflow import CellWorkflow\n",
}
STRAY = (
    "eval/a_labels.tif",
    "models/latest.pt",
    "models/history.csv",
    "models/model_final.pt",
    "scripts/__pycache__/workflow.cpython-311.pyc",
    "configs/.inference.json.swp",
    "notes.md",
)


@pytest.fixture
def repository(tmp_path):
    """A repository with one small bundle, stray files in it, and a data list."""
    root = tmp_path / "repository"
    write_files(root / "bundles" / "tiny", SOURCES | dict.fromkeys(STRAY, "stray") | {"models/model.pt": "weights"})
    write_files(root / "datalists", {"cells.json": "{}", "README.md": "counts", "fetch.sh": "stray"})
    return root


def content(folder):
    """Bytes of all files below a folder by path, apart from the core."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}
    return {name: data for name, data in files.items() if not name.startswith("scripts/cellbundle/")}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from cellbundle.io import read_image", "from scripts.cellbundle.io import read_image"),
        ("    from cellbundle import errors", "    from scripts.cellbundle import errors"),
        (">>> from cellbundle.io import (\n", ">>> from scripts.cellbundle.io import (\n"),
        ("import cellbundle.io as cio", "import scripts.cellbundle.io as cio"),
        ("import cellbundle", "import scripts.cellbundle as cellbundle, scripts.cellbundle"),
        ("import cellbundle.io\n", "import scripts.cellbundle as cellbundle, scripts.cellbundle.io\n"),
        ('import_module("cellbundle.io.images.read")', 'import_module("scripts.cellbundle.io.images.read")'),
        ("- $from cellbundle.io import a  # x", "- $from scripts.cellbundle.io import a  # x"),
        ('"$import cellbundle.io as c"', '"$import scripts.cellbundle.io as c"'),
        ("$__import__('cellbundle.io').io", "$__import__('scripts.cellbundle.io').io"),
        (r'"$__import__(\"cellbundle.io\")"', r'"$__import__(\"scripts.cellbundle.io\")"'),
        ("  _target_: cellbundle.inference.tiling.T", "  _target_: scripts.cellbundle.inference.tiling.T"),
        ("{_target_: 'cellbundle.inference.tiling.T'}", "{_target_: 'scripts.cellbundle.inference.tiling.T'}"),
        ('"_target_": "cellbundle.inference.tiling.T"', '"_target_": "scripts.cellbundle.inference.tiling.T"'),
    ],
)
def test_rewritten(before, after):
    assert vendored(before) == after
    assert vendored(after) == after


@pytest.mark.parametrize(
    "text",
    [
        "https://github.com/cellbundle/cellbundle",
        "https://cellbundle.io/docs",
        '"description": "label maps of cellbundle.io, see cellbundle.io for more"',
        '"name": "cellbundle"',
        "made by cellbundle. It runs alone",
        '"cellbundle.json"',
        "pip install 'cellbundle[zarr]'",
        "cannot import cellbundle here",
        "from cellbundle_tools import x",
        "import cellbundle_tools",
        "from mycellbundle.io import x",
        "from .cellbundle import x",
        "_target_: scripts.network.Net",
        "_target_: monai.cellbundle.X",
    ],
)
def test_not_rewritten(text):
    assert vendored(text) == text


@pytest.mark.parametrize(
    "statement",
    ["import cellbundle", "import cellbundle.errors", "import cellbundle.errors as e; cellbundle = e.__package__"],
)
def test_rewritten_imports_work(tmp_path, statement):
    """What follows an import may go on using the same names."""
    write_files(
        tmp_path / "scripts", {"__init__.py": "", "cellbundle/__init__.py": "", "cellbundle/errors.py": "x = 1"}
    )
    code = vendored(statement) + "\nassert 'scripts.cellbundle' in str(cellbundle)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_contents(repository, tmp_path):
    archive = package("tiny", tmp_path / "dist", repository)
    files = content(tmp_path / "dist" / "tiny")
    extra = {"BUILD.json", "models/model.pt", "datalists/cells.json", "datalists/README.md"}
    assert set(files) == set(SOURCES) | extra
    assert archive.name == "tiny_v1.2.3.zip"
    changed = {name for name, text in SOURCES.items() if files[name].decode() != text}
    assert changed == {
        "configs/hyper_parameters.yaml",
        "configs/inference.json",
        "docs/README.md",
        "scripts/workflow.py",
    }
    assert sorted(p.name for p in (tmp_path / "dist").iterdir()) == ["tiny", "tiny_v1.2.3.zip"]


def test_core_is_complete(repository, tmp_path):
    package("tiny", tmp_path, repository)
    core, copy = ROOT / "scripts" / "cellbundle", tmp_path / "tiny" / "scripts" / "cellbundle"
    present = {p.relative_to(core) for p in core.rglob("*") if p.is_file()}
    expected = {p for p in present if not any(part.startswith((".", "__pycache__")) for part in p.parts)}
    assert {p.relative_to(copy) for p in copy.rglob("*") if p.is_file()} == expected


def test_archive_equals_folder(repository, tmp_path):
    archive = package("tiny", tmp_path / "dist", repository)
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == sorted(file.namelist())
        file.extractall(tmp_path)
    folders = tmp_path / "tiny", tmp_path / "dist" / "tiny"
    assert content(folders[0]) == content(folders[1])


def test_reproducible(repository, tmp_path):
    first = package("tiny", tmp_path / "a", repository).read_bytes()
    for path in repository.rglob("*"):
        os.utime(path, (0, 0))
    assert package("tiny", tmp_path / "b", repository).read_bytes() == first
    assert package("tiny", tmp_path / "a", repository).read_bytes() == first


def test_stamp(repository, tmp_path):
    package("tiny", tmp_path, repository)
    folder = tmp_path / "tiny"
    stamp = json.loads((folder / "BUILD.json").read_text())
    assert (stamp["name"], stamp["version"], stamp["core_version"]) == (
        "tiny",
        "1.2.3",
        cellbundle.__version__,
    )
    present = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert list(stamp["files"]) == [name for name in present if name != "BUILD.json"]
    for name, value in stamp["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == value


def test_no_weights_no_lists(repository, tmp_path):
    (repository / "bundles" / "tiny" / "models" / "model.pt").unlink()
    (repository / "datalists" / "cells.json").unlink()
    package("tiny", tmp_path, repository)
    assert set(content(tmp_path / "tiny")) == set(SOURCES) | {"BUILD.json"}


def test_large_weights_are_left_out(repository, tmp_path, caplog):
    weights = repository / "bundles" / "tiny" / "models" / "model.pt"
    os.truncate(weights, 25_000_001)
    package("tiny", tmp_path, repository)
    assert not (tmp_path / "tiny" / "models").exists()
    assert re.search(r"model\.pt.*left out.* 25 MB", caplog.text)


def test_replaces_an_older_package(repository, tmp_path):
    package("tiny", tmp_path, repository)
    (repository / "bundles" / "tiny" / "docs" / "README.md").unlink()
    (repository / "bundles" / "tiny" / "large_files.yml").write_text("new")
    package("tiny", tmp_path, repository)
    files = content(tmp_path / "tiny")
    assert "docs/README.md" not in files
    assert files["large_files.yml"] == b"new"


def test_failure_leaves_the_older_package(repository, tmp_path, monkeypatch):
    output = tmp_path / "dist"
    archive = package("tiny", output, repository)
    before = content(output)

    def fail(path, *_):
        path.touch()
        raise OSError("disk full")

    monkeypatch.setattr("cellbundle.packages.build.write_zip", fail)
    with pytest.raises(OSError, match="disk full"):
        package("tiny", output, repository)
    assert content(output) == before
    assert sorted(output.iterdir()) == [output / "tiny", archive]


def test_never_replaces_a_source(repository):
    with pytest.raises(CellBundleError, match=r"no BUILD\.json"):
        package("tiny", repository / "bundles", repository)
    assert (repository / "bundles" / "tiny" / "notes.md").is_file()


@pytest.mark.parametrize("name", ["notes.txt", ".env", "models/other.pt"])
def test_files_of_the_user_in_a_package_are_not_lost(repository, tmp_path, name):
    package("tiny", tmp_path, repository)
    write_files(tmp_path / "tiny", {name: "mine"})
    with pytest.raises(CellBundleError, match=f"lost.* {name};.*--output"):
        package("tiny", tmp_path, repository)
    assert (tmp_path / "tiny" / name).read_text() == "mine"


def test_an_archive_that_is_no_package_stays(repository, tmp_path):
    archive = package("tiny", tmp_path, repository)
    archive.write_text("mine")
    with pytest.raises(CellBundleError, match=r"tiny_v1\.2\.3\.zip.*no package.*--output"):
        package("tiny", tmp_path, repository)
    assert archive.read_text() == "mine"


@pytest.mark.parametrize("name", ["huge", "..", "", "bundles/tiny"])
def test_unknown_name(repository, tmp_path, name):
    write_files(repository / "bundles" / "small", {"configs/metadata.json": "{}"})
    with pytest.raises(ConfigError, match=f"bundle '{name}'.*small, tiny"):
        package(name, tmp_path / "dist", repository)
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize("metadata", ["{", "{}", "[]", '{"version": "../1"}', '{"version": ""}'])
def test_no_version(repository, tmp_path, metadata):
    write_files(repository / "bundles" / "tiny", {"configs/metadata.json": metadata})
    with pytest.raises(CellBundleError, match=r"metadata\.json.*version"):
        package("tiny", tmp_path, repository)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("docs/cells.npz", "", r"cells\.npz.*'\.npz'.*KINDS"),
        ("scripts/odd.py", "\nimport json, cellbundle.io", r"odd\.py, line 2.*'from cellbundle\.x import y'"),
        ("scripts/odd.py", "if True: import cellbundle", r"scripts/odd\.py, line 1.*'from cellbundle\.x import y'"),
    ],
)
def test_odd_files(repository, tmp_path, name, text, message):
    write_files(repository / "bundles" / "tiny", {name: text})
    with pytest.raises(CellBundleError, match=message):
        package("tiny", tmp_path, repository)


def test_command_line(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(package_bundle, "ROOT", repository)
    monkeypatch.setattr(package_bundle.package, "__defaults__", (repository,))
    package_bundle.main(["tiny", "--output", str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path / 'tiny_v1.2.3.zip'}\n"
    for arguments, code, message in (
        (["nope"], 2, "choose one of: tiny"),
        ([], 2, "NAME"),
        (["tiny", "--output", str(repository / "bundles")], 1, "is no package"),
    ):
        with pytest.raises(SystemExit) as info:
            package_bundle.main(arguments)
        assert info.value.code == code
        assert message in capsys.readouterr().err


def test_scripts_packages():
    """A package `scripts` at the root would hide those of the bundles, which must be regular packages."""
    assert not (ROOT / "scripts" / "__init__.py").exists()
    assert BUNDLES
    for name in BUNDLES:
        assert (ROOT / "bundles" / name / "scripts" / "__init__.py").read_bytes() == b""
