"""``cellbundle evaluate``, ``validate-data``, ``doctor`` and ``list``."""

import json
import re
import subprocess
import sys

import pandas as pd
import pytest
import tifffile

from cellbundle.bundles import find_bundle
from cellbundle.io import write_labels
from cellbundle.synthetic import write_dataset

from ..damage import fifo
from ..packages.packaging import write_files
from .conftest import call


@pytest.fixture
def data(tmp_path):
    datalist = write_dataset(tmp_path / "data", n_training=4, n_testing=2, size=(64, 64), seed=2)
    return {"datalist": datalist, "basedir": datalist.parent}


@pytest.fixture
def perfect(data, tmp_path):
    """Predictions that equal the labels."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    for entry in json.loads(data["datalist"].read_text())["testing"]:
        labels = tifffile.imread(data["basedir"] / entry["label"])
        write_labels(folder / f"{entry['group']}_labels.tif", labels)
    return folder


def options(data):
    return ["--datalist", data["datalist"], "--basedir", data["basedir"]]


def test_evaluate_prints_and_writes(perfect, data, tmp_path, capsys):
    assert call("evaluate", perfect, *options(data), "--output", tmp_path / "scores") == 0
    assert "| all | 2 | 1.000 | 1.000 |" in capsys.readouterr().out
    assert json.loads((tmp_path / "scores/report.json").read_text())["all"]["n_images"] == 2
    assert len(pd.read_csv(tmp_path / "scores/scores.csv")) == 2
    assert "<html" in (tmp_path / "scores/report.html").read_text()


def test_evaluate_by_group(perfect, data, tmp_path, capsys):
    names = [entry["group"] for entry in json.loads(data["datalist"].read_text())["testing"]]
    pd.DataFrame({"id": names, "stain": ["x", "y"]}).to_csv(tmp_path / "groups.csv", index=False)
    assert call("evaluate", perfect, *options(data), "--groups", tmp_path / "groups.csv", "--column", "stain") == 0
    rows = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()]
    assert rows[2:] == ["| x", "| y", "| all"]


def test_evaluate_says_what_is_missing(perfect, data, capsys):
    missing = next(perfect.iterdir())
    missing.unlink()
    assert call("evaluate", perfect, *options(data)) == 1
    printed = capsys.readouterr().out
    assert "1 image failed" in printed
    assert missing.name in printed


def test_validate_data(data, tmp_path, capsys):
    assert call("validate-data", *options(data)) == 0
    assert "0 errors" in capsys.readouterr().out
    entries = json.loads(data["datalist"].read_text())
    entries["testing"].append(dict(entries["training"][0], group="other"))
    entries["testing"][-1].pop("fold")
    data["datalist"].write_text(json.dumps(entries))
    assert call("validate-data", *options(data), "--output", tmp_path / "findings.json") == 1
    assert "error: leakage" in capsys.readouterr().out
    assert any(f["kind"] == "leakage" for f in json.loads((tmp_path / "findings.json").read_text()))


def test_evaluate_names_foreign_files_before_it_scores(perfect, data, tmp_path, capsys):
    folder = tmp_path / "scores"
    folder.mkdir()
    for name in ("report.html", "report.json", "scores.csv"):
        (folder / name).write_text("mine")
    for source in (perfect, tmp_path / "nowhere"):
        assert call("evaluate", source, *options(data), "--output", folder) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert re.search(r" report\.html, report\.json, scores\.csv;.*--replace-foreign", printed.err)
    assert {path.read_text() for path in folder.iterdir()} == {"mine"}
    for arguments in (["--replace-foreign"], []):
        assert call("evaluate", perfect, *options(data), "--output", folder, *arguments) == 0


@pytest.mark.parametrize("text", ["mine", "{}", '[{"kind": "leakage"}]', None])
def test_validate_data_keeps_foreign_files(data, tmp_path, capsys, text):
    path = tmp_path / "findings.json"
    path.mkdir() if text is None else path.write_text(text)
    assert call("validate-data", *options(data), "--output", path) == 2
    assert re.search(r"findings\.json exists.*--replace-foreign", capsys.readouterr().err)
    if text is not None:
        assert path.read_text() == text
        assert call("validate-data", *options(data), "--output", path, "--replace-foreign") == 0
        assert call("validate-data", *options(data), "--output", path) == 0


def test_validate_data_does_not_open_fifos(data, capsys):
    entry = json.loads(data["datalist"].read_text())["testing"][0]
    path = data["basedir"] / entry["image"]
    path.unlink()
    with fifo(path):
        assert call("validate-data", *options(data)) == 1
    assert re.search(f"unreadable-image: {entry['image']}.*FIFO", capsys.readouterr().out)


def test_doctor(capsys):
    assert call("doctor") == 0
    printed = capsys.readouterr().out
    for part in ("torch", "cell_unet", "weights present", "everything needed is here", "tile", "precision"):
        assert part in printed


@pytest.mark.parametrize(("short", "tiles"), [(True, "tiles of at most 512 pixels"), (False, "tiles of any size")])
def test_doctor_says_whether_memory_limits_the_tiles(capsys, monkeypatch, short, tiles):
    monkeypatch.setattr("cellbundle.inference.predictor.memory_is_short", lambda device: short)
    assert call("doctor") == 0
    assert tiles in capsys.readouterr().out


def test_doctor_names_what_is_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("cellbundle.bundles.REPOSITORY_BUNDLES", tmp_path)
    monkeypatch.setattr("cellbundle.cli.doctor.find_spec", lambda name: None)
    assert call("doctor") == 1
    printed = capsys.readouterr().out
    assert "pip install 'cellbundle[zarr]'" in printed
    assert re.search("problem: .*no bundle.*weights", printed)


def test_list(capsys):
    assert call("list") == 0
    assert "cell_unet" in capsys.readouterr().out


def test_list_paths(capsys):
    root = find_bundle("cell_unet")
    assert call("list", "--paths") == 0
    assert f"cell_unet\t{root}" in capsys.readouterr().out.splitlines()
    assert call("list", "--paths", "cell_unet") == 0
    assert capsys.readouterr().out == f"{root}\n"
    assert call("list", "--paths", "nope") == 2
    assert capsys.readouterr().out == ""
    assert call("list", "cell_unet") == 0
    assert "weights present" in capsys.readouterr().out


def test_doctor_says_where_each_bundle_is_and_which_is_of_another_version(capsys, monkeypatch, tmp_path):
    root = tmp_path / "checkout" / "bundles" / "tiny"
    write_files(root, {"configs/inference.json": "{}", "configs/metadata.json": '{"version": "1", "description": ""}'})
    write_files(root.parents[1] / "scripts" / "cellbundle", {"version.py": '__version__ = "9.8.7"\n'})
    monkeypatch.setenv("CELLBUNDLE_BUNDLES", str(root.parent))
    assert call("doctor") == 0
    printed = capsys.readouterr().out
    assert re.search(rf"tiny .*CELLBUNDLE_BUNDLES: {root}\n", printed)
    assert f"checkout: {find_bundle('cell_unet')}\n" in printed
    assert printed.count("9.8.7") == 1
    monkeypatch.delenv("CELLBUNDLE_BUNDLES")
    monkeypatch.chdir(root)
    assert call("doctor") == 0
    assert capsys.readouterr().out.count("9.8.7") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "--paths", "cell_unet"]])
def test_these_are_quick_because_they_import_neither_torch_nor_monai(arguments):
    code = f"""
import sys
from cellbundle.cli import main
try:
    main({arguments})
finally:
    found = [name for name in ("torch", "monai", "ignite") if name in sys.modules]
    assert not found, found
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_installed_command_and_the_module_are_the_same():
    done = subprocess.run([sys.executable, "-m", "cellbundle", "--help"], check=False, capture_output=True, text=True)
    assert done.returncode == 0
    for command in ("predict", "evaluate", "validate-data", "doctor", "list"):
        assert command in done.stdout
