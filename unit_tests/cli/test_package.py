"""``cellbundle package``: the bundle of a run."""

import json
import os
import re
import shutil
import zipfile

import numpy as np
import pytest
import yaml
from monai.bundle import ConfigParser
from unit_tests.run_folders import BUNDLE, LABEL, SETTINGS, write_run

from cellbundle import __version__
from cellbundle.bundles import make_importable
from cellbundle.inference.predictor import Predictor
from cellbundle.io import read_labels, write_image
from cellbundle.packages.archive import read_stamp, unpack
from cellbundle.synthetic import generate

from .conftest import call

VERSION = json.loads((BUNDLE / "configs" / "metadata.json").read_text())["version"]
ARCHIVE = f"cell_unet_v{VERSION}_{LABEL}.zip"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("trained") / "1")


@pytest.fixture(scope="module")
def packaged(run, tmp_path_factory):
    """The folder of the package."""
    output = tmp_path_factory.mktemp("output") / "dist"
    assert call("package", run, "--output", output) == 0
    return output / "cell_unet"


@pytest.fixture(scope="module")
def image():
    return generate("fluorescence", (64, 80), 12, diameter=16, seed=3)[0][None].astype(np.float32)


@pytest.fixture(scope="module")
def labels(run, image):
    """What the weights of the run find."""
    found = Predictor("cell_unet", device="cpu", weights=run / "model.pt").segment(image).labels
    assert found.max() > 10, "empty maps would prove nothing"
    return found


def content(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def run_inference(root, config, image_path, output):
    """Label map of ``monai.bundle run`` in this process."""
    make_importable(root)
    parser = ConfigParser(config)
    parser.update({"bundle_root": str(root), "image": str(image_path), "output_dir": str(output)})
    parser["device_name"] = "cpu"
    parser.get_parsed_content("run")
    return read_labels(output / f"{image_path.stem}_labels.tif")


def test_inference_json_alone_gives_the_labels_of_the_run(packaged, image, labels, tmp_path):
    """With the core of this process: compiling the kernels of another one takes long."""
    root = shutil.copytree(packaged, tmp_path / "bundle")
    (root / "models" / "run.yaml").unlink()
    write_image(tmp_path / "a.tif", image[0])
    text = (root / "configs" / "inference.json").read_text().replace("scripts.cellbundle.", "cellbundle.")
    np.testing.assert_array_equal(run_inference(root, json.loads(text), tmp_path / "a.tif", tmp_path / "out"), labels)


@pytest.mark.slow
def test_all_ways_give_the_labels_of_the_run(packaged, image, labels, tmp_path):
    np.testing.assert_array_equal(Predictor(packaged, device="cpu").segment(image).labels, labels)
    write_image(tmp_path / "a.tif", image[0])
    config = ConfigParser.load_config_file(packaged / "configs" / "inference.json")
    np.testing.assert_array_equal(run_inference(packaged, config, tmp_path / "a.tif", tmp_path / "out"), labels)


def test_contents(run, packaged):
    files = content(packaged)
    assert {"LICENSE", "large_files.yml", "docs/README.md", "scripts/cellbundle/inference/predictor.py"} <= files.keys()
    assert files["models/model.pt"] == (run / "model.pt").read_bytes()
    record = yaml.safe_load(files["models/run.yaml"])
    assert record["settings"]["normaliser"]["_target_"] == "scripts.cellbundle.transforms.NormaliseIntensityd"
    assert record["configuration"] == {"imports": ["$from scripts.cellbundle.device import choose_device"]}
    metadata = json.loads(files["configs/metadata.json"])
    assert "eval_metrics" not in metadata, "they are of the shipped weights"
    assert "run.yaml" in metadata["data_source"]
    stamp = read_stamp(packaged)
    assert (stamp.name, stamp.version, stamp.core_version) == ("cell_unet", VERSION, __version__)
    assert list(stamp.files) == sorted(files.keys() - {"BUILD.json"})


def test_settings_are_in_inference_json(packaged):
    config = json.loads((packaged / "configs" / "inference.json").read_text())
    own = json.loads((BUNDLE / "configs" / "inference.json").read_text())
    assert config["network_def"] == SETTINGS["network_def"]
    assert (config["normaliser"]["lower"], config["scale"], config["across_borders"]) == (2, 1.0, False)
    assert list(config)[: len(own)] == list(own)
    assert config.keys() == own.keys()
    assert config["evaluator"] == own["evaluator"]


def test_the_archive_holds_the_folder_and_can_be_installed(packaged, tmp_path):
    archive = packaged.parent / ARCHIVE
    assert sorted(path.name for path in packaged.parent.iterdir()) == ["cell_unet", ARCHIVE]
    assert content(unpack(archive, tmp_path / "new")) == content(packaged)


def test_equal_runs_give_equal_archives(run, packaged, tmp_path, capsys):
    copied = shutil.copytree(run, tmp_path / "another")
    for path in copied.iterdir():
        os.utime(path, (0, 0))
    assert call("package", copied, "--output", tmp_path / "dist", "--bundle", BUNDLE) == 0
    assert (tmp_path / "dist" / ARCHIVE).read_bytes() == (packaged.parent / ARCHIVE).read_bytes()
    assert capsys.readouterr().out == (
        f"{tmp_path / 'dist' / ARCHIVE}\n"
        f"cellbundle predict IMAGES --bundle {tmp_path / 'dist' / 'cell_unet'} --output RESULTS\n"
    )


def test_a_run_of_a_packaged_bundle(run, packaged, tmp_path):
    """The package is taken as it is, and a run in its folder needs no --bundle."""
    bundle = shutil.copytree(packaged, tmp_path / "mine")
    (bundle / "docs" / "README.md").write_text("mine")
    inside = bundle / "runs" / "1"
    settings = {**SETTINGS, "scale": 1.5}
    text = yaml.safe_dump(settings, sort_keys=False).replace("cellbundle.", "scripts.cellbundle.")
    write_run(inside, settings=yaml.safe_load(text), started="unknown")
    assert call("package", inside, "--output", tmp_path / "dist") == 0
    files, before = content(tmp_path / "dist" / "cell_unet"), content(packaged)
    assert files.keys() == before.keys()
    assert files["docs/README.md"] == b"mine"
    assert json.loads(files["configs/inference.json"])["scale"] == 1.5
    (archive,) = (tmp_path / "dist").glob("*.zip")
    assert archive.stem.rpartition("_")[2] == read_stamp(tmp_path / "dist" / "cell_unet").files["models/model.pt"][:8]


@pytest.mark.parametrize(
    ("changes", "options", "code", "message"),
    [
        ({}, ["--bundle", BUNDLE.parent / "swin_unet"], 1, "cell_unet's.*not swin_unet's"),
        ({"bundle": "swin_unet"}, ["--bundle", BUNDLE], 1, "swin_unet's.*not cell_unet's"),
        ({"bundle": "unknown"}, [], 2, "no bundle 'unknown'"),
        ({"bundle": str(BUNDLE)}, [], 1, "cell_unet'.*name"),
        ({"status": "failed", "weights": False}, [], 1, r"no model\.pt.*failed.*resume"),
        (
            {"settings": {**SETTINGS, "scale": "$__import__('os').abort()"}},
            [],
            1,
            "abort.*code of cell_unet",
        ),
        ({"settings": {}}, [], 1, r"model\.pt.*another network"),
    ],
)
def test_what_is_refused(tmp_path, capsys, changes, options, code, message):
    run = write_run(tmp_path / "1", **changes)
    assert call("package", run, "--output", tmp_path / "dist", *options) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert re.search(message, error)
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("model.pt", "junk", r"model\.pt.*not a readable checkpoint"),
        ("run.yaml", "bundle: [", r"run\.yaml.*damaged"),
        ("run.yaml", None, r"no run\.yaml"),
    ],
)
def test_damaged_runs(run, tmp_path, capsys, name, text, message):
    copied = shutil.copytree(run, tmp_path / "1")
    (copied / name).unlink()
    if text is not None:
        (copied / name).write_text(text)
    assert call("package", copied, "--output", tmp_path / "dist") == 1
    assert re.search(message, capsys.readouterr().err)
    assert call("package", tmp_path / "none", "--output", tmp_path / "dist") == 1
    assert "no run.yaml" in capsys.readouterr().err
    assert not (tmp_path / "dist").exists()


