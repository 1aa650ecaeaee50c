"""Packaged bundles in one process: each runs its own code, and raises the errors of this package."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from unit_tests.cli.conftest import call
from unit_tests.packages.packaging import ROOT, package, write_files

from cellbundle import errors
from cellbundle.bundles import bundle_code, make_importable
from cellbundle.inference.predictor import Predictor
from cellbundle.io import read_labels
from cellbundle.synthetic import generate

from ..words import Like

PARTS = """
import torch

from cellbundle.errors import CellBundleError

class Bright(CellBundleError):
    pass

class Network(torch.nn.Module):
    def forward(self, image):
        from .values import VALUE
        return torch.full_like(image, VALUE)

class Inferer:
    roi_size, multiple = (64, 64), 1
    def __init__(self, scale):
        from scripts.values import VALUE
        self.value = VALUE
    def __call__(self, image, network):
        return network(image)

class Decoder:
    def __call__(self, data):
        import scripts.cellbundle
        from scripts.values import VALUE
        self.core = scripts.cellbundle.__file__
        return {"pred": torch.where(data["pred"] == VALUE, data["pred"], -1), "scores": []}

class Normaliser:
    def __call__(self, data):
        from cellbundle.errors import CheckpointError, ImageReadError
        worst = float(data["image"].max())
        if worst == 1:
            raise ImageReadError("one")
        if worst == 2:
            raise RuntimeError("wrapped") from CheckpointError("two")
        if worst == 3:
            raise Bright("three")
        if worst == 4:
            raise RuntimeError("four") from ValueError("other")
        return data
"""
CONFIG = {
    "bundle_root": ".",
    "device": None,
    "amp": False,
    "amp_dtype": "auto",
    "scale": 1.0,
    "diameter": 10,
    "network": {"_target_": "scripts.parts.Network"},
    "inferer": {"_target_": "scripts.parts.Inferer", "scale": "@scale"},
    "normaliser": {"_target_": "scripts.parts.Normaliser"},
    "decoder": {"_target_": "scripts.parts.Decoder"},
}
DARK = np.zeros((1, 4, 5), np.float32)


def make_package(folder, number, config=CONFIG):
    """Folder of a packaged bundle that finds the cell ``number`` in every pixel."""
    files = {
        "LICENSE": "",
        "large_files.yml": "",
        "configs/metadata.json": json.dumps({"version": f"{number}.0", "description": ""}),
        "configs/inference.json": json.dumps(config),
        "docs/README.md": "",
        "scripts/__init__.py": "",
        "scripts/parts.py": PARTS,
        "scripts/values.py": f"VALUE = {number}\n",
    }
    write_files(folder / "bundles" / "tiny", files)
    package("tiny", folder / "dist", folder)
    return folder / "dist" / "tiny"


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return [make_package(tmp_path_factory.mktemp(f"version{number}"), number) for number in (1, 2)]


@pytest.fixture
def predictors(roots):
    return [Predictor(root, device="cpu") for root in roots]


def found(predictor):
    """The only value in the label map of a dark image."""
    (value,) = np.unique(predictor.segment(DARK).labels)
    return value


def test_each_version_runs_its_own_code(predictors, roots):
    for _ in range(2):
        assert [found(predictor) for predictor in predictors] == [1, 2]
        assert [predictor.at_diameter(5).inferer.value for predictor in predictors] == [1, 2]
    for predictor, root in zip(predictors, roots, strict=True):
        assert predictor.decoder.core == str(root / "scripts" / "cellbundle" / "__init__.py")


def test_classes_keep_their_identity(predictors, roots):
    for predictor, root in zip([*predictors, *predictors], [*roots, *roots], strict=True):
        found(predictor)
        module = sys.modules["scripts.parts"]
        assert module.__file__ == str(root / "scripts" / "parts.py")
        assert type(predictor.network) is module.Network
        assert type(Predictor(root, device="cpu").network) is module.Network
        assert sys.modules["scripts"].parts is module


def test_a_current_bundle_stays_as_it_is(predictors, roots, monkeypatch):
    found(predictors[0])
    monkeypatch.setattr("cellbundle.bundles._change_modules", None)
    assert found(predictors[0]) == 1
    assert sys.path[0] == str(roots[0])


def test_modules_that_others_removed_are_imported_again(predictors):
    """MONAI Label unloads the package ``scripts`` itself."""
    found(predictors[1])
    for name in [name for name in sys.modules if name == "scripts" or name.startswith("scripts.")]:
        del sys.modules[name]
    assert [found(predictor) for predictor in predictors] == [1, 2]


def test_a_bundle_that_runs_another_one_comes_back(predictors, roots):
    with bundle_code(roots[0]):
        assert found(predictors[1]) == 2
        assert sys.modules["scripts"].__path__ == [str(roots[0] / "scripts")]
        assert found(predictors[0]) == 1


def test_threads_take_turns(predictors):
    """Threads of one bundle run together; threads of another wait, and never see its modules."""
    for predictor in predictors:
        predictor.segment(DARK)
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(found, predictors * 200))
    assert values == [1, 2] * 200


def test_bundles_of_the_repository_are_not_disturbed(predictors):
    make_importable(ROOT / "bundles" / "cell_unet")
    from scripts import network

    assert found(predictors[1]) == 2
    make_importable(ROOT / "bundles" / "cell_unet")
    assert sys.modules["scripts.network"] is network
    assert network.__file__ == str(ROOT / "bundles" / "cell_unet" / "scripts" / "network.py")


@pytest.mark.parametrize(
    ("brightness", "kind", "message"),
    [
        (1, errors.ImageReadError, "one"),
        (2, errors.CheckpointError, "two"),
        (3, errors.CellBundleError, "three"),
        (4, RuntimeError, "four"),
    ],
)
def test_errors_of_the_copied_core(predictors, brightness, kind, message):
    """They are of the classes that callers know; other errors stay as they are."""
    with pytest.raises(kind, match=f"^{message}$") as caught:
        predictors[0].segment(DARK + brightness)
    assert type(caught.value) is kind
    assert found(predictors[1]) == 2


def test_a_packaged_detector_takes_no_batches(tmp_path):
    """Its inferer is an instance of another class ``DetectionInferer``."""
    config = CONFIG | {"inferer": {"_target_": "cellbundle.inference.detection.DetectionInferer", "scale": "@scale"}}
    predictor = Predictor(make_package(tmp_path, 3, config), device="cpu")
    assert type(predictor.inferer).__module__ == "scripts.cellbundle.inference.detection"
    assert not predictor.takes_batches
    assert Predictor(ROOT / "bundles" / "cell_unet", device="cpu").takes_batches


SHIFTED = """

