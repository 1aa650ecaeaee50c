"""What goes wrong with a tracking server, and the tracker goes on."""

import logging
import re
import shutil
import time

import pytest

from cellbundle.errors import CheckpointError
from cellbundle.tracking import sender
from cellbundle.tracking.sender import find_runs, sync_run
from cellbundle.tracking.spool import Spool
from cellbundle.tracking.upload import Upload

from ..words import Like
from .tracking_servers import misbehaving, only_run, points

pytest.importorskip("mlflow")


def warnings(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and "cellbundle" in r.name]


def test_deleted_run_gets_a_successor(make_tracker, client, caplog, monkeypatch):
    monkeypatch.setattr(sender, "INTERVAL", 0.1)
    tracker = make_tracker()
    tracker.start()
    tracker.log({"loss": 1.0}, 1)
    wait_until(lambda: tracker.run_id is not None and tracker.spool.remaining() == 0)
    old = tracker.run_id
    client.delete_run(old)
    tracker.log({"loss": 2.0}, 2)
    tracker.finish()
    run = only_run(client, "cells")
    assert run.info.run_id != old
    assert run.data.tags["cellbundle.replaces_run"] == old
    assert points(client, run.info.run_id, "loss") == [1, 2]
    assert Like(f"not have .*{old}") in warnings(caplog)


def test_run_of_another_server_is_not_resumed(make_tracker, client, caplog):
    tracker = make_tracker()
    tracker.start(run_id="0" * 32)
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    assert only_run(client, "cells").data.tags["cellbundle.replaces_run"] == "0" * 32
    assert len(warnings(caplog)) == 1


def test_deleted_experiment_is_left_alone(make_tracker, client, caplog):
    client.delete_experiment(client.create_experiment("cells"))
    tracker = make_tracker()
    tracker.start()
    key = tracker.state_dict()["run_key"]
    tracker.finish()
    assert only_run(client, f"cells-{key[:8]}").info.status == "FINISHED"
    assert len(warnings(caplog)) == 1
    assert re.search("experiment 'cells'.*deleted", caplog.text)


def test_refused_values_do_not_hold_up_the_others(make_tracker, client, caplog, tmp_path):
    tracker = make_tracker()
    tracker.start()
    tracker.spool.append({"time": 1, "step": 1, "values": {"a": 1.0, "bad//name": 2.0, "b": 3.0}})
    tracker.log({"c": 4.0}, 1)
    tracker.finish()
    assert only_run(client, "cells").data.metrics == {"a": 1.0, "b": 3.0, "c": 4.0}
    assert "refuses one of the metrics" in caplog.text
    assert sync_run(*find_runs([tmp_path])).remaining == 1


def test_a_run_that_is_being_written_is_not_resumed(make_tracker, caplog):
    first, second = make_tracker(), make_tracker()
    first.start()
    second.start(**first.state_dict())
    state = first.state_dict(), second.state_dict()
    first.finish()
    second.finish()
    assert state[0]["run_key"] != state[1]["run_key"]
    assert "another process writes" in caplog.text


def test_a_copied_checkpoint_does_not_continue_the_run_of_the_original(make_tracker, client, tmp_path, caplog):
    first = make_tracker(folder="a/tracking")
    (tmp_path / "a").mkdir()
    first.start(run_file=tmp_path / "a" / "run.json")
    state = first.state_dict()
    first.finish()
    state["run_id"] = first.run_id
    copy = make_tracker(folder="b/tracking")
    copy.start(**state)
    copy.finish()
    assert copy.run_id != first.run_id
    assert client.get_run(copy.run_id).data.tags["cellbundle.continues_run"] == first.run_id
    shutil.rmtree(tmp_path / "a")
    moved = make_tracker(folder="b/tracking")
    moved.start(**state)
    moved.finish()
    assert moved.run_id == first.run_id


def test_a_key_is_no_path(make_tracker):
    with pytest.raises(CheckpointError, match=r"run key.*'\.\./\.\./elsewhere'"):
        make_tracker().start(run_key="../../elsewhere")


def test_a_long_outage_does_not_end_the_thread(tmp_path):
    thread = sender.Sender(Spool(tmp_path / "run"), Upload(Spool(tmp_path / "run"), "http://127.0.0.1:9"))
    waits = []
    thread._failures = 5000
    thread._try = lambda: None
    thread._wake.wait = lambda seconds: (waits.append(seconds), setattr(thread, "_ending", True))
    thread.run()
    assert waits == [sender.LONGEST_WAIT]


@pytest.mark.parametrize("status", [401, 403, 500, None])
def test_server_that_misbehaves(make_tracker, status, caplog, monkeypatch, tmp_path):
    monkeypatch.setattr(sender, "PATIENCE", 1.0)
    monkeypatch.setattr(sender, "INTERVAL", 0.1)
    with misbehaving(status) as (address, asked):
        tracker = make_tracker(address.replace("//", "//me:secret@"))
        begin = time.perf_counter()
        tracker.start()
        for step in range(2000):
            tracker.log({"loss": step, "learning_rate": 0.1}, step)
        assert time.perf_counter() - begin < 5
        wait_until(lambda: asked if status is None else warnings(caplog))
        begin = time.perf_counter()
        tracker.finish()
        assert time.perf_counter() - begin < 5
    texts = warnings(caplog)
    assert len(texts) == (1 if status is None else 2), texts
    assert "not have all of the run" in texts[-1]
    assert "`cellbundle sync-runs" in texts[-1]
    assert status is None or f"{status}" in texts[0]
    assert ("MLFLOW_TRACKING_TOKEN" in texts[0]) is (status in (401, 403))
    assert "secret" not in caplog.text
    assert "secret" not in (find_runs([tmp_path])[0] / "state.json").read_text()
    assert Spool(find_runs([tmp_path])[0]).remaining() == 2001


@pytest.mark.parametrize("address", ["file:./mlruns", "htp://host", "sqlite:////proc/none/runs.db"])
def test_bad_address(make_tracker, address, caplog, tmp_path, client, uri):
    tracker = make_tracker(address)
    tracker.start()
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    assert any("cellbundle sync-runs" in text for text in warnings(caplog))
    synced = sync_run(*find_runs([tmp_path]), uri)
    assert (synced.metrics, synced.remaining) == (1, 0)
    assert only_run(client, "cells").info.status == "FINISHED"


def wait_until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
