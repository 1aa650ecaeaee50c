"""The bundles of the repository, packaged: they run without the core."""

import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tifffile
import torch
from unit_tests.packages.packaging import BUNDLES, ROOT, load_script, package, verify_bundle, write_files

LEFTOVER = re.compile(r"\bfrom\s+cellbundle\b|\bimport\s+cellbundle\b|_target_[\"']?\s*:\s*[\"']?cellbundle\b")


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


def run_python(arguments, folder, block=None, package="cellbundle"):
    """Run Python in a folder; ``block`` is a folder for the hook that makes importing a package fail."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    if block is not None:
        write_files(block, {"sitecustomize.py": verify_bundle.BLOCK.replace("cellbundle", package)})
        environment["PYTHONPATH"] = str(block)
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def succeed(*arguments, **options):
    done = run_python(*arguments, **options)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("packaged", ["cell_unet"], indirect=True)
def test_a_missing_package_is_named(packaged, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((40, 50), np.uint8))
    command = [
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        "configs/inference.json",
        "--image",
        str(tmp_path / "a.tif"),
    ]
    done = run_python([*command, "--device_name", "cpu"], packaged, tmp_path / "block", package="imagecodecs")
    assert done.returncode != 0
    assert "imagecodecs" in done.stderr.splitlines()[-1]


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
    succeed([*workflow, "--output_dir", str(tmp_path / "expected")], source)
    succeed([*workflow, "--output_dir", str(tmp_path / "got")], packaged, block=tmp_path / "block")
    succeed([*plain, "--output_dir", str(tmp_path / "plain")], packaged, block=tmp_path / "block")
    expected = {p.name: tifffile.imread(p) for p in (tmp_path / "expected").glob("[!.]*")}
    assert sorted(expected) == ["a_labels.tif", "b.c_labels.tif"]
    assert all(labels.max() > 1 for labels in expected.values()), "empty maps would prove nothing"
    for folder, names in (("got", sorted(expected)), ("plain", ["a_labels.tif"])):
        assert sorted(p.name for p in (tmp_path / folder).glob("[!.]*")) == names
        for name in names:
            np.testing.assert_array_equal(tifffile.imread(tmp_path / folder / name), expected[name])
