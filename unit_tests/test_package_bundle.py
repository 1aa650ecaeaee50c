"""Packages of bundles: what they hold, and that they run where the core cannot be imported."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from cellbundle.errors import CellBundleError, ConfigError

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = sorted(p.parent.name for p in (ROOT / "bundles").glob("*/configs"))
LEFTOVER = re.compile(r"\bfrom\s+cellbundle\b|\bimport\s+cellbundle\b|_target_[\"']?\s*:\s*[\"']?cellbundle\b")

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


def load_script(path, name):
    """A module by its file: `scripts` is the name of several packages here."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


package_bundle = load_script(ROOT / "scripts" / "package_bundle.py", "package_bundle")
package = package_bundle.package


def write_files(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


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
        ('import_module("cellbundle.io.read")', 'import_module("scripts.cellbundle.io.read")'),
        ("- $from cellbundle.io import a  # x", "- $from scripts.cellbundle.io import a  # x"),
        ('"$import cellbundle.io as c"', '"$import scripts.cellbundle.io as c"'),
        ("$__import__('cellbundle.io').io", "$__import__('scripts.cellbundle.io').io"),
        (r'"$__import__(\"cellbundle.io\")"', r'"$__import__(\"scripts.cellbundle.io\")"'),
        ("  _target_: cellbundle.tiling.T", "  _target_: scripts.cellbundle.tiling.T"),
        ("{_target_: 'cellbundle.tiling.T'}", "{_target_: 'scripts.cellbundle.tiling.T'}"),
        ('"_target_": "cellbundle.tiling.T"', '"_target_": "scripts.cellbundle.tiling.T"'),
    ],
)
def test_rewritten(before, after):
    assert package_bundle.vendored(before) == after
    assert package_bundle.vendored(after) == after


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
    assert package_bundle.vendored(text) == text


@pytest.mark.parametrize(
    "statement",
    ["import cellbundle", "import cellbundle.errors", "import cellbundle.errors as e; cellbundle = e.__package__"],
)
def test_rewritten_imports_work(tmp_path, statement):
    """What follows an import may go on using the same names."""
    write_files(
        tmp_path / "scripts", {"__init__.py": "", "cellbundle/__init__.py": "", "cellbundle/errors.py": "x = 1"}
    )
    code = package_bundle.vendored(statement) + "\nassert 'scripts.cellbundle' in str(cellbundle)"
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
        package_bundle.cellbundle.__version__,
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
    assert f"{weights} is left out: it has more than 25 MB" in caplog.text


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

    monkeypatch.setattr(package_bundle, "write_zip", fail)
    with pytest.raises(OSError, match="disk full"):
        package("tiny", output, repository)
    assert content(output) == before
    assert sorted(output.iterdir()) == [output / "tiny", archive]


def test_never_replaces_a_source(repository):
    with pytest.raises(CellBundleError, match=r"no BUILD\.json"):
        package("tiny", repository / "bundles", repository)
    assert (repository / "bundles" / "tiny" / "notes.md").is_file()


@pytest.mark.parametrize("name", ["huge", "..", "", "bundles/tiny"])
def test_unknown_name(repository, tmp_path, name):
    (repository / "bundles" / "small" / "configs").mkdir(parents=True)
    with pytest.raises(ConfigError, match="choose one of: small, tiny"):
        package(name, tmp_path / "dist", repository)
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize("metadata", ["{", "{}", "[]", '{"version": "../1"}', '{"version": ""}'])
def test_no_version(repository, tmp_path, metadata):
    write_files(repository / "bundles" / "tiny", {"configs/metadata.json": metadata})
    with pytest.raises(CellBundleError, match=r"metadata\.json: expected"):
        package("tiny", tmp_path, repository)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("docs/cells.npz", "", r"cells\.npz: packages hold no '\.npz' files"),
        ("scripts/odd.py", "\nimport json, cellbundle.io", r"odd\.py, line 2: write 'from cellbundle\.x import y'"),
        ("scripts/odd.py", "if True: import cellbundle", r"scripts/odd\.py, line 1: write"),
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


@pytest.fixture(scope="module", params=BUNDLES)
def packaged(request, tmp_path_factory):
    """A bundle of the repository, packaged and unpacked."""
    folder = tmp_path_factory.mktemp("package")
    with zipfile.ZipFile(package(request.param, folder / "dist")) as file:
        file.extractall(folder)
    return folder / request.param


