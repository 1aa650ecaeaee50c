"""Training of yolo_seg: history, checkpoints, resuming after kill -9, and what is refused."""

import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch

from cellbundle.engine.workflow import CellWorkflow
from cellbundle.errors import CheckpointError, ConfigError, TrainingError
from cellbundle.synthetic import write_dataset

pytest.importorskip("ultralytics", reason="the extra yolo is not installed")
from .. import forked
from .contract import REPOSITORY, bundle_modules, flags, history_rows

training, network_module, workflow_module = bundle_modules("yolo_seg", "training", "network", "workflow")
BUNDLE = REPOSITORY / "bundles" / "yolo_seg"
COLUMNS = (
    "epoch,loss,box_loss,seg_loss,cls_loss,dfl_loss,learning_rate,seconds,val_box_map50,val_box_map,val_box_precision,"
    "val_box_recall,val_mask_map50,val_mask_map,val_mask_precision,val_mask_recall,val_fitness"
)
RATES = [0.001 * (1 - epoch / 6 * 0.99) for epoch in range(6)]  # without warm-up, of 6 epochs
SMALL = {
    "imgsz": 64,
    "batch_size": 4,
    "checkpoint_interval": 2,
    "final_test": False,
    "device_name": "cpu",
    "train#trainer#max_epochs": 6,
    "train#schedule#warmup_epochs": 0.0,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), n_training=8, n_testing=2, size=(64, 64), seed=0)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles are made once for all tests here."""
    return tmp_path_factory.mktemp("tiles")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch):
    """Nothing here may ask for the network; ultralytics forgives itself when it gets no answer."""
    asked = []

    def refuse(*arguments, **options):
        asked.append(arguments)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert asked == []


@pytest.fixture
def make(data: Path, tiles: Path, tmp_path: Path):
    def make_workflow(folder: str = "run", **options) -> CellWorkflow:
        files = {"ckpt_path": str(tmp_path / folder), "output_dir": str(tmp_path / "eval"), "tile_dir": str(tiles)}
        options = {"datalist": str(data), "basedir": str(data.parent), **files, **SMALL, **options}
        config = str(BUNDLE / "configs" / "hyper_parameters.yaml")
        workflow = workflow_module.CellYolo(config_file=config, mode="train", logging_file=False, **options)
        workflow.initialize()
        return workflow

    return make_workflow


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


def stop_after(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Let every training end as if killed once the state of an epoch is written."""
    from scripts.training_files import TrainingFiles  # as the workflow imports it now

    save = TrainingFiles.save_state

    def save_and_stop(self, state, generator):
        save(self, state, generator)
        if state["epoch"] == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingFiles, "save_state", save_and_stop)


@pytest.mark.slow
def test_history_checkpoints_and_summary(make, tmp_path: Path):
    make(weights_dtype="float16", **{"train#trainer#max_epochs": 3}).run()
    rows = history_rows(tmp_path / "run")
    assert list(rows[0])[:17] == COLUMNS.split(",")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for row in rows:
        parts = [float(row[f"{name}_loss"]) for name in ("box", "seg", "cls", "dfl")]
        assert float(row["loss"]) == pytest.approx(sum(parts))
        fitness = 0.1 * float(row["val_mask_map50"]) + 0.9 * float(row["val_mask_map"])
        assert float(row["val_fitness"]) == pytest.approx(fitness)
    names = {path.name for path in (tmp_path / "run").glob("[!.]*")}
    checkpoints = {"model.pt", "model_first.pt", "model_final.pt", "model_epoch_0002.pt", "latest.pt", "previous.pt"}
    assert names == checkpoints | {"history.csv", "curves.png", "run.yaml", "training_summary.md", "ultralytics"}
    final = weights(tmp_path / "run" / "model_final.pt")
    network_module.YoloNetwork().load_state_dict(final)
    assert final["model.model.0.conv.weight"].dtype == torch.float16
    first = weights(tmp_path / "run" / "model_first.pt")
    assert not torch.equal(first["model.model.0.conv.weight"], final["model.model.0.conv.weight"])
    own = {path.name for path in (tmp_path / "run" / "ultralytics").rglob("*") if path.is_file()}
    assert own == {"args.yaml", "best.pt", "last.pt"}, "no plots, no fonts"
    assert "ultralytics.utils.callbacks.mlflow" not in sys.modules, "no tracker"
    summary = (tmp_path / "run" / "training_summary.md").read_text()
    assert "| training images | 6 |" in summary
    assert "| lr0 | 0.001 |" in summary
    assert "- `model_epoch_0002.pt`" in summary


