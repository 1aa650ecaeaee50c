"""Nothing but yolo_seg needs ultralytics: its import is blocked, and all else runs."""

import re
import sys
from pathlib import Path

import pytest

from .contract import BUNDLES, REPOSITORY, run

BLOCK = """
import importlib, pkgutil, sys
from pathlib import Path

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("ultralytics"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""
IMPORT_ALL = """
import cellbundle
for module in pkgutil.walk_packages(cellbundle.__path__, "cellbundle."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
assert not any(name.partition(".")[0].startswith("ultralytics") for name in sys.modules)
"""
NETWORKS = """
from monai.bundle import ConfigParser
from cellbundle.bundles import make_importable
from cellbundle.engine.configs import load_config
for name in sys.argv[1:]:
    make_importable(Path("bundles", name).resolve())
    files = [f"bundles/{name}/configs/{file}.yaml" for file in ("hyper_parameters", "small")]
    parser = ConfigParser(load_config(files))
    parser.get_parsed_content("network_def")
    print("network of", name)
"""
INFERENCE = """
import numpy as np
from cellbundle.inference.predictor import Predictor
instances = Predictor("bundles/cell_unet", device="cpu")(np.random.default_rng(0).random((1, 64, 64), np.float32))
print("cells in", instances.labels.shape, "pixels")
"""
OTHERS = [name for name in BUNDLES if name != "yolo_seg"]


def python(code: str, *arguments: str, folder: Path = REPOSITORY):
    return run([sys.executable, "-c", BLOCK + code, *arguments], folder)


def test_no_file_outside_of_the_bundle_imports_it():
    """Not even in a function, nor in a tool of the repository; tests of the bundle may."""
    places = [REPOSITORY / "scripts", *(p for p in (REPOSITORY / "bundles").iterdir() if p.name != "yolo_seg")]
    found = [
        str(path)
        for place in (*places, REPOSITORY / "download_preprocessor")
        for path in place.rglob("*.py")
        if re.search(r"^\s*(import|from) ultralytics|import_module\(.ultralytics", path.read_text(), re.MULTILINE)
    ]
    assert found == []


def test_every_python_file_of_the_bundle_names_its_licence():
    files = list((REPOSITORY / "bundles" / "yolo_seg" / "scripts").glob("[!_]*.py"))
    assert len(files) > 5
    first = "# SPDX-License-Identifier: AGPL-3.0-or-later"
    assert [path.name for path in files if path.read_text().splitlines()[0] != first] == []
    assert "GNU AFFERO GENERAL PUBLIC LICENSE" in (REPOSITORY / "bundles" / "yolo_seg" / "LICENSE").read_text()


@pytest.mark.slow
def test_the_core_and_all_other_bundles_run_without_it():
    done = python(IMPORT_ALL + NETWORKS + INFERENCE, *OTHERS)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("network of", "cells"))]
    assert lines == [*(f"network of {name}" for name in OTHERS), "cells in (64, 64) pixels"]


@pytest.mark.slow
def test_yolo_seg_says_which_extra_is_missing(tmp_path: Path):
    image = REPOSITORY / "bundles" / "yolo_seg" / "docs" / "example.png"
    files = ["--config_file", "configs/inference.json", "--image", str(image), "--output_dir", str(tmp_path)]
    start = "import runpy; runpy.run_module('monai.bundle', run_name='__main__', alter_sys=True)"
    done = python(start, "run", *files, folder=REPOSITORY / "bundles" / "yolo_seg")
    assert done.returncode != 0
    assert re.search(r"DependencyError: .*ultralytics.*pip install 'cellbundle\[yolo\]'", done.stderr)
    assert "AGPL-3.0" in done.stderr
