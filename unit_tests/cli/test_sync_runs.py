"""``cellbundle sync-runs``."""

import pytest

from cellbundle.tracking import Tracker

from .conftest import call

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def kept(tmp_path):
    """A run of a process that died before anybody could take it."""
    tracker = Tracker("http://127.0.0.1:9", "cells", "first", tmp_path / "run" / "tracking")
    tracker.start(run_file=tmp_path / "run" / "run.json")
    tracker.log({"loss": 1.0, "rate": 0.1}, 1)
    key = tracker.state_dict()["run_key"]
    folder = tracker.spool.folder
    lines = (folder / "points.jsonl").read_bytes()
    tracker.finish()
    (folder / "points.jsonl").write_bytes(lines)  # as it was before the end
    return key


def test_what_was_kept_is_sent_once(kept, tmp_path, capsys):
    assert call("sync-runs", tmp_path / "run", "--tracking-uri", "http://127.0.0.1:9") == 1
    failed = capsys.readouterr().out.splitlines()
    assert failed[0].split() == ["run", "experiment", "points", "files", "remain"]
    assert failed[1].split()[:5] == [kept, "cells", "0", "0", "2"]
    assert "Connection refused" in failed[1]
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    assert call("sync-runs", tmp_path, "--tracking-uri", uri) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[:5] == [kept, "cells", "2", "0", "0"]
    client = mlflow.MlflowClient(uri)
    run = client.get_run(row[5])
    assert (run.info.status, run.info.run_name, run.data.metrics) == ("KILLED", "first", {"loss": 1.0, "rate": 0.1})
    assert f'"run_id": "{row[5]}"' in (tmp_path / "run" / "run.json").read_text()
    assert call("sync-runs", tmp_path) == 0
    assert capsys.readouterr().out == "nothing to send\n"


def test_a_folder_that_is_not_there(tmp_path, capsys):
    assert call("sync-runs", tmp_path / "none") == 1
    assert "none is no folder" in capsys.readouterr().err


def test_a_run_that_is_being_written_is_left_alone(tmp_path, capsys):
    tracker = Tracker("http://127.0.0.1:9", "cells", folder=tmp_path / "tracking")
    tracker.start()
    tracker.log({"loss": 1.0}, 1)
    assert call("sync-runs", tmp_path) == 1
    tracker.finish()
    assert "a training is writing it" in capsys.readouterr().out