def test_only_packages_are_replaced(run, packaged, tmp_path, capsys):
    foreign = tmp_path / "dist" / "cell_unet"
    foreign.mkdir(parents=True)
    (foreign / "mine.txt").write_text("mine")
    assert call("package", run, "--output", tmp_path / "dist") == 1
    assert "no BUILD.json" in capsys.readouterr().err
    assert content(foreign) == {"mine.txt": b"mine"}
    assert call("package", run, "--output", BUNDLE.parent) == 1
    assert re.search(r"cell_unet.*no BUILD\.json.*--output", capsys.readouterr().err)
    again = shutil.copytree(packaged, tmp_path / "again" / "cell_unet")
    (again / "notes.md").write_text("mine")
    assert call("package", run, "--output", again.parent) == 1
    assert re.search(r"lost.* notes\.md", capsys.readouterr().err)
    (again / "notes.md").unlink()
    (again.parent / ARCHIVE).write_text("mine")
    assert call("package", run, "--output", again.parent) == 1
    assert re.search(rf"{ARCHIVE}.*no package.*--output", capsys.readouterr().err)


def test_an_error_leaves_the_older_package(run, packaged, monkeypatch):
    before = content(packaged.parent)

    def fail(path, *_):
        path.touch()
        raise OSError("disk full")

    monkeypatch.setattr("cellbundle.packages.build.write_zip", fail)
    assert call("package", run, "--output", packaged.parent) == 1
    assert content(packaged.parent) == before


def test_trials_and_unfinished_runs_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cellbundle.packages.runs.MAX_ARCHIVE", 1000)
    run = write_run(tmp_path / "1", status="preempted", quick=True)
    assert call("package", run, "--output", tmp_path / "dist") == 0
    warnings = capsys.readouterr().err
    for text in ("preempted", "--quick", "use the folder"):
        assert text in warnings
    with zipfile.ZipFile(tmp_path / "dist" / ARCHIVE) as file:
        assert "cell_unet/models/run.yaml" in file.namelist()
