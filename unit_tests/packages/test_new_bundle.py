"""A method is one folder: CONTRIBUTING's steps, in a copy of the repository, give a bundle that everything finds."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from unit_tests import forked
from unit_tests.bundles.contract import generate_command
from unit_tests.packages.packaging import ROOT

from cellbundle.synthetic import write_dataset

NAME, CLASS = "cell_seven", "CellSeven"
CONTRACT = ("-q", "-p", "no:cacheprovider", "unit_tests/bundles/test_contract.py")
BLOCK = re.compile(r"^ +```bash\n(.*?)^ +```", re.M | re.S)
LOSS = re.compile(r"(?<=cell_weight: )[\d.]+")
GENERATED = re.compile(r"<!-- generated: .*?<!-- end of generated -->", re.S)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The files that git tracks: no caches, no outputs."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout of git")
    copy = tmp_path_factory.mktemp("copy") / "repository"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


def python(folder, repository, *words):
    """Run a program with the core of the copy, and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(repository / "scripts"), "PYTHONWARNINGS": "ignore"}
    environment |= {
        "CELLBUNDLE_BUNDLES": str(repository / "bundles"),
        "NUMBA_OPT": "0",
    }  # the copy has no compiled kernels
    done = forked.run([sys.executable, *map(str, words)], folder, environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def contents(repository):
    files = (path for path in repository.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(repository).as_posix(): path.read_bytes() for path in files}


def fill_in(bundle):
    """The steps by hand: another loss, and metadata of a bundle without weights."""
    path = bundle / "configs" / "hyper_parameters.yaml"
    text, n = LOSS.subn("1.5", path.read_text())
    assert n == 1
    path.write_text(text)
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    assert metadata["name"] == NAME
    del metadata["eval_metrics"]
    metadata |= {"version": "0.1.0", "changelog": {"0.1.0": "first version"}}
    metadata |= {"method": "a seventh method", "weights": "none", "licenses": []}
    metadata["excluded_checks"] = {"weights": "none are published yet"}
    path.write_text(json.dumps(metadata, indent=4))
    (bundle / "docs" / "figures.json").write_text("[]")


def test_a_method_is_one_folder(repository, tmp_path):
    before = contents(repository)
    copying, checks = BLOCK.findall((repository / "CONTRIBUTING.md").read_text())
    script = copying.replace("NAME=my_method CLASS=MyMethod", f"NAME={NAME} CLASS={CLASS}")
    assert script != copying
    subprocess.run(["bash", "-euc", script], cwd=repository, check=True)
    bundle = repository / "bundles" / NAME
    fill_in(bundle)
    _, *generate = generate_command(NAME)
    assert generate[0] in checks
    python(repository, repository, *generate)

    after = contents(repository)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    outside = {name for name in changed if not name.startswith(f"bundles/{NAME}/")}
    assert "README.md" in outside
    for name in outside:
        ours, theirs = (GENERATED.sub("", files[name].decode()) for files in (before, after))
        assert ours == theirs, f"{name} is changed by hand"
    assert f"| [{NAME}](bundles/{NAME}/docs/README.md) | a seventh method |" in (repository / "README.md").read_text()

    core = python(tmp_path, repository, "-c", "import cellbundle; print(cellbundle.__file__)")
    assert Path(core.strip()).is_relative_to(repository)
    trains_evaluates_and_infers(bundle, repository, tmp_path)
    collected = python(repository, repository, "-m", "pytest", "--collect-only", *CONTRACT)
    assert f"::Test_{NAME}::test_train_eval_infer" in collected
    assert re.search(rf"^{NAME}\s+0\.1\.0\b", python(tmp_path, repository, "-m", "cellbundle", "list"), re.M)
    python(repository, repository, "scripts/package_bundle.py", NAME, "--output", tmp_path / "dist")
    assert (tmp_path / "dist" / f"{NAME}_v0.1.0.zip").is_file()
    assert "all checks passed" in python(repository, repository, "scripts/verify_bundle.py", NAME)


def trains_evaluates_and_infers(bundle, repository, tmp_path):
    data = write_dataset(tmp_path / "data", n_training=5, n_testing=1, size=(64, 72), seed=0)
    command = ["-m", "monai.bundle", "run_workflow", f"scripts.workflow.{CLASS}", "--config_file", "configs/small.yaml"]
    command += ["--datalist", data, "--basedir", data.parent, "--ckpt_path", tmp_path / "run", "--device_name", "cpu"]
    command += ["--output_dir", tmp_path / "eval", "--num_workers", "0"]
    python(bundle, repository, *command, "--quick", "True", "--final_test", "False")
    python(bundle, repository, *command, "--mode", "eval")
    assert json.loads((tmp_path / "eval" / "report.json").read_text())["all"]["n_images"] == 1
    python(bundle, repository, *command, "--mode", "infer")
    assert len(list((tmp_path / "eval").glob("*_labels.tif"))) == 1
