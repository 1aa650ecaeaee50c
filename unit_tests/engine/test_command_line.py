"""The commands of the documentation, each in processes of its own."""

import json
import re
import sys

import pytest
import torch

from .conftest import BUNDLE

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
pytestmark = pytest.mark.slow


def check(done) -> None:
    assert done.returncode == 0, done.stderr[-3000:]


def test_train_eval_infer(command, tmp_path):
    check(command())
    check(command("--mode", "eval"))
    check(command("--mode", "infer"))
    assert json.loads((tmp_path / "run" / "eval" / "report.json").read_text())["all"]["n_images"] == 3
    assert len(list((tmp_path / "run" / "eval").glob("*_labels.tif"))) == 3


def test_two_processes(command, tmp_path):
    check(command("--final_test", "True", launcher=TORCHRUN))
    two = json.loads((tmp_path / "run" / "eval" / "report.json").read_text())
    check(command("--mode", "eval"))
    one = json.loads((tmp_path / "run" / "eval" / "report.json").read_text())
    assert two == one
    check(command("--mode", "eval", processes=2))
    assert json.loads((tmp_path / "run" / "eval" / "report.json").read_text()) == one
    check(command("--mode", "infer", processes=2))
    assert len(list((tmp_path / "run" / "eval").glob("*_labels.tif"))) == 3


def test_two_processes_resume(command, tmp_path):
    check(command(processes=2))
    check(command("--resume", "True", "--train#trainer#max_epochs", "3", processes=2))
    assert torch.load(tmp_path / "run" / "latest.pt", weights_only=True)["epoch"] == 3


def test_workflow_file(command, tmp_path):
    check(command(start=(str(BUNDLE / "scripts" / "workflow.py"),)))
    assert (tmp_path / "run" / "model.pt").is_file()


def test_misspelt_override(command):
    done = command("--train#trainer#max_epochz", "3")
    assert done.returncode != 0
    assert "--train#trainer#max_epochs" in done.stderr.strip().splitlines()[-1]


def test_failed_image_is_the_last_line(command, tmp_path):
    check(command())
    images = tmp_path / "images"
    images.mkdir()
    (images / "bad.png").write_bytes(b"junk")
    done = command("--mode", "infer", "--input_dir", str(images))
    assert done.returncode != 0
    assert re.search(r"1 of 1 images.*bad\.png", done.stderr.strip().splitlines()[-1])
