"""Trainings that log to a real MLflow server on loopback, which is stopped, and are killed."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from ignite.engine import Events

from cellbundle.cli import main
from cellbundle.engine.phases import PhasedWorkflow
from cellbundle.engine.preemption import EXIT_CODE

from .. import forked
from ..engine.conftest import BUNDLE, SMALL
from .tracking_servers import MlflowServer, only_run, points

pytest.importorskip("mlflow")
pytestmark = pytest.mark.slow

EPOCHS, STEPS = 4, 5  # epochs of a training, and steps of an epoch
OPTIONS = {"train#trainer#max_epochs": EPOCHS, "crops_per_epoch": 4 * STEPS, "val_interval": 2}
ALL_STEPS = list(range(1, EPOCHS * STEPS + 1))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = MlflowServer(tmp_path_factory.mktemp("server")).start()
    yield made
    made.stop()


@pytest.fixture
def launch(data, tmp_path):
    """Starts the bundle in a process of its own."""
    processes = []

    def start(uri: str, experiment: str, *options: str, folder: str = "run") -> forked.Process:
        flat = {
            **SMALL,
            **OPTIONS,
            "datalist": data,
            "basedir": data.parent,
            "ckpt_path": tmp_path / folder,
            "output_dir": tmp_path / folder / "eval",
            "mlflow_tracking_uri": uri,
            "mlflow_experiment_name": experiment,
        }
        command = [
            *(sys.executable, "-m", "monai.bundle", "run_workflow", "scripts.workflow.CellUNet"),
            *("--config_file", "configs/hyper_parameters.yaml"),
            *(item for key, value in flat.items() for item in (f"--{key}", str(value))),
            *options,
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        log = tmp_path / f"{folder}.log"
        processes.append(forked.Process(command, BUNDLE, environment, log, log))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def finish(process: forked.Process, log: Path, code: int = 0) -> None:
    assert process.wait(300) == code, log.read_text()[-3000:]


def lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b'"step/loss"') for path in folder.glob("tracking/*/points.jsonl"))


def wait_for_lines(folder: Path, count: int, process: forked.Process) -> None:
    while lines(folder) < count:
        assert process.poll() is None
        time.sleep(0.005)


def test_a_training_and_its_evaluation(server, make, tmp_path):
    options = {"mlflow_tracking_uri": server.uri, "mlflow_experiment_name": "whole", "final_test": True, **OPTIONS}
    make(mlflow_run_name="first try", **options).run()
    run = only_run(server.client, "whole")
    assert (run.info.run_name, run.info.status) == ("first try", "FINISHED")
    for key in ("step/loss", "step/learning_rate"):
        assert points(server.client, run.info.run_id, key) == ALL_STEPS
    assert points(server.client, run.info.run_id, "loss") == [1, 2, 3, 4]
    assert points(server.client, run.info.run_id, "val_ap_mean") == [2, 4]
    assert points(server.client, run.info.run_id, "testing/per_image_mean/ap_mean") == [EPOCHS]
    params, tags = run.data.params, run.data.tags
    assert (params["train.trainer.max_epochs"], params["network_def.features"]) == (str(EPOCHS), "[8, 8]")
    assert not any(name.startswith("mlflow") for name in params)
    version = json.loads((BUNDLE / "configs" / "metadata.json").read_text())["version"]
    assert (tags["bundle"], tags["bundle_version"], tags["mode"]) == ("cell_unet", version, "train")
    assert re.fullmatch("[0-9a-f]{64}", tags["data_list_sha256"])
    files = {f.path for f in server.client.list_artifacts(run.info.run_id)}
    assert files == {"config.yaml", "history.csv", "curves.png", "checkpoints", "testing"}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["run_id"] == run.info.run_id
    for mode in ("eval", "infer"):
        make(mode=mode, **{**options, "mlflow_experiment_name": mode}).run()
        other = only_run(server.client, mode)
        assert other.data.tags["training_run_id"] == run.info.run_id
        assert other.data.metrics["images/all"] == 3
    evaluation = only_run(server.client, "eval")
    assert evaluation.data.metrics["testing/per_image_mean/ap_mean"] == pytest.approx(
        run.data.metrics["testing/per_image_mean/ap_mean"]
    )
    files = {f.path for f in server.client.list_artifacts(evaluation.info.run_id, "testing")}
    assert {"testing/report.html", "testing/scores.csv"} <= files


def test_killed_and_resumed_is_one_run(server, launch, tmp_path):
    log, folder = tmp_path / "run.log", tmp_path / "run"
    process = launch(server.uri, "killed")
    wait_for_lines(folder, 2 * STEPS + 3, process)
    process.kill()
    process.wait()
    assert torch.load(folder / "latest.pt", weights_only=True)["epoch"] == 2
    process = launch(server.uri, "killed", "--resume", "True")
    finish(process, log)
    run = only_run(server.client, "killed")
    assert run.info.status == "FINISHED"
    for key in ("step/loss", "step/learning_rate"):
        assert points(server.client, run.info.run_id, key) == ALL_STEPS
    assert points(server.client, run.info.run_id, "loss") == [1, 2, 3, 4]
    assert points(server.client, run.info.run_id, "val_ap_mean") == [2, 4]
    assert not (folder / "tracking").exists()


def test_server_that_stops_and_comes_back(server, make, tmp_path, caplog):
    own = MlflowServer(tmp_path).start()
    try:
        workflow = make(mlflow_tracking_uri=own.uri, **OPTIONS)

        @workflow.trainer.on(Events.ITERATION_COMPLETED(once=STEPS))
        def stop(_):
            own.stop()

        workflow.run()
        assert (tmp_path / "run" / "model_final.pt").is_file()
        assert call("sync-runs", tmp_path / "run") == 1
        own.start()
        assert call("sync-runs", tmp_path / "run") == 0
        run = only_run(own.client, "cell_unet")
        assert run.info.status == "FINISHED"
        assert points(own.client, run.info.run_id, "step/loss") == ALL_STEPS
        assert {f.path for f in own.client.list_artifacts(run.info.run_id)} >= {"history.csv", "checkpoints"}
    finally:
        own.stop()


def test_two_trainings_at_once(server, launch, tmp_path):
    both = [launch(server.uri, "both", folder=name) for name in ("a", "b")]
    for process, name in zip(both, ("a", "b"), strict=True):
        finish(process, tmp_path / f"{name}.log")
    ids = {json.loads((tmp_path / name / "run.json").read_text())["run_id"] for name in ("a", "b")}
    assert len(ids) == 2
    assert all(points(server.client, run_id, "step/loss") == ALL_STEPS for run_id in ids)


def test_sigterm_is_killed(server, launch, tmp_path):
    process = launch(server.uri, "terminated", "--train#trainer#max_epochs", "500")
    wait_for_lines(tmp_path / "run", 3, process)
    process.send_signal(signal.SIGTERM)
    finish(process, tmp_path / "run.log", EXIT_CODE)
    assert only_run(server.client, "terminated").info.status == "KILLED"


def test_exception_is_failed(server, make, tmp_path):
    workflow = make(mlflow_tracking_uri=server.uri, mlflow_experiment_name="failed", **OPTIONS)

    @workflow.trainer.on(Events.ITERATION_COMPLETED(once=3))
    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        workflow.run()
    run = only_run(server.client, "failed")
    assert run.info.status == "FAILED"
    assert points(server.client, run.info.run_id, "step/loss") == [1, 2]  # this handler comes before the tracker's


def test_phases_are_one_run(server, data, tmp_path):
    options = {
        "network_def#backbone": "vit_tiny_4",
        "network_def#pyramid_width": 16,
        "backbone": "vit_tiny_4",
        "crops_per_epoch": 8,
        "batch_size": 4,
        "roi_size": [64, 64],
        "tile_overlap": 0.0,
        "num_workers": 0,
        "device_name": "cpu",
        "datalist": str(data),
        "basedir": str(data.parent),
        "ckpt_path": str(tmp_path),
        "output_dir": str(tmp_path / "eval"),
        "mlflow_tracking_uri": server.uri,
    }
    config = str(BUNDLE.parent / "hover_uni" / "configs" / "hyper_parameters.yaml")
    for epochs in (1, 2):
        values = {**options, "train#trainer#max_epochs": epochs, "resume": epochs == 2}
        workflow = PhasedWorkflow(config_file=config, logging_file=False, **values)
        workflow.initialize()
        workflow.run()
    run = only_run(server.client, "hover_uni")
    steps = {key: points(server.client, run.info.run_id, key) for key in run.data.metrics}
    assert steps["phase1/step/np_bce"] == steps["phase1/step/loss"] == [1, 2]
    assert steps["phase2/step/np_bce"] == steps["phase2/step/loss"] == [1, 2, 3, 4]
    assert (steps["phase1/loss"], steps["phase2/val_ap_mean"]) == ([1], [1, 2])
    assert steps["testing/per_image_mean/ap_mean"] == [1, 2]


def call(*arguments) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    return exit_.value.code