def test_nothing_refers_to_an_installed_core(packaged):
    for path in packaged.rglob("*"):
        if path.is_file() and path.suffix != ".pt":
            found = LEFTOVER.search(path.read_bytes().decode("utf-8", "replace"))
            assert found is None, f"{path}: {found.group()}"


BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "cellbundle":
            raise ImportError("cellbundle is blocked")

sys.meta_path.insert(0, Block())
"""


def run_python(arguments, folder, block=None):
    """Run Python in a folder; ``block`` is a folder for the hook that makes importing the core fail."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    if block is not None:
        write_files(block, {"sitecustomize.py": BLOCK})
        environment["PYTHONPATH"] = str(block)
    result = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


LOAD = """
import importlib, sys
from monai.bundle import ConfigParser

try:
    import cellbundle
except ImportError:
    pass
else:
    raise SystemExit("the core can be imported")
parser = ConfigParser()
parser.read_config("configs/hyper_parameters.yaml")
device = parser.get_parsed_content("device")
workflow = importlib.import_module("scripts.workflow")
from scripts.cellbundle.engine.workflow import CellWorkflow
found = [c for c in vars(workflow).values() if isinstance(c, type) and issubclass(c, CellWorkflow)]
classes = [c for c in found if c.__module__ == workflow.__name__]
print(device, CellWorkflow.__module__, [c.__name__ for c in classes])
"""


@pytest.mark.slow
def test_compiles(packaged):
    run_python(["-m", "compileall", "-q", "."], packaged)


@pytest.mark.slow
def test_loads_without_the_core(packaged, tmp_path):
    output = run_python(["-c", LOAD], packaged, block=tmp_path)
    assert re.search(r"scripts\.cellbundle\.engine\.workflow \['\w+'\]", output), output
    if packaged.name == "cell_unet":
        assert "['CellUNet']" in output


@pytest.mark.slow
@pytest.mark.parametrize("packaged", ["cell_unet"], indirect=True)
def test_infers_without_the_core(packaged, tmp_path):
    """Both bundles give the same label maps; the decoder keeps whatever it finds, because the weights are random."""
    source = ROOT / "bundles" / "cell_unet"
    torch.manual_seed(0)
    network = load_script(source / "scripts" / "network.py", "cell_unet_network").CellUNetNetwork(features=(8, 16))
    torch.nn.init.zeros_(network.head[-1].bias)
    torch.nn.init.normal_(network.head[-1].weight)  # wide enough for flows that meet somewhere
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name, shape in {"a": (64, 80), "b.c": (50, 40)}.items():
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", random.integers(0, 255, shape, dtype=np.uint8))
    # MONAI drops overrides that are None, but not an expression that is.
    options = ["--decoder#flow_threshold", "$None", "--decoder#min_size", "0", "--network_def#features", "[8,16]"]
    options += ["--decoder#min_score", "0", "--device_name", "cpu"]
    workflow = ["-m", "monai.bundle", "run_workflow", "scripts.workflow.CellUNet", "--mode", "infer", *options]
    workflow += ["--config_file", "configs/hyper_parameters.yaml", "--input_dir", str(tmp_path / "images")]
    workflow += ["--pretrained_ckpt_path", str(tmp_path / "weights.pt")]
    plain = ["-m", "monai.bundle", "run", "--config_file", "configs/inference.json", *options]
    plain += ["--image", str(tmp_path / "images" / "a.tif"), "--weights", str(tmp_path / "weights.pt")]
    run_python([*workflow, "--output_dir", str(tmp_path / "expected")], source)
    run_python([*workflow, "--output_dir", str(tmp_path / "got")], packaged, block=tmp_path / "block")
    run_python([*plain, "--output_dir", str(tmp_path / "plain")], packaged, block=tmp_path / "block")
    expected = {p.name: tifffile.imread(p) for p in (tmp_path / "expected").iterdir()}
    assert sorted(expected) == ["a_labels.tif", "b.c_labels.tif"]
    assert all(labels.max() > 1 for labels in expected.values()), "empty maps would prove nothing"
    for folder, names in (("got", sorted(expected)), ("plain", ["a_labels.tif"])):
        assert sorted(p.name for p in (tmp_path / folder).iterdir()) == names
        for name in names:
            np.testing.assert_array_equal(tifffile.imread(tmp_path / folder / name), expected[name])
