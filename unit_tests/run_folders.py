"""Run folders without a training: weights of a tiny cell_unet and the ``run.yaml`` beside them."""

import copy
from pathlib import Path

import torch

from cellbundle.record import FORM, write_record

from .packages.packaging import ROOT, load_script

BUNDLE = ROOT / "bundles" / "cell_unet"
STARTED = "2026-11-30T13:20:06+00:00"
LABEL = "20261130T132006"  # of the archive
SETTINGS = {
    "network_def": {"_target_": "scripts.network.CellUNetNetwork", "features": [8, 8]},
    "normaliser": {
        "_target_": "cellbundle.transforms.NormaliseIntensityd",
        "lower": 2,
        "upper": 99.8,
        "channels": "@channels",
    },
    "channels": None,
    "decoder": {
        "_target_": "cellbundle.transforms.DecodeFlowsd",
        "cell_threshold": 0.3,
        "flow_threshold": "$None",
        "n_steps": 200,
        "min_size": 0,
        "min_score": 0.0,  # random weights are never sure
        "across_borders": "@across_borders",
    },
    "across_borders": False,
    "scale": 1.0,
}
RECORD = {
    "form": FORM,
    "bundle": "cell_unet",
    "status": "finished",
    "quick": False,
    "started": STARTED,
    "ended": "2026-11-30T14:00:00+00:00",
    "command": "python -m monai.bundle run_workflow scripts.workflow.CellUNet",
    "processes": 2,
    "versions": {"python": "3.11.7", "torch": "2.11.0"},
    "git_commit": "0123abc",
    "data": [{"datalist": "/data/cells.json", "basedir": "/data"}],
    "data_sha256": ["ab" * 32],
    "max_epochs": 20,
    "epoch": 7,
    "settings": SETTINGS,
    "configuration": {"imports": ["$from cellbundle.device import choose_device"]},
}


def write_run(folder: Path, *, weights: bool = True, **changes) -> Path:
    """A run folder; keys of its record that are given as None are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    if weights:
        torch.manual_seed(5)  # of a network that finds something
        network = load_script(BUNDLE / "scripts" / "network.py", "cell_unet_network").CellUNetNetwork(features=(8, 8))
        torch.nn.init.zeros_(network.head[-1].bias)
        torch.nn.init.normal_(network.head[-1].weight, std=5)  # wide enough for flows that meet somewhere
        torch.save(network.state_dict(), folder / "model.pt")
    record = {key: value for key, value in (RECORD | changes).items() if value is not None}
    write_record(folder, copy.deepcopy(record))
    return folder
