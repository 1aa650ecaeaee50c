"""``cellbundle info``."""

import re

import pytest
import torch
import yaml
from unit_tests.run_folders import BUNDLE, SETTINGS, write_run

from .conftest import call


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "1")


def printed(capsys):
    """Rows above the settings by name, and the settings."""
    rows, settings = capsys.readouterr().out.split("\nsettings\n")
    named = [(row[:10].strip(), row[10:]) for row in rows.splitlines()]
    return dict(named), yaml.safe_load(settings)


def test_a_run(run, capsys):
    assert call("info", run) == 0
    rows, settings = printed(capsys)
    assert settings == SETTINGS
    parameters = sum(
        tensor.numel()
        for name, tensor in torch.load(run / "model.pt").items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    assert rows == {
        "bundle": "cell_unet",
        "status": "finished",
        "started": "2026-11-30T13:20:06+00:00",
        "ended": "2026-11-30T14:00:00+00:00",
        "epochs": "7 of 20",
        "processes": "2",
        "versions": "python 3.11.7, torch 2.11.0",
        "commit": "0123abc",
        "data": f"datalist /data/cells.json, basedir /data, SHA-256 {'ab' * 32}",
        "command": "python -m monai.bundle run_workflow scripts.workflow.CellUNet",
        "weights": str(run / "model.pt"),
        "": f"51 tensors, {parameters:,} parameters, float32",
    }


def test_a_checkpoint_of_a_run(run, capsys):
    (run / "model.pt").rename(run / "other.pt")
    assert call("info", run / "other.pt") == 0
    assert printed(capsys)[0]["weights"] == str(run / "other.pt")


def test_parameters_are_those_of_the_network(capsys):
    """2,215,820 is the sum over ``network.parameters()``."""
    assert call("info", BUNDLE / "models" / "model.pt") == 0
    path = BUNDLE / "models" / "model.pt"
    assert capsys.readouterr().out == (f"{path}: 130 tensors, 2,215,820 parameters, float16, no run.yaml beside it\n")


def test_what_a_record_does_not_say_is_left_out(tmp_path, capsys):
    left_out = dict.fromkeys(
        ("ended", "epoch", "processes", "versions", "git_commit", "data", "data_sha256", "command", "started")
    )
    run = write_run(tmp_path / "1", status="running", quick=True, **left_out)
    assert call("info", run) == 0
    rows, _ = printed(capsys)
    assert rows["status"] == "running (a trial with --quick)"
    assert rows["epochs"] == "20 planned"
    assert set(rows) == {"bundle", "status", "epochs", "weights", ""}


def test_odd_content_is_shown_and_not_executed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("monai.bundle.ConfigParser.get_parsed_content", lambda *_: pytest.fail("parsed"))
    settings = {"scale": "$__import__('os').abort()", "network_def": {"_target_": "os.abort"}}
    run = write_run(
        tmp_path / "1", settings=settings, bundle="a\x1b[2J\nb", data="s3://me:secret@host/x", versions=["1", {"a": 2}]
    )
    assert call("info", run) == 0
    rows, shown = printed(capsys)
    assert shown == settings
    assert rows["bundle"] == "a [2J b"
    assert rows["versions"] == "1, a 2"
    assert "secret" not in rows["data"]


def test_errors_have_one_line(run, tmp_path, capsys):
    assert call("info", tmp_path / "none.pt") == 1
    assert re.search(r"^error: .*none\.pt does not exist.*weights\n$", capsys.readouterr().err)
    (tmp_path / "junk.pt").write_text("junk")
    assert call("info", tmp_path / "junk.pt") == 1
    assert re.search(r"junk\.pt.*not a readable checkpoint", capsys.readouterr().err)
    (run / "model.pt").unlink()
    assert call("info", run) == 1
    output = capsys.readouterr()
    assert "epochs    7 of 20" in output.out
    assert re.search(r"^error: .*model\.pt does not exist.*weights\n$", output.err)
    (run / "run.yaml").write_text("form: 1\n")
    assert call("info", run) == 1
    assert re.search(r"run\.yaml.*damaged", capsys.readouterr().err)
