"""Training, resuming, evaluating and inferring as a whole, in this process."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cellbundle.errors import CellBundleError, CheckpointError, ConfigError, DatalistError, DependencyError
from cellbundle.io import read_labels


def weights(folder: Path, name: str = "model_final.pt") -> dict[str, torch.Tensor]:
    return torch.load(folder / name, weights_only=True)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def test_requested_epochs_are_done_and_validated(make, tmp_path):
    workflow = make(val_interval=2, **{"train#trainer#max_epochs": 3})
    workflow.run()
    rows = history(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["epoch"] for row in rows if "val_ap_mean" in row] == [2, 3]
    assert workflow.trainer.state.iteration == 3 * 2


def test_same_seed_same_weights_and_label_maps(make, tmp_path):
    for folder, workers in (("a", 0), ("b", 2)):
        make(folder, num_workers=workers).run()
        make(folder, mode="infer").run()
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    maps = sorted((tmp_path / "a" / "eval").glob("*_labels.tif"))
    assert len(maps) == 3
    for path in maps:
        assert np.array_equal(read_labels(path), read_labels(tmp_path / "b" / "eval" / path.name))


def test_another_seed_other_weights(make, tmp_path):
    make("a").run()
    make("b", seed=1).run()
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


@pytest.mark.parametrize("amp", [False, True])
def test_resuming_equals_never_stopping(make, tmp_path, amp, monkeypatch):
    options = {"amp": amp, "amp_dtype": "bfloat16", "train#trainer#max_epochs": 4, "patience": 9}
    make("whole", **options).run()

    class KilledError(Exception):
        pass

    killed = make("parts", **options)
    from ignite.engine import Events

    @killed.trainer.on(Events.ITERATION_COMPLETED)
    def kill(engine):
        if engine.state.epoch == 3:
            raise KilledError

    with pytest.raises(KilledError):
        killed.run()
    resumed = make("parts", resume=True, **options)
    assert resumed.trainer.state.epoch == 2
    resumed.run()
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert equal(weights(tmp_path / "whole", "model.pt"), weights(tmp_path / "parts", "model.pt"))
    drop = ("seconds",)
    rows = [[{k: v for k, v in r.items() if k not in drop} for r in history(tmp_path / f)] for f in ("whole", "parts")]
    assert rows[0] == rows[1]


def test_resuming_a_finished_run_changes_nothing(make, tmp_path):
    make().run()
    before = weights(tmp_path / "run")
    make(resume=True).run()
    assert equal(before, weights(tmp_path / "run"))


def test_resuming_without_a_checkpoint(make):
    with pytest.raises(CheckpointError, match=r"latest\.pt.*nothing to resume"):
        make(resume=True).run()


@pytest.mark.parametrize("overwrite", [False, "false"])
def test_weights_of_another_training_are_kept(make, tmp_path, overwrite):
    make().run()
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with pytest.raises(CheckpointError, match=r"--ckpt_path.* --resume True.* --overwrite True"):
        make(seed=1, overwrite=overwrite).run()
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before


def test_weights_are_replaced_where_that_is_wanted(make, tmp_path):
    make().run()
    before = weights(tmp_path / "run")
    make(seed=1, overwrite=True).run()
    assert not equal(before, weights(tmp_path / "run"))


def test_fine_tuning_starts_from_the_weights_and_follows_the_schedule(make, tmp_path):
    make("first").run()
    start = weights(tmp_path / "first", "model.pt")
    options = {"pretrained_ckpt_path": str(tmp_path / "first" / "model.pt"), "learning_rate": 0.01}
    tuned = make("tuned", **options, **{"train#trainer#max_epochs": 4})
    assert equal(start, tuned.parser.get_parsed_content("network").state_dict())
    tuned.run()
    # 8 steps in all, 2 of warm-up; the history keeps the rate of the last step of an epoch
    cosine = [0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - 2) / 6)) for step in (3, 5, 7)]
    rates = [row["learning_rate"] for row in history(tmp_path / "tuned")]
    assert rates == pytest.approx([0.01 * share for share in (2 / 3, *cosine)])


def test_pretrained_weights_by_name(make, tmp_path):
    make().run()
    tuned = make(pretrained_ckpt_name="model_final.pt")
    network = tuned.parser.get_parsed_content("network")
    assert all(torch.equal(v, weights(tmp_path / "run")[k]) for k, v in network.state_dict().items())


def test_early_stopping(make, tmp_path):
    options = {"learning_rate": 0.0, "train#trainer#max_epochs": 9, "val_interval": 1, "patience": 2}
    make(**options).run()
    assert len(history(tmp_path / "run")) == 3
    assert (tmp_path / "run" / "model_final.pt").is_file()


def test_final_test_reports_each_data_list(make, data, tmp_path):
    spec = {"datalist": str(data), "basedir": str(data.parent)}
    other = data.parent / "other.json"
    other.write_text(data.read_text())
    make(data_list_files=[spec, {**spec, "datalist": str(other)}], final_test=True).run()
    report = json.loads((tmp_path / "run" / "eval" / "report.json").read_text())
    assert {name: r["n_images"] for name, r in report["groups"].items()} == {"datalist": 3, "other": 3}
    assert report["all"]["n_images"] == 6


def test_infer_survives_bad_files(make, data, tmp_path):
    make().run()
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("good 1.png", "good.two.png"):
        Image.fromarray(np.full((40, 30), 9, np.uint8)).save(folder / name)
    (folder / "bad.png").write_bytes(b"not an image")
    (folder / "empty.tif").touch()
    results = tmp_path / "run" / "eval"
    with pytest.raises(CellBundleError, match=r"2 of 4 images.*bad\.png"):
        make(mode="infer", input_dir=str(folder)).run()
    assert {p.name for p in results.glob("[!.]*")} == {"good 1_labels.tif", "good.two_labels.tif", "failures.csv"}
    with (results / "failures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["image"]).name for row in rows] == ["bad.png", "empty.tif"]
    assert all(row["reason"] for row in rows)


def test_missing_image_of_a_datalist_is_one_failure(make, data, tmp_path):
    make().run()
    content = json.loads(data.read_text())
    content["testing"].append({"image": "images/none.png"})
    partial = data.parent / "partial.json"
    partial.write_text(json.dumps(content))
    with pytest.raises(CellBundleError, match=r"1 of 4 images.*none\.png"):
        make(mode="infer", datalist=str(partial)).run()
    assert len(list((tmp_path / "run" / "eval").glob("*_labels.tif"))) == 3


def test_label_of_another_size(make, data, tmp_path):
    make().run()
    content = json.loads(data.read_text())
    Image.fromarray(np.ones((5, 5), np.uint8)).save(data.parent / "labels" / "small.png")
    content["testing"][0]["label"] = "labels/small.png"
    wrong = data.parent / "wrong.json"
    wrong.write_text(json.dumps(content))
    with pytest.raises(CellBundleError, match=r"small\.png.*5x5.*64x72"):
        make(mode="eval", datalist=str(wrong)).run()


def test_validation_split_can_be_evaluated(make, tmp_path):
    make().run()
    make(mode="eval", split="validation").run()
    report = json.loads((tmp_path / "run" / "eval" / "report.json").read_text())
    assert report["all"]["n_images"] == 1
    assert (tmp_path / "run" / "eval" / "scores.csv").is_file()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "tran"}, ConfigError, "mode.*'tran'.*train, eval, infer"),
        ({"amp": "no"}, ConfigError, "--amp.*'no'.*true or false"),
        ({"learning_rat": 1}, ConfigError, r"--learning_rat .*--learning_rate\?"),
        ({"train#trainer#max_epochz": 3}, ConfigError, "--train#trainer#max_epochz .*--train#trainer#max_epochs "),
    ],
)
def test_wrong_options(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights_dtype": "int8"}, ConfigError, "weights_dtype.* int8.*float32, float16, bfloat16"),
        ({"num_workers": -1}, ConfigError, "num_workers.* -1.* 0 or more"),
        ({"tile_size": [100, 100]}, ConfigError, r"\[100, 100\].*multiples of 32.*tile_size"),
        ({"datalist": "none.json"}, DatalistError, "none.json"),
        ({"fold": 17}, DatalistError, "validation.*fold 17"),
        ({"device_name": "cuda:7"}, ConfigError, "'cuda:7'.*not available"),
        ({"pretrained_ckpt_name": "none.pt"}, CheckpointError, "none.pt does not exist"),
    ],
)
def test_wrong_values(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options).run()


def test_mode_from_workflow_type(make, tmp_path):
    assert make(workflow_type="training").mode == "train"
    make().run()
    assert make(workflow_type="inference").mode == "infer"


def test_mlflow(make, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    make(mlflow_tracking_uri=uri, mlflow_run_name="first try", val_interval=1).run()
    client = mlflow.MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "cell_unet"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "first try"
    assert run.info.status == "FINISHED"
    steps = {key: [m.step for m in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics}
    assert (steps["val_ap_mean"], steps["loss"], steps["step/loss"]) == ([1, 2], [1, 2], [1, 2, 3, 4])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["run_id"] == run.info.run_id
    make(overwrite=True).run()
    assert not (tmp_path / "run" / "run.json").exists(), "the weights are not of that run any more"


def test_mlflow_is_not_installed(make, monkeypatch):
    monkeypatch.setattr("cellbundle.tracking.tracker.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'cellbundle\[mlflow\]'"):
        make(mlflow_tracking_uri="runs.db").run()