@pytest.mark.slow
def test_resuming_goes_on_with_weights_average_optimiser_and_rate(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = make()
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            first.run()
    before = weights(tmp_path / "run" / "latest.pt")
    (tmp_path / "run" / "history.csv").unlink()
    seen = {}
    from scripts.loop import SegmentationRun

    def look(self, event):
        if event == "on_train_start":
            seen["model"] = {k: v.clone() for k, v in self.model.state_dict().items()}
            seen["ema"] = {k: v.clone() for k, v in self.ema.ema.state_dict().items()}
            seen["updates"] = self.ema.updates
            seen["steps"] = {int(s["step"]) for s in self.optimizer.state.values()}
            seen["best"] = self.best_fitness

    monkeypatch.setattr(SegmentationRun, "run_callbacks", look)
    monkeypatch.setattr(SegmentationRun, "epoch_started", 0.0, raising=False)
    make(resume=True).run()
    assert all(torch.equal(value, seen["model"][key]) for key, value in before["model"].items())
    assert all(torch.equal(value, seen["ema"][key]) for key, value in before["ema"].items())
    assert not all(torch.equal(value, before["ema"][key]) for key, value in before["model"].items())
    assert seen["steps"] == {before["updates"]} == {seen["updates"]}
    assert seen["best"] == before["best_fitness"]
    rows = history_rows(tmp_path / "run")
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(RATES)


@pytest.mark.slow
def test_kill_in_the_middle_of_an_epoch_loses_and_doubles_none(data: Path, tiles: Path, tmp_path: Path):
    where = {"datalist": data, "basedir": data.parent, "ckpt_path": tmp_path, "tile_dir": tiles}
    start = ["-m", "monai.bundle", "run_workflow", "scripts.workflow.CellYolo"]
    command = [sys.executable, *start, "--config_file", "configs/hyper_parameters.yaml", *flags({**where, **SMALL})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    log = tmp_path / "log"
    process = forked.Process(command, BUNDLE, environment, stderr=log)
    while not (log.is_file() and re.search(r"training_files: epoch 2,", log.read_text())):  # the next one is under way
        assert process.poll() is None, log.read_text()
        time.sleep(0.01)
    while not (tmp_path / "model_epoch_0002.pt").exists() or weights(tmp_path / "latest.pt")["epoch"] < 2:
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(history_rows(tmp_path)) < 6
    done = forked.run([*command, "--resume", "True"], BUNDLE, environment)
    assert done.returncode == 0, done.stderr
    rows = history_rows(tmp_path)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(RATES)


def test_nothing_to_resume_says_what_to_do(make):
    with pytest.raises(CheckpointError, match=r"latest\.pt.*without --resume"):
        make(resume=True).run()


@pytest.mark.slow
def test_another_run_is_not_resumed(make, data: Path, tmp_path: Path):
    one = {"train#trainer#max_epochs": 1}
    make(**one).run()
    (tmp_path / "run" / "training_summary.md").unlink()  # as if killed before it was written
    make(resume=True, **one).run()  # done already, which is no error
    assert len(history_rows(tmp_path / "run")) == 1
    assert "epochs: 1," in (tmp_path / "run" / "training_summary.md").read_text()
    for options, text in (
        ({"batch_size": 2}, r"batch 4 .* 2.*--pretrained_ckpt_path .*run.model\.pt"),
        ({"architecture": "yolov8n-seg"}, "architecture 'yolo11n-seg' .*'yolov8n-seg'"),
        ({"learning_rate": 0.01}, r"lr0 0\.001 .* 0\.01"),
        ({"fold": 1}, "data '[0-9a-f]+' .*'[0-9a-f]+'"),
    ):
        with pytest.raises(CheckpointError, match=text):
            make(resume=True, allow_changes=True, **options).run()
    torch.save({"model": torch.zeros(1)}, tmp_path / "run" / "latest.pt")
    with pytest.raises(CheckpointError, match=r"latest\.pt.*yolo_seg.*without --resume"):
        make(resume=True).run()


@pytest.mark.slow
def test_a_training_that_patience_has_stopped_is_done(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from scripts import loop

    monkeypatch.setattr(loop, "mask_fitness", lambda metrics: 0.5)
    make(patience=1).run()
    assert [row["epoch"] for row in history_rows(tmp_path / "run")] == ["1", "2"]
    make(patience=1, resume=True).run()
    assert len(history_rows(tmp_path / "run")) == 2
    make(patience=2, resume=True).run()
    assert len(history_rows(tmp_path / "run")) == 3


@pytest.mark.slow
def test_an_epoch_with_a_loss_that_is_not_finite_is_repeated(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from scripts.loop import SegmentationRun

    step, spoilt = SegmentationRun.optimizer_step, []

    def spoil(self):
        step(self)
        if self.epoch == 1 and len(spoilt) < failures:
            spoilt.append(self.epoch)
            self.loss = self.loss * float("nan")

    monkeypatch.setattr(SegmentationRun, "optimizer_step", spoil)
    failures = 1
    options = {"train#trainer#max_epochs": 2, "batch_size": 8, "train#schedule#nbs": 8}
    make(**options).run()
    assert [row["epoch"] for row in history_rows(tmp_path / "run")] == ["1", "2"]
    assert len(spoilt) == 1
    failures = 99
    with pytest.raises(TrainingError, match=r"epoch 2 .*not finite.* 4 times"):
        make("other", **options).run()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"val_interval": 5}, "val_interval.* 5, .* 1$"),
        ({"imgsz": 100}, "imgsz.* 100, .*multiple of 32"),
        ({"imgsz": 96, "architecture": "yolov8n-seg-p6"}, "imgsz.* 96, .*multiple of 64"),
        ({"batch_size": -1}, "batch_size.* -1"),
        ({"train#schedule#optimizer": "auto"}, "optimizer.*'auto'.* Adam, AdamW.*learning_rate"),
        ({"train#schedule#cos_lr": "often"}, "cos_lr.*'often'.*true or false"),
        ({"train#schedule": {"epochs": 3}}, "^epochs.*README"),
        ({"roi_size": [64, 64]}, "--roi_size .*yolo_seg.*--imgsz"),
        ({"validate#evaluator#device": "cpu"}, "--validate#evaluator#device .*yolo_seg.*--train#validation"),
        ({"train#augmentation#mosiac": 0.5}, "--train#augmentation#mosiac .*--train#augmentation#mosaic "),
    ],
)
def test_what_ultralytics_cannot_do_is_refused(make, options, text: str):
    with pytest.raises(ConfigError, match=text):
        make(**options).run()


def test_options_become_arguments(make):
    options = {"seed": 3, "patience": 4, "train#augmentation#mosaic": 0.25, "train#schedule#optimizer": "Adam"}
    found = make(learning_rate=0.01, num_workers=5, **options).content("train#trainer").arguments
    wanted = {"lr0": 0.01, "workers": 5, "batch": 4, "imgsz": 64, "epochs": 6, "optimizer": "Adam", "mosaic": 0.25}
    wanted |= {"seed": 3, "patience": 4, "amp": False, "device": "cpu", "plots": False, "overlap_mask": False}
    assert {name: found[name] for name in wanted} == wanted
    assert found["max_det"] >= 1000


def test_several_processes_need_a_gpu_each(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training.distributed, "world_size", lambda: 2)
    assert training.device_names(torch.device("cuda", 1)) == "0,1"
    with pytest.raises(ConfigError, match=r"2 processes .* cpu"):
        training.device_names(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with pytest.raises(ConfigError, match=r"2 processes.* cuda.*one computer"):
        training.device_names(torch.device("cuda", 0))
