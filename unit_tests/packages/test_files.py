"""Which files of bundles are passed on."""

import json
import subprocess
import sys

from unit_tests.packages.installing import METADATA, SOURCES
from unit_tests.packages.packaging import ROOT, write_files

from cellbundle.packages.files import core_files, files_under_license


def write_bundle(folder, changes, more=()):
    files = SOURCES | {"configs/metadata.json": json.dumps(METADATA | changes)} | dict.fromkeys(more, "")
    write_files(folder, files)


def test_bundles_and_weights_under_another_license_are_left_out(tmp_path):
    weights = ["models/model.pt", "models/run.yaml"]
    write_bundle(tmp_path / "both", {"license": "MIT", "weights_license": "MIT"}, [*weights, "models/latest.pt"])
    write_bundle(tmp_path / "code", {"license": "MIT", "weights_license": "CC-BY-NC-4.0"}, weights)
    write_bundle(tmp_path / "unknown_weights", {"license": "MIT"}, weights)
    write_bundle(tmp_path / "none_yet", {"license": "MIT", "weights_license": "MIT"})
    write_bundle(tmp_path / "other", {"license": "AGPL-3.0-or-later", "weights_license": "MIT"}, weights)
    write_bundle(tmp_path / "unknown", {}, weights)
    files = files_under_license(tmp_path, "MIT")
    assert {path.split("/")[0] for path in files} == {"both", "code", "unknown_weights", "none_yet"}
    assert {path for path in files if "/models/" in path} == {f"both/{path}" for path in weights}
    assert {path for path in files if path.startswith("code/")} == {f"code/{path}" for path in SOURCES}
    assert all(file == tmp_path / path for path, file in files.items())


def test_results_caches_and_hidden_files_are_left_out(tmp_path):
    more = ["runs/1/model.pt", "eval/report.html", "scripts/__pycache__/a.pyc", "docs/.DS_Store"]
    write_bundle(tmp_path / "tiny", {"license": "MIT"}, more)
    assert set(files_under_license(tmp_path, "MIT")) == {f"tiny/{path}" for path in SOURCES}


def test_bundles_in_the_core_are_not_part_of_it(tmp_path):
    write_files(tmp_path, {"version.py": "", "io/read.py": "", "_bundles/tiny/models/model.pt": ""})
    assert set(core_files(tmp_path)) == {"version.py", "io/read.py"}


def test_the_repository_says_the_license_of_each_bundle():
    for file in (ROOT / "bundles").glob("*/configs/metadata.json"):
        text = (file.parents[1] / "LICENSE").read_text().split("\n", 3)
        license_ = json.loads(file.read_text())["license"]
        assert (license_ == "Apache-2.0") == any("Apache License" in line for line in text), file
    names = {path.split("/")[0] for path in files_under_license(ROOT / "bundles", "Apache-2.0")}
    assert {"cell_unet", "vista2d"} <= names
    assert "yolo_seg" not in names


def test_the_build_of_a_wheel_needs_no_package_but_setuptools():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import cellbundle.packages.files"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, str(ROOT / "scripts")], check=True)
