"""A training of yolo_seg logs to a real MLflow server, is killed, and goes on in the same run."""

import os
import sys
import time
from pathlib import Path

import pytest

from cellbundle.synthetic import write_dataset

pytest.importorskip("ultralytics", reason="the extra yolo is not installed")
pytest.importorskip("mlflow")
from .. import forked
from ..tracking.tracking_servers import MlflowServer, only_run, points
from .contract import REPOSITORY, flags

EPOCHS, STEPS = 4, 3  # epochs of a training, and steps of an epoch
SMALL = {
    "imgsz": 64,
    "batch_size": 2,
    "checkpoint_interval": 1,
    "device_name": "cpu",
    "train#trainer#max_epochs": EPOCHS,
    "decoder#score_threshold": 0.001,
    "network_def#score_threshold": 0.0005,
}


pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path):
    folder = tmp_path / "server"
    folder.mkdir()
    made = MlflowServer(folder).start()
    yield made
    made.stop()


def launch(data: Path, folder: Path, uri: str, *options: str) -> forked.Process:
    where = {"datalist": data, "basedir": data.parent, "ckpt_path": folder, "output_dir": folder / "eval"}
    command = [sys.executable, "-m", "monai.bundle", "run_workflow", "scripts.workflow.CellYolo"]
    command += ["--config_file", "configs/hyper_parameters.yaml", *flags({**where, **SMALL})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    log = folder.parent / "log"
    command += ["--mlflow_tracking_uri", uri, *options]
    return forked.Process(command, REPOSITORY / "bundles" / "yolo_seg", environment, log, log)


def test_killed_and_resumed_is_one_run(server: MlflowServer, tmp_path: Path):
    data = write_dataset(tmp_path / "data", n_training=8, n_testing=2, size=(64, 64), seed=0)  # 6 of them to train on
    folder, log = tmp_path / "run", tmp_path / "log"
    process = launch(data, folder, server.uri)
    # The second epoch is complete, the third under way.
    while sum(path.read_bytes().count(b'"step/loss"') for path in folder.glob("tracking/*/points.jsonl")) <= 2 * STEPS:
        assert process.poll() is None, log.read_text()
        time.sleep(0.005)
    process.kill()
    process.wait()
    process = launch(data, folder, server.uri, "--resume", "True")
    assert process.wait(300) == 0, log.read_text()
    client = server.client
    run = only_run(client, "yolo_seg")
    assert run.info.status == "FINISHED"
    for key in ("step/loss", "step/seg_loss", "step/learning_rate"):
        assert points(client, run.info.run_id, key) == list(range(1, EPOCHS * STEPS + 1))
    for key in ("loss", "val_fitness", "metrics/mAP50B", "metrics/mAP50-95M", "train/box_loss", "lr/pg0"):
        assert points(client, run.info.run_id, key) == list(range(1, EPOCHS + 1))
    assert points(client, run.info.run_id, "testing/per_image_mean/ap_mean") == [EPOCHS]
    assert (run.data.params["lr0"], run.data.tags["bundle"]) == ("0.001", "yolo_seg")
    files = {file.path for file in client.list_artifacts(run.info.run_id, "checkpoints")}
    assert files == {"checkpoints/model.pt", *(f"checkpoints/model_epoch_{n:04d}.pt" for n in range(1, EPOCHS + 1))}
