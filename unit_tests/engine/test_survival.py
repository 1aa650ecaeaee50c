"""A training that is stopped, damaged or out of space loses nothing: what was interrupted gives the same weights."""

import csv
import errno
import logging
import os
import re
import signal
import threading
import time

import pytest
import torch
from ignite.engine import Events

from cellbundle.engine import checkpoint as checkpoints
from cellbundle.engine import preemption, runs, workflow
from cellbundle.engine.checkpoint import read_state
from cellbundle.engine.handlers.checkpoint import TrainingCheckpoint
from cellbundle.engine.preemption import EXIT_CODE, MARKER
from cellbundle.errors import CheckpointError
from cellbundle.record import read_record

STEPS = {"crops_per_epoch": 24, "val_interval": 1, "train#trainer#max_epochs": 2}  # 6 iterations, 2 epochs


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Weights and history of a training that nobody interrupts."""
    from .conftest import BUNDLE, SMALL, CellWorkflow

    folder = tmp_path_factory.mktemp("whole")
    options = {"datalist": str(data), "basedir": str(data.parent), "ckpt_path": str(folder), **SMALL, **STEPS}
    config = str(BUNDLE / "configs" / "hyper_parameters.yaml")
    workflow = CellWorkflow(config_file=config, logging_file=False, **options)
    workflow.initialize()
    workflow.run()
    return folder


def weights(folder):
    return {name: torch.load(folder / name, weights_only=True) for name in ("model.pt", "model_final.pt")}


def rows(folder):
    with (folder / "history.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_same(folder, whole):
    assert rows(folder) == rows(whole)
    for name, expected in weights(whole).items():
        got = weights(folder)[name]
        assert all(torch.equal(got[key], expected[key]) for key in expected), name


def stop_at(engine, event, number, sent=signal.SIGTERM):
    """Send a signal to this process at the n-th event."""
    seen = []

    @engine.on(event)
    def send():
        seen.append(1)
        if len(seen) == number:
            os.kill(os.getpid(), sent)


@pytest.mark.parametrize(
    ("sent", "place", "number"),
    [
        (signal.SIGUSR1, "trainer", 2),
        (signal.SIGTERM, "trainer", 6),  # the last one of the epoch: its validation is missing
        (signal.SIGTERM, "validator", 1),
        (signal.SIGTERM, "trainer", 10),
        (signal.SIGTERM, "validator", 2),  # of the last epoch
    ],
)
def test_a_signal_stops_with_a_checkpoint(make, folder, whole, sent, place, number):
    workflow = make(**STEPS)
    trainer = workflow.trainer
    engine = trainer if place == "trainer" else workflow.content("validate#evaluator")
    stop_at(engine, Events.ITERATION_STARTED, number, sent)
    with pytest.raises(SystemExit) as left:
        workflow.run()
    assert left.value.code == EXIT_CODE
    assert signal.getsignal(signal.SIGTERM) is not preemption._note
    assert "stopped in epoch" in (folder / MARKER).read_text()
    assert read_record(folder)["status"] == "preempted"
    make(resume="auto", **STEPS).run()
    assert not (folder / MARKER).exists()
    assert read_record(folder)["status"] == "finished"
    assert_same(folder, whole)


def test_a_signal_in_the_final_test(make, folder, whole):
    workflow = make(final_test=True, **STEPS)
    stop_at(workflow.content("evaluator"), Events.ITERATION_STARTED, 1)
    with pytest.raises(SystemExit):
        workflow.run()
    assert (folder / MARKER).read_text() == "stopped in the final test\n"
    make(final_test=True, resume="auto", **STEPS).run()
    assert (folder / "eval" / "report.json").is_file()
    assert_same(folder, whole)


def test_checkpoints_within_an_epoch(make, folder, whole, monkeypatch):
    """Killed in any iteration, it goes on from the one before: with 0 minutes between, each is written."""
    written = []
    monkeypatch.setattr(
        TrainingCheckpoint,
        "save_state",
        lambda self, engine, *args, before=TrainingCheckpoint.save_state, **options: (
            before(self, engine, *args, **options),
            written.append(engine.state.iteration),
        ),
    )
    workflow = make(checkpoint_minutes=1e-9, **STEPS)

    @workflow.trainer.on(Events.ITERATION_STARTED(once=10))
    def fail():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        workflow.run()
    assert written == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert read_record(folder)["status"] == "failed"
    make(resume=True, **STEPS).run()
    assert_same(folder, whole)


def test_no_checkpoint_within_an_epoch_where_gradients_are_added_up(make, folder):
    steps = STEPS | {"train#trainer#accumulation_steps": 3}
    workflow = make("all", **steps)
    workflow.run()
    workflow = make(checkpoint_minutes=0, **steps)
    stop_at(workflow.trainer, Events.ITERATION_STARTED, 4)
    with pytest.raises(SystemExit):
        workflow.run()
    assert read_state(folder)[0]["iteration"] == 6
    make(resume=True, **steps).run()
    assert_same(folder, folder.parent / "all")


def test_a_damaged_checkpoint_falls_back_to_the_one_before(make, folder, whole, caplog):
    make(**STEPS | {"train#trainer#max_epochs": 1}).run()
    make(resume=True, checkpoint_minutes=1e-9, **STEPS).run()
    latest = folder / "latest.pt"
    latest.write_bytes(latest.read_bytes()[:-5000])
    with caplog.at_level(logging.WARNING, "cellbundle"):
        make(resume=True, **STEPS).run()
    assert re.search(r"latest\.pt.*damaged", caplog.text)
    assert "previous.pt" in caplog.text
    assert rows(folder) == rows(whole) or len(rows(folder)) == 2
    for name in ("latest.pt", "previous.pt"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"latest\.pt.*damaged.*previous\.pt.*damaged"):
        make(resume=True, **STEPS).run()


def test_a_full_disk_keeps_the_checkpoint_before(make, folder, whole, monkeypatch):
    save, write = torch.save, runs.write_record

    def fill_up(content, path):
        save(content, path)
        if isinstance(content, dict) and content.get("epoch") == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", fill_up)

    def refuse(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_record", lambda *args: refuse() if args[1]["status"] != "running" else write(*args))
        patch.setattr(workflow, "write_curves", refuse)
        with pytest.raises(CheckpointError, match=r"latest\.pt.*No space left.*--resume True"):
            make(**STEPS).run()
    monkeypatch.setattr(checkpoints.torch, "save", save)
    assert read_state(folder)[0]["epoch"] == 1
    assert not [path for path in folder.iterdir() if checkpoints.TEMPORARY.fullmatch(path.name)]
    make(resume=True, **STEPS).run()
    assert_same(folder, whole)


def test_a_kill_between_the_last_checkpoint_and_the_final_weights(make, folder, whole, monkeypatch):
    def fail(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(TrainingCheckpoint, "save_final", fail)
        with pytest.raises(RuntimeError, match="killed"):
            make(**STEPS).run()
    assert not (folder / "model_final.pt").exists()
    make(resume=True, **STEPS).run()
    assert_same(folder, whole)


def test_a_rate_that_changes_with_the_epoch_changes_once(make, folder):
    steps = STEPS | {"train#schedule_handler#epoch_level": True, "train#trainer#max_epochs": 3}
    make("all", **steps).run()
    workflow = make(**steps)
    stop_at(workflow.content("validate#evaluator"), Events.ITERATION_STARTED, 1)
    with pytest.raises(SystemExit):
        workflow.run()
    make(resume=True, **steps).run()
    assert_same(folder, folder.parent / "all")


def test_a_training_that_stopped_early_stays_stopped(make, folder):
    steps = STEPS | {"train#trainer#max_epochs": 6, "patience": 1, "learning_rate": 0.0}
    make(**steps).run()
    expected = rows(folder)
    assert len(expected) < 6
    make(resume="auto", **steps).run()
    assert rows(folder) == expected


def test_what_a_killed_training_was_writing_is_removed(make, folder):
    make(**STEPS | {"train#trainer#max_epochs": 1}).run()
    left = [folder / f".{'0a' * 16}.pt", folder / ".cellbundle" / f".{'1b' * 16}.json"]
    kept = folder / ".hidden.pt"
    for path in (*left, kept):
        path.write_bytes(b"half")
    make(resume=True, **STEPS).run()
    assert not [path for path in left if path.exists()]
    assert kept.exists()


def test_the_history_is_written_after_the_state_and_again_on_resume(make, folder):
    make(**STEPS).run()
    expected = rows(folder)
    (folder / "history.csv").write_text("epoch\n1\n")
    make(resume=True, **STEPS).run()
    assert rows(folder) == expected


@pytest.mark.parametrize("value", [-1, -0.5])
def test_minutes_are_not_negative(make, value):
    with pytest.raises(Exception, match=f"checkpoint_minutes.* {value},"):
        make(checkpoint_minutes=value).run()


def test_a_later_sigterm_ends_the_process(monkeypatch):
    with preemption.noted_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # as torchrun forwards the one that it got
        assert preemption.asked()
        monkeypatch.setattr(preemption, "IMPATIENT_S", 0)
        with pytest.raises(SystemExit) as left:
            os.kill(os.getpid(), signal.SIGTERM)
    assert left.value.code == 128 + signal.SIGTERM
    assert not preemption.asked()


def test_signals_are_left_alone_in_a_thread():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def enter():
        with preemption.noted_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system does not tell who sent a signal")
def test_a_loading_process_ends_by_the_signal_of_its_parent_only():
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        preemption.survive_signals()
        os.write(done, b"1")
        threading.Event().wait(20)
        os._exit(1)
    os.read(ready, 1)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        os.waitpid(os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", f"kill -{int(number)} {child}"), 0)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    ended, status = 0, None
    while not ended:  # signals that arrive together are one
        os.kill(child, signal.SIGTERM)
        time.sleep(0.01)
        ended, status = os.waitpid(child, os.WNOHANG)
    assert status == 0
