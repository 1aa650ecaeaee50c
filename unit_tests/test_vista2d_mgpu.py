"""vista2d in several processes: on all GPUs where there are several, else in two CPU processes (gloo).

python unit_tests/test_vista2d_mgpu.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from cellbundle.io import read_labels
from cellbundle.synthetic import write_dataset

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "vista2d"
ON_GPUS = torch.cuda.device_count() > 1
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
LAUNCHER += ["--nproc_per_node=gpu" if ON_GPUS else "--nproc_per_node=2"]
pytestmark = pytest.mark.slow


def run(folder: Path, *options: str, launcher: tuple[str, ...] = ()) -> None:
    """scripts/workflow.py in the bundle's folder, with its small version and two data lists."""
    where = ["--data_list_files", str(folder / "group1.yaml"), "--ckpt_path", str(folder / "run")]
    where += ["--output_dir", str(folder / "eval"), "--device_name", "cuda" if ON_GPUS and launcher else "cpu"]
    command = [
        *(launcher or [sys.executable]),
        "scripts/workflow.py",
        "--config_file",
        "configs/small.yaml",
        *where,
        *options,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    if ON_GPUS and launcher:
        done = subprocess.run(
            command, cwd=BUNDLE, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
    else:
        from . import forked  # not when this file is started as a program

        words = [sys.executable, *command[len(launcher or "1") :]]
        done = forked.run(words, BUNDLE, environment, processes=2 if launcher else 1)
    assert done.returncode == 0, done.stderr[-3000:]


def test_several_processes(tmp_path):
    """They train on lists drawn by weight, and score and segment every image exactly once, as one process does."""
    first = write_dataset(tmp_path / "first", n_training=4, n_testing=3, size=(64, 72), seed=0)
    second = write_dataset(tmp_path / "second", n_training=8, n_testing=2, size=(80, 60), seed=1)
    lists = [{"datalist": str(path), "basedir": str(path.parent)} for path in (first, second)]
    (tmp_path / "group1.yaml").write_text(yaml.safe_dump([lists[0], {**lists[1], "weight": 0.5}]))
    epochs = ("--train#trainer#max_epochs", "2", "--optimizer_name", "sgd", "--batch_size", "1")
    run(tmp_path, *epochs, "--amp", "False", launcher=LAUNCHER)
    state = torch.load(tmp_path / "run" / "latest.pt", weights_only=True)
    n_processes = torch.cuda.device_count() if ON_GPUS else 2
    assert state["epoch"] == 2
    assert state["epoch_length"] == -(-8 // n_processes)
    assert len(state["random"]) == n_processes
    several = json.loads((tmp_path / "eval" / "report.json").read_text())
    run(tmp_path, "--mode", "eval", "--amp", "False")
    one = json.loads((tmp_path / "eval" / "report.json").read_text())
    assert one["all"]["n_images"] == several["all"]["n_images"] == 5
    assert ON_GPUS or one == several
    run(tmp_path, "--mode", "infer", launcher=LAUNCHER)
    for path in (first, second):
        for entry in json.loads(path.read_text())["testing"]:
            labels = read_labels(tmp_path / "eval" / f"{Path(entry['image']).stem}_labels.tif")
            assert labels.shape == read_labels(path.parent / entry["label"]).shape


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, *sys.argv[1:]]))
