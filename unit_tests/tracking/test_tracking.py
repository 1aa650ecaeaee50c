"""The tracker on a database of its own, and on servers that misbehave."""

import json
import threading
import time

import pytest

from cellbundle.errors import CellBundleError, DependencyError
from cellbundle.tracking import tracker as module
from cellbundle.tracking.sender import find_runs
from cellbundle.tracking.spool import Spool
from cellbundle.tracking.upload import Upload

from .tracking_servers import misbehaving, only_run, points

mlflow = pytest.importorskip("mlflow")


def test_off_does_nothing(make_tracker, tmp_path):
    tracker = make_tracker(None)
    tracker.start()
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    assert (tracker.run_id, tracker.state_dict()) == (None, {})
    assert not (tmp_path / "tracking").exists()


def test_other_processes_of_a_group_do_nothing(make_tracker, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "rank", lambda: 1)
    tracker = make_tracker()
    tracker.start()
    tracker.log({"loss": 1.0}, 1)
    assert not (tmp_path / "tracking").exists()


def test_mlflow_is_not_installed(make_tracker, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    make_tracker(None)
    with pytest.raises(DependencyError, match=r"pip install 'cellbundle\[mlflow\]'"):
        make_tracker()


def test_everything_arrives(make_tracker, client, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    tracker = make_tracker(run_name="first")
    tracker.start(parameters={"learning_rate": 0.1}, tags={"bundle": "x"}, run_file=tmp_path / "run.json")
    for step in range(3):
        tracker.log({"loss": step / 3, "nan": float("nan"), "text": "no number"}, step)
    (tmp_path / "note.txt").write_text("hello")
    tracker.log_file(tmp_path / "note.txt", "notes")
    tracker.set_tags({"late": 1})
    tracker.finish("FAILED")
    run = only_run(client, "cells")
    assert (run.info.run_name, run.info.status, tracker.run_id) == ("first", "FAILED", run.info.run_id)
    assert run.data.params == {"learning_rate": "0.1"}
    assert {"bundle": "x", "late": "1"}.items() <= run.data.tags.items()
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [0.0, 1 / 3, 2 / 3]
    assert points(client, run.info.run_id, "nan") == [0, 1, 2]
    assert [f.path for f in client.list_artifacts(run.info.run_id, "notes")] == ["notes/note.txt"]
    assert not (tmp_path / "tracking").exists(), "nothing is left to send"
    assert json.loads((tmp_path / "run.json").read_text())["run_id"] == run.info.run_id


def test_taken_up_again_only_what_is_missing_is_sent(make_tracker, client):
    first = make_tracker()
    first.start(parameters={"epochs": 2})
    for step in (1, 2, 3, 5):
        first.log({"loss": step}, step)
    state = first.state_dict()
    first.finish("KILLED")
    run_id = first.run_id
    second = make_tracker()
    second.start(**{**state, "run_id": run_id}, parameters={"epochs": 4, "new": 1})
    for step in (3, 4, 5, 6):
        second.log({"loss": -step}, step)
    second.finish()
    run = only_run(client, "cells")
    history = {m.step: m.value for m in client.get_metric_history(run_id, "loss")}
    assert history == {1: 1, 2: 2, 3: 3, 4: -4, 5: 5, 6: -6}
    assert points(client, run_id, "loss") == [1, 2, 3, 4, 5, 6]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"epochs": "2", "new": "1"}
    assert run.data.tags["cellbundle.resumed_with"] == "epochs=4"


def test_killed_before_the_server_knew_the_run(make_tracker, client, tmp_path):
    with misbehaving(500) as (address, _):
        first = make_tracker(address)
        first.start(run_file=tmp_path / "run.json")
        first.log({"loss": 1.0}, 1)
        state = first.state_dict()
        first.finish()
    assert state["run_id"] is None
    second = make_tracker()
    second.start(**state, run_file=tmp_path / "run.json")
    second.log({"loss": 2.0}, 1)
    second.log({"loss": 2.0}, 2)
    second.finish()
    run = only_run(client, "cells")
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [1.0, 2.0]


def test_lost_answers_change_nothing(uri, client, tmp_path):
    """The server took a request, but its answer got lost, so it is sent again; also that which makes the run."""
    spool = Spool(tmp_path / "tracking" / "key")
    spool.state |= {"key": "key", "experiment": "cells", "started": 1000, "run_id": None}
    spool.lock()
    for step in range(5):
        spool.append({"time": 2000 + step, "step": step, "values": {"loss": step / 7, "nan": float("nan")}})
    Upload(spool, uri).send()
    spool.state |= {"offset": 0, "run_id": None}
    again = Upload(spool, uri)
    again.send()
    assert again.n_metrics == 0
    blind = Upload(spool, uri)
    blind._connect()
    blind._known = {}
    spool.state["offset"] = 0
    blind.send()
    spool.close()
    assert blind.n_metrics == 10
    run = only_run(client, "cells")
    assert points(client, run.info.run_id, "loss") == points(client, run.info.run_id, "nan") == [0, 1, 2, 3, 4]


def test_two_at_once_in_one_process(make_tracker, client):
    trackers = [make_tracker(folder="tracking"), make_tracker(folder="tracking")]
    for tracker in trackers:
        tracker.start()
    for number, tracker in enumerate(trackers):
        tracker.log({"loss": number}, 1)
    for tracker in trackers:
        tracker.finish()
    runs = {tracker.run_id for tracker in trackers}
    assert len(runs) == 2
    assert all(points(client, run, "loss") == [1] for run in runs)
    assert mlflow.active_run() is None


def test_variables_of_the_user_stay(make_tracker, monkeypatch):
    import os

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = dict(os.environ)
    tracker = make_tracker()
    tracker.start()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    tracker.finish()
    assert dict(os.environ) == before


def test_system_metrics(make_tracker, client, monkeypatch):
    monkeypatch.setattr(module.SystemMetrics.__init__, "__defaults__", (0.05,))
    tracker = make_tracker(system_metrics=True)
    tracker.start()
    time.sleep(1)
    tracker.finish()
    assert "system/cpu_utilization_percentage" in only_run(client, "cells").data.metrics
    assert "system-metrics" not in {thread.name for thread in threading.enumerate()}


def test_nothing_to_sync(tmp_path):
    assert find_runs([tmp_path]) == []
    with pytest.raises(CellBundleError, match="none is no folder"):
        find_runs([tmp_path / "none"])