class Shifted(CellUNetNetwork):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        from .shift import SHIFT

        return super().forward(image) + SHIFT
"""


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """cell_unet, packaged twice: as it is, and with logits so low that there are no cells."""
    found = []
    for version, shift in (("7.0.0", 0.0), ("8.0.0", -100.0)):
        root = tmp_path_factory.mktemp("repository")
        bundle = root / "bundles" / "cell_unet"
        shutil.copytree(ROOT / "bundles" / "cell_unet", bundle, ignore=shutil.ignore_patterns("__pycache__"))
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text()) | {"version": version}
        config = (bundle / "configs" / "inference.json").read_text().replace("CellUNetNetwork", "Shifted")
        network = (bundle / "scripts" / "network.py").read_text()
        changed = {
            "configs/metadata.json": json.dumps(metadata),
            "configs/inference.json": config,
            "scripts/network.py": network + SHIFTED,
            "scripts/shift.py": f"SHIFT = {shift}\n",
        }
        write_files(bundle, changed)
        package("cell_unet", root / "dist", root)
        found.append(root / "dist" / "cell_unet")
    return found


@pytest.mark.slow
def test_two_versions_of_cell_unet(versions):
    image = generate("fluorescence", (96, 128), 12, diameter=16, seed=3)[0][None].astype(np.float32)
    expected = Predictor(ROOT / "bundles" / "cell_unet", device="cpu").segment(image)
    first, second = (Predictor(root, device="cpu") for root in versions)
    for _ in range(2):
        labels, scores = first.segment(image)[:2]
        np.testing.assert_array_equal(labels, expected.labels)
        np.testing.assert_array_equal(scores, expected.scores)
        assert second.segment(image).labels.max() == 0
        assert first.at_diameter(20).segment(image).labels.max() > 3
    assert expected.labels.max() > 3


@pytest.mark.slow
def test_a_packaged_bundle_on_the_command_line(versions, tmp_path, capsys):
    """One bad image does not stop the others, and errors of the copied core are one line."""
    cells = generate("fluorescence", (96, 128), 12, diameter=16, seed=3)[0]
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", cells)
    tifffile.imwrite(tmp_path / "images" / "b.tif", np.stack([cells] * 6), metadata={"axes": "CYX"})
    options = ["--bundle", versions[0], "--save", "labels", "--device", "cpu"]
    assert call("predict", tmp_path / "images", "-o", tmp_path / "out", *options) == 1
    assert Like(r" has 6;.*channels=") == pd.read_csv(tmp_path / "out" / "failures.csv")["reason"][0]
    assert read_labels(tmp_path / "out" / "a_labels.tif").max() > 3
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    for arguments, code, message in (
        (["--weights", tmp_path / "other.pt"], 1, "another network"),
        (["--weights", tmp_path / "none.pt"], 1, "none.pt"),
        (["--tile", 100], 2, "multiples of 32"),
    ):
        capsys.readouterr()
        assert call("predict", tmp_path / "images", "-o", tmp_path / "other", *options, *arguments) == code
        printed = capsys.readouterr().err
        assert message in printed
        assert "Traceback" not in printed
        assert len([line for line in printed.splitlines() if line.startswith("error: ")]) == 1
