"""Two processes and one: the same training, the same scores, each image once."""

import json
import os
import sys

import pytest
import torch
from torch.utils.data import TensorDataset

from cellbundle.engine.data import PADDING, EachOnceSampler

from .. import forked
from .conftest import BUNDLE

ROOT = BUNDLE.parent / "swin_unet"  # has no batch normalisation, whose statistics are of each process on CPUs
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
SMALL = {
    "network_def#width": 8,
    "network_def#heads": 2,
    "network_def#window": 2,
    "roi_size": "[64,64]",
    "crops_per_epoch": 80,
    "train#trainer#max_epochs": 1,
    "weights_dtype": "float32",
    "final_test": False,
    "num_workers": 0,
    "device_name": "cpu",
    "amp": False,
}


@pytest.mark.parametrize(("n", "processes"), [(5, 2), (1, 3), (6, 3), (0, 2)])
def test_each_item_comes_once_and_all_processes_take_equally_many_steps(n, processes):
    dataset = TensorDataset(torch.zeros(n))
    parts = [list(EachOnceSampler(dataset, processes, rank, shuffle=False)) for rank in range(processes)]
    assert sorted(i for part in parts for i in part if i != PADDING) == list(range(n))
    assert len({len(part) for part in parts}) == 1


@pytest.mark.slow
def test_two_processes_train_and_score_as_one(data, tmp_path):
    def run(folder, processes, **options):
        given = {"datalist": data, "basedir": data.parent, "ckpt_path": tmp_path / folder, **SMALL, **options}
        given.setdefault("output_dir", tmp_path / folder / "eval")
        command = [sys.executable, "-m", "monai.bundle", "run_workflow", "scripts.workflow.CellSwinUNet"]
        command += ["--config_file", "configs/hyper_parameters.yaml"]
        command += [text for key, value in given.items() for text in (f"--{key}", str(value))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = forked.run(command, ROOT, environment, processes=processes)
        assert done.returncode == 0, done.stderr[-3000:]

    run("one", 1, batch_size=4)
    run("two", 2, batch_size=2)
    one, two = (torch.load(tmp_path / name / "model_final.pt", weights_only=True) for name in ("one", "two"))
    for key in one:
        if key.endswith("qkv.bias"):  # softmax does not see the bias of keys: AdamW scales up the rounding of its 0
            one[key], two[key] = (torch.cat([part[key].chunk(3)[i] for i in (0, 2)]) for part in (one, two))
    assert max(float((one[key] - two[key]).abs().max()) for key in one) <= 1e-5, "after 20 steps"
    run("one", 1, mode="eval")
    run("one", 2, mode="eval", output_dir=tmp_path / "both")
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("one/eval", "both"))
    assert first == second
    run("one", 2, mode="infer", output_dir=tmp_path / "both")
    assert len(list((tmp_path / "both").glob("*_labels.tif"))) == 3
    # The same run goes on with another number of processes and as many crops a step.
    run("one", 2, batch_size=2, resume=True, **{"train#trainer#max_epochs": 2})
    assert len((tmp_path / "one" / "history.csv").read_text().splitlines()) == 3
