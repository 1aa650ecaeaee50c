"""The script for Databricks, with a folder in place of the volumes."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from cellbundle.errors import ConfigError
from cellbundle.synthetic import write_dataset

from . import forked

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "databricks_train.py"
PLACE = {"catalog": "lab", "schema": "cells", "volume": "data"}
TINY = "--crops_per_epoch 4 --batch_size 2 --roi_size [32,32] --num_workers 0 --device_name cpu"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("databricks_train", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def volume(tmp_path):
    folder = tmp_path.joinpath(*PLACE.values())
    write_dataset(folder, n_training=3, n_testing=1, size=(64, 72), seed=0)
    return folder


class Widgets:
    """Of Databricks: values that a person entered replace the defaults."""

    def __init__(self, entered):
        self.values = entered

    def text(self, name, default, label):
        self.values.setdefault(name, default)

    def get(self, name):
        return self.values[name]


def test_parameters_from_widgets_and_the_command_line_are_the_same(script):
    entered = {"catalog": " lab ", "overrides": "--learning_rate 0.001"}
    from_widgets = script.read_parameters(widgets=Widgets(entered))
    assert from_widgets == script.read_parameters(["--catalog", "lab", "--learning_rate", "0.001"])
    assert (from_widgets["catalog"], from_widgets["volumes"]) == ("lab", "/Volumes")


def test_a_missing_volume(script, tmp_path):
    values = script.read_parameters(["--volumes", str(tmp_path), "--catalog", "none"])
    with pytest.raises(ConfigError, match=r"no volume.*none/default/cells"):
        script.train(values)


@pytest.mark.slow
def test_trains_evaluates_registers_and_goes_on(script, volume, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("fsspec")
    monkeypatch.setenv("CELLBUNDLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(script, "subprocess", SimpleNamespace(run=lambda command, cwd, check: forked.run(command, cwd)))
    values = script.read_parameters(
        [*(f"--{name}={value}" for name, value in PLACE.items()), f"--volumes={tmp_path}", f"--overrides={TINY}"]
    )
    first = script.train(values | {"epochs": "1"})
    second = script.train(values | {"epochs": "2"})
    assert (first.version, second.version) == ("1", "2")
    report = json.loads((volume / "runs/cell_unet/eval/report.json").read_text())
    assert report["all"]["n_images"] == 1
    assert len((volume / "runs/cell_unet/history.csv").read_text().splitlines()) == 3
    client = mlflow.MlflowClient(f"sqlite:///{volume / 'mlruns.db'}")
    versions = client.search_model_versions("name = 'lab.cells.cell_unet'")
    run_id = json.loads((volume / "runs/cell_unet/run.json").read_text())["run_id"]
    assert {version.run_id for version in versions} == {run_id}  # it went on with the same run
