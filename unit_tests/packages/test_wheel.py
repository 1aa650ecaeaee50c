"""The wheel holds the bundles, and works where no checkout is: results go to the working directory."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version

import pytest
from unit_tests.packages.packaging import ROOT

from cellbundle.packages.files import bundle_files
from cellbundle.synthetic import write_dataset

FILES = ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py")
FOLDERS = ("bundles", "scripts/cellbundle")
# All commands in one process, because each would import PyTorch and compile the kernels.
COMMANDS = """
import json, os, runpy, sys
from pathlib import Path
import cellbundle
from cellbundle.cli import main

root, image, work, data = sys.argv[1:]
configs = f"{root}/configs"

def command(*arguments):
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code, arguments

def program(run, *arguments):
    sys.argv = list(arguments)
    run(arguments[0], run_name="__main__")

os.chdir("/")
cells = {"python": int(cellbundle.predict(image).labels.max())}
command("predict", image, "--output", f"{work}/predicted")
command("doctor")
Path(work, "run").mkdir()
os.chdir(f"{work}/run")
options = ["--config_file", f"{configs}/inference.json", "--bundle_root", root, "--image", image]
program(runpy.run_module, "monai.bundle", "run", *options)
Path(work, "workflow").mkdir()
os.chdir(f"{work}/workflow")
config = f"{configs}/hyper_parameters.yaml"
options = ["--config_file", config, "--datalist", f"{data}/datalist.json", "--basedir", data]
for mode in ("eval", "infer"):
    program(runpy.run_path, f"{root}/scripts/workflow.py", *options, "--mode", mode)
print(json.dumps({"file": cellbundle.__file__} | cells))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of this version, from a copy of the repository in which bundles were used."""
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("the build needs setuptools 77 or newer; pip install -e '.[test]'")
    source = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("runs", "eval", "__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in FILES:
        shutil.copyfile(ROOT / name, source / name)
    for name in ("runs/1/model.pt", "eval/report.html", "scripts/__pycache__/network.pyc", "models/latest.pt"):
        (source / "bundles" / "cell_unet" / name).parent.mkdir(parents=True, exist_ok=True)
        (source / "bundles" / "cell_unet" / name).write_text("")
    pip("wheel", source, "--no-deps", "--no-build-isolation", "--wheel-dir", source / "dist")
    return next((source / "dist").iterdir())


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder with the installed wheel; all other packages are those of this environment."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--target", folder, wheel)
    return folder


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, env=os.environ | {"PIP_NO_INDEX": "1"})


def run(site, *command):
    environment = {name: value for name, value in os.environ.items() if name != "CELLBUNDLE_BUNDLES"}
    environment |= {"PYTHONPATH": str(site), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd="/", env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_the_bundles_of_its_license(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name.removeprefix("cellbundle/_bundles/") for name in file.namelist() if "/_bundles/" in name}
    expected = {"cell_unet/models/model.pt"}
    for metadata in (ROOT / "bundles").glob("*/configs/metadata.json"):
        if json.loads(metadata.read_text())["license"] == "Apache-2.0":
            bundle = metadata.parents[1]
            expected |= {f"{bundle.name}/{path}" for path in bundle_files(bundle)}
    assert names == expected
    assert {"cell_unet/LICENSE", "vista2d/scripts/network.py"} <= names
    assert not any(name.startswith("yolo_seg/") for name in names)


@pytest.mark.slow
def test_the_commands_of_an_installed_copy(site, tmp_path):
    own = site / "cellbundle" / "_bundles"
    paths = dict(line.split("\t") for line in run(site, site / "bin" / "cellbundle", "list", "--paths").splitlines())
    assert paths == {path.name: str(path) for path in own.iterdir()}
    before = files(site)
    data = write_dataset(tmp_path / "data", n_training=1, n_testing=1, size=(64, 96), seed=0).parent
    image = own / "cell_unet" / "docs" / "example.png"
    shown = run(site, "-c", COMMANDS, own / "cell_unet", image, tmp_path, data)
    result = json.loads(shown.splitlines()[-1])
    assert result["file"] == str(site / "cellbundle" / "__init__.py")
    assert result["python"] > 10
    assert f"1 images, {result['python']} cells" in shown
    assert f"wheel: {own / 'cell_unet'}" in shown
    assert (tmp_path / "predicted" / "index.html").is_file()
    assert (tmp_path / "run" / "eval" / "example_labels.tif").is_file()
    assert (tmp_path / "workflow" / "eval" / "report.html").is_file()
    assert len(list((tmp_path / "workflow" / "eval").glob("*_labels.tif"))) == 1
    assert files(site) == before


def files(folder):
    """Paths of all files but what Python and Numba compiled."""
    return {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
