"""The search for the options of a decoder: never worse than the start, repeatable, for a bundle as a command."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from cellbundle.decode.hover import decode_hover
from cellbundle.synthetic import generate, write_dataset
from cellbundle.targets.hover import labels_to_hover
from cellbundle.transforms.detections import DecodeDetectionsd

from . import forked

pytest.importorskip("optuna")

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts" / "tools"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import search_decoder

    return search_decoder


@pytest.fixture
def images():
    """Predictions whose logits are 2 too low."""
    labels = generate("phase", (64, 80), 12, diameter=14, touching=0.5, seed=1)[1]
    logit = np.where(labels > 0, -1, -3)[None]
    return [(np.concatenate([logit, labels_to_hover(labels)]).astype(np.float32), labels)]


def test_the_space_of_hover_holds_its_defaults(script):
    decode, channels, space = script.SPACES["DecodeHoverd"]
    start = script.start_options(decode, {})
    assert channels == 3
    assert set(space) == set(start) - {"border_rule"}
    assert all(script.fits(start[name], choice) for name, choice in space.items())


def test_a_better_threshold_is_found(script, images):
    study = script.search(decode_hover, {"cell_threshold": ("float", -4.0, 0.0)}, {"cell_threshold": 0.0}, images, 15)
    assert study.trials[0].params == {"cell_threshold": 0.0}
    assert study.trials[0].value == 0
    assert study.best_value > 0.9
    assert -3 <= study.best_params["cell_threshold"] < -1


def test_the_same_seed_gives_the_same_trials(script, images):
    space, start = script.SPACES["DecodeHoverd"][2], script.start_options(decode_hover, {})
    runs = [script.search(decode_hover, space, start, images, 6, "pq", seed=3) for _ in range(2)]
    assert [t.params for t in runs[0].trials] == [t.params for t in runs[1].trials]
    assert runs[0].best_value >= runs[0].trials[0].value
    assert runs[0].trials[0].params == {name: start[name] for name in space}


def test_a_start_outside_the_space_stays(script, images):
    space = {"merge_drop": ("float", 0.0, 0.5), "min_size": ("int", 0, 9)}
    study = script.search(decode_hover, space, {"merge_drop": None, "min_size": 5, "cell_threshold": -2}, images, 3)
    assert all(set(trial.params) == {"min_size"} for trial in study.trials)
    assert study.trials[0].value > 0.7  # with the threshold that was given


@pytest.fixture
def detected():
    """Prediction of a detector: two square cells, one of them faint, and a wrong detection."""
    labels = np.zeros((40, 60), np.int32)
    labels[5:20, 5:20], labels[20:35, 30:45] = 4, 2
    corners = np.array([(5, 5, 20, 20), (30, 20, 45, 35), (10, 25, 20, 35)], np.float32)
    mask = np.full((3, 28, 28), 0.65, np.float32)
    mask[0] = 0.45
    arrays = {"boxes": corners, "scores": np.array([0.9, 0.8, 0.55], np.float32), "labels": np.ones(3, np.int64)}
    tiles = {"tile_of": np.zeros(3, np.int64), "tiles": np.array([[0, 0, 40, 60]]), "size": np.array([40, 60])}
    return [(arrays | {"masks": mask} | tiles, labels)]


def test_thresholds_of_a_detector_are_found(script, detected):
    decode, channels, space = script.SPACES["DecodeDetectionsd"]
    decoder = DecodeDetectionsd(min_size=5)
    start = script.start_options(decode, decoder.options)
    assert channels is None
    assert all(script.fits(start[name], choice) for name, choice in space.items())
    study = script.search(decode, space, start, detected, 40)
    assert study.trials[0].params == {name: decoder.options[name] for name in space}
    assert study.trials[0].value == 1 / 3  # one is found, one missed, one wrong
    assert study.best_value == 1
    assert 0.55 < study.best_params["score_threshold"] <= 0.8
    assert study.best_params["mask_threshold"] < 0.45


def test_the_raw_prediction_of_a_detector_is_kept(script, detected):
    ((arrays, labels),) = detected
    batch = {key: torch.from_numpy(value)[None] for key, value in arrays.items()}
    image = MetaTensor(torch.zeros(3, 40, 60))
    contents = {
        "network": torch.nn.Linear(1, 1),
        "inferer": lambda image, network: batch,
        "dataset": [{"image": image, "label": labels[None]}],
    }
    ((kept, true),) = script.predictions(SimpleNamespace(content=contents.get))
    np.testing.assert_array_equal(true, labels)
    assert kept.keys() == arrays.keys()
    assert all(np.array_equal(kept[key], value) and kept[key].dtype == value.dtype for key, value in arrays.items())


def test_overrides(script):
    found = script.read_overrides(["--backbone", "vit_tiny_4", "--scale", "1.5", "--amp", "false"])
    assert found == {"backbone": "vit_tiny_4", "scale": 1.5, "amp": False}
    with pytest.raises(SystemExit, match=r"--key value.* --scale"):
        script.read_overrides(["--scale"])


@pytest.mark.slow
def test_the_command_prints_a_table_and_overrides(tmp_path):
    write_dataset(tmp_path, n_training=5, n_testing=1, kinds=("fluorescence",))
    command = [
        sys.executable,
        str(SCRIPTS / "search_decoder.py"),
        "--bundle",
        str(SCRIPTS.parents[1] / "bundles/cell_unet"),
    ]
    command += ["--datalist", str(tmp_path / "datalist.json"), "--basedir", str(tmp_path), "--trials", "4"]
    done = forked.run([*command, "--device_name", "cpu"])
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("|", "--"))]  # MONAI logs there too
    assert lines[0].startswith("| trial | cell_threshold |")
    assert lines[-2].startswith("| configuration | 0.3 | None | 25 | ")
    best, first = (float(line.split("|")[-2]) for line in (lines[2], lines[-2]))
    assert best >= first > 0.5
    assert lines[-1].startswith("--decoder#cell_threshold ")
    bad = forked.run([*command, "--metric", "map"])
    assert re.search("metric.*'map'.*n_true", bad.stderr)
