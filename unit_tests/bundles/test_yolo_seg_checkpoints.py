"""Weights that yolo_seg takes, and files that it refuses: each with what it is and what to do."""

import logging
import os
import pickle
import re

import pytest
import torch

pytest.importorskip("ultralytics", reason="the extra yolo is not installed")

from ultralytics.nn.tasks import ClassificationModel, DetectionModel, PoseModel, SegmentationModel

from cellbundle.engine.network import load_weights
from cellbundle.errors import CheckpointError

from .contract import bundle_modules

network, checkpoints = bundle_modules("yolo_seg", "network", "checkpoints")


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    return network.YoloNetwork()


def equal(one, other):
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def saved(path, content):
    torch.save(content, path)
    return path


class Command:
    """What a pickle can do when it is loaded."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_own_weights(ours, tmp_path):
    path = saved(tmp_path / "model.pt", ours.state_dict())
    other = network.YoloNetwork()
    assert not equal(ours, other)
    loaded = checkpoints.prepare_yolo(other, torch.device("cpu"), str(path))
    assert loaded is other
    assert equal(ours, other)
    again = network.YoloNetwork()
    load_weights(again, path)
    assert equal(ours, again), "the core can load them too"


@pytest.mark.parametrize("name", ["best.pt", "it's yolov5n.pt", "weights"])
@pytest.mark.parametrize("key", ["model", "ema"])
def test_pickles_of_ultralytics_only_if_they_are_trusted(name, key, ours, tmp_path):
    """Whatever their names, by some of which ultralytics would look for others in the network."""
    content = {"model": SegmentationModel("yolo11s-seg.yaml", nc=1, verbose=False), "ema": None, key: ours.model}
    path = saved(tmp_path / name, {**content, "train_args": {"task": "segment"}})
    with pytest.raises(CheckpointError, match=r"pickle.*ultralytics\.nn.*run code.*--trust_checkpoint True"):
        checkpoints.load_yolo_weights(network.YoloNetwork(), path)
    other = network.YoloNetwork()
    checkpoints.load_yolo_weights(other, path, trust=True)
    assert equal(ours, other)
    with pytest.raises(CheckpointError, match=r"pickle.*--trust_checkpoint True"):  # nothing stays allowed
        checkpoints.load_yolo_weights(network.YoloNetwork(), path)


@pytest.mark.parametrize("trust", [False, True])
def test_code_in_a_pickle_does_not_run(trust, tmp_path):
    path = saved(tmp_path / "best.pt", {"model": Command(tmp_path / "ran")})
    message = r"best\.pt.*ultralytics.*types outside" if trust else r"pickle.*mkdir.*--trust_checkpoint True"
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load_yolo_weights(network.YoloNetwork(), path, trust=trust)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (DetectionModel, "yolo11n", "DetectionModel.*SegmentationModel.*-seg"),
        (ClassificationModel, "yolo11n-cls", "ClassificationModel.*SegmentationModel.*-seg"),
        (PoseModel, "yolo11n-pose", "PoseModel.*SegmentationModel.*-seg"),
    ],
)
def test_models_of_other_tasks_are_refused(kind, name, message, tmp_path):
    path = saved(tmp_path / "best.pt", {"model": kind(f"{name}.yaml", nc=1, verbose=False)})
    for partial in (False, True):
        with pytest.raises(CheckpointError, match=message):
            checkpoints.load_yolo_weights(network.YoloNetwork(), path, trust=True, partial=partial)


def test_weights_of_a_detector_are_refused(tmp_path):
    model = DetectionModel("yolo11n.yaml", nc=1, verbose=False)
    path = saved(tmp_path / "model.pt", {f"model.{key}": value for key, value in model.state_dict().items()})
    for partial in (False, True):
        with pytest.raises(CheckpointError, match=r"62 missing.*boxes without masks"):
            checkpoints.load_yolo_weights(network.YoloNetwork(), path, partial=partial)


@pytest.mark.parametrize(
    ("architecture", "classes", "message"),
    [
        ("yolo11s-seg", 1, "yolo11s-seg with 1 .*yolo11n-seg with 1;.*architecture to yolo11s-seg$"),
        ("yolo11n-seg", 3, "yolo11n-seg with 3 .*; set class_names.* 3 classes$"),
        ("yolo11s-seg", 2, "yolo11s-seg with 2 .*architecture to yolo11s-seg.*class_names.* 2 classes$"),
    ],
)
def test_weights_of_another_network_are_named(architecture, classes, message, tmp_path):
    path = saved(tmp_path / "model.pt", network.YoloNetwork(architecture, classes).state_dict())
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load_yolo_weights(network.YoloNetwork(), path)


def test_training_takes_what_fits(ours, tmp_path, caplog):
    path = saved(tmp_path / "model.pt", ours.state_dict())
    other = network.YoloNetwork(num_classes=3)
    head = other.model.model[-1].cv3[0][-1].weight.clone()
    with caplog.at_level(logging.INFO):
        checkpoints.prepare_yolo(other, torch.device("cpu"), str(path), partial=True)
    assert re.search(r"\b6 of 561 tensors.*anew.*model\.model\.23\.cv3\.0\.2\.weight, ", caplog.text)
    assert "555 of 561 tensors" in caplog.text
    assert torch.equal(other.model.model[0].conv.weight, ours.model.model[0].conv.weight)
    assert torch.equal(other.model.model[-1].cv3[0][-1].weight, head)
    with pytest.raises(CheckpointError, match="architecture to yolo11n-seg"):
        checkpoints.load_yolo_weights(network.YoloNetwork("yolo11s-seg"), path, partial=True)


def test_damaged_files(ours, tmp_path):
    whole = saved(tmp_path / "whole.pt", {"model": ours.model}).read_bytes()
    contents = {"empty": b"", "text": b"no weights\n" * 20, "cut": whole[: len(whole) // 2], "raw": pickle.dumps([1])}
    for name, content in contents.items():
        (tmp_path / f"{name}.pt").write_bytes(content)
    saved(tmp_path / "number.pt", {"epoch": 1})
    messages = dict.fromkeys(contents, "not a readable checkpoint|no state dict")
    messages |= {"missing": "missing.pt does not exist", "number": "no state dict"}
    for name, message in messages.items():
        for trust in (False, True):
            with pytest.raises(CheckpointError, match=message):
                checkpoints.load_yolo_weights(network.YoloNetwork(), tmp_path / f"{name}.pt", trust=trust)
