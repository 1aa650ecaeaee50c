"""``cellbundle install``."""

import re

import numpy as np
import pytest
import tifffile
from unit_tests.packages.installing import make_package, with_metadata
from unit_tests.packages.packaging import ROOT, package, package_bundle

from cellbundle.bundles import find_bundle
from cellbundle.inference.predictor import Predictor
from cellbundle.io import read_labels
from cellbundle.synthetic import generate

from .conftest import call


def test_install(archive, home, capsys):
    done = f"tiny 1.2.3 %s {home / 'tiny'}\ncellbundle predict IMAGES --bundle tiny --output RESULTS\n"
    assert call("install", archive) == 0
    printed = capsys.readouterr()
    assert printed.out == done % "is installed in"
    assert re.search(rf"^tiny .*no weights.* {home / 'tiny' / 'docs' / 'README.md'}\n$", printed.err)
    assert call("install", archive) == 0
    assert capsys.readouterr().out == done % "is installed already in"
    assert call("list") == 0
    assert f"tiny 1.2.3 (no weights: train it, or see its docs/README.md)\n    tiny\n    {home / 'tiny'}\n" in (
        capsys.readouterr().out
    )


def test_names_of_missing_packages(home, tmp_path, capsys):
    required = {"no-such-package": "1.2", "numpy": "1"}
    archive = make_package(tmp_path, with_metadata(required_packages_version=required))
    assert call("install", archive) == 0
    assert re.search("tiny .*no-such-package.*pip install no-such-package==1.2\n", capsys.readouterr().err)


def test_exit_codes(archive, newer, home, capsys):
    assert call("install", "none.zip") == 2
    assert call("install", archive, "--sha256", "0" * 64) == 1
    assert call("install", archive) == 0
    capsys.readouterr()
    assert call("install", newer) == 2
    assert re.search(rf"^error: tiny 1\.2\.3 .*{home / 'tiny'}.* 2\.0\.0.*--overwrite\n$", capsys.readouterr().err)
    assert call("install", newer, "--overwrite") == 0
    assert call("install", "--help") == 0
    assert "people you trust" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_cell_unet_by_name(home, tmp_path, monkeypatch):
    """The installed package gives the label map of the bundle in the repository."""
    monkeypatch.setattr(package_bundle, "CORE", ROOT / "scripts" / "cellbundle")
    image = generate("fluorescence", (96, 128), 12, diameter=16, seed=3)[0]
    tifffile.imwrite(tmp_path / "a.tif", image)
    expected = Predictor("cell_unet", device="cpu")
    assert expected.root == ROOT / "bundles" / "cell_unet"
    labels = expected.segment(image[None].astype(np.float32)).labels
    assert labels.max() > 3
    assert call("install", package("cell_unet", tmp_path / "dist")) == 0
    assert find_bundle("cell_unet") == home / "cell_unet"
    options = ["--bundle", "cell_unet", "--save", "labels", "--device", "cpu"]
    assert call("predict", tmp_path / "a.tif", "--output", tmp_path / "out", *options) == 0
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a_labels.tif"), labels)
