"""``run.yaml``: weights that know their network, normaliser, scale and decoder, wherever they are moved to."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml

from cellbundle.bundles import inference_parser
from cellbundle.errors import CheckpointError
from cellbundle.inference.predictor import Predictor
from cellbundle.record import RECORD, find_settings, read_record, settings_of, write_record
from cellbundle.synthetic import generate

from .conftest import BUNDLE

BUNDLES = sorted(path.parts[-3] for path in BUNDLE.parent.glob("*/configs/metadata.json"))

TRAINED = {
    "normaliser#lower": 5,
    "scale": 2.0,
    "tile_overlap": 0.3,
    "across_borders": True,
    "decoder#min_score": 0.0,
    "decoder#cell_threshold": -1.0,
}


@pytest.fixture
def run(make, tmp_path):
    make(**TRAINED).run()
    return tmp_path / "run"


def test_predictor_takes_the_settings_of_the_weights_and_options_win(run, tmp_path):
    moved = shutil.move(run, tmp_path / "moved")
    predictor = Predictor("cell_unet", device="cpu", weights=moved / "model.pt")
    assert predictor.scale == 2.0
    assert predictor.normaliser.lower == 5
    assert predictor.inferer.overlap == 0.3
    assert predictor.network.state_dict()["stem.0.weight"].shape[0] == 8
    assert (predictor.decoder.min_score, predictor.decoder.options["across_borders"]) == (0.0, True)
    image, _ = generate("fluorescence", (64, 64), n_cells=4, seed=0)
    labels = predictor.segment(image[None].astype(np.float32)).labels
    shutil.copytree(moved, tmp_path / "again")
    again = Predictor("cell_unet", device="cpu", weights=tmp_path / "again" / "model.pt")
    np.testing.assert_array_equal(labels, again.segment(image[None].astype(np.float32)).labels)
    assert Predictor("cell_unet", device="cpu", weights=moved / "model.pt", min_score=0.5).decoder.min_score == 0.5


def test_eval_and_infer_take_the_settings_and_the_command_line_wins(run, make):
    workflow = make(mode="eval", **{"network_def#features": [8, 8]})
    assert workflow.content("inferer").overlap == 0.3
    assert workflow.content("decoder").options["across_borders"]
    assert workflow.content("normaliser").lower == 5
    workflow = make(mode="infer", **{"decoder#min_score": 0.9, "tile_overlap": 0.1, "network_def#features": [8, 8]})
    decoder = workflow.content("decoder")
    assert (decoder.min_score, decoder.options["cell_threshold"]) == (0.9, -1.0)
    assert workflow.content("inferer").overlap == 0.1
    workflow = make(mode="infer", **{"+normaliser": {"lower": 9.0}})
    assert (workflow.content("normaliser").lower, workflow.content("normaliser").upper) == (9.0, 99.8)
    assert "+normaliser" not in workflow.parser.get()


def test_weights_without_a_record_load_as_the_bundle_is_configured(run, caplog):
    (run / RECORD).unlink()
    with caplog.at_level("INFO", "cellbundle"), pytest.raises(CheckpointError, match=r"model\.pt.*another network"):
        Predictor("cell_unet", device="cpu", weights=run / "model.pt")
    assert re.search(r"model\.pt.*no run\.yaml", caplog.text)


def test_the_bundles_own_weights_need_no_word(caplog):
    with caplog.at_level("INFO", "cellbundle"):
        Predictor("cell_unet", device="cpu")
    assert "run.yaml" not in caplog.text


def test_classes_are_named_as_in_the_bundle(run, tmp_path):
    """A packaged bundle has a core of its own; weights go from one form to the other."""
    packaged = shutil.copytree(BUNDLE, tmp_path / "packaged", ignore=shutil.ignore_patterns("runs", "eval"))
    (packaged / "scripts" / "cellbundle").mkdir()
    for path in (packaged / "configs").glob("*.*"):
        path.write_text(path.read_text().replace("cellbundle.", "scripts.cellbundle."))
    settings = settings_of(run / "model.pt", packaged)
    assert settings["normaliser"]["_target_"] == "scripts.cellbundle.transforms.NormaliseIntensityd"
    assert settings["network_def"]["_target_"] == "scripts.network.CellUNetNetwork"
    change(run, settings)
    assert settings_of(run / "model.pt", BUNDLE)["normaliser"]["_target_"].startswith("cellbundle.")


def change(run, settings):
    content = yaml.safe_load((run / RECORD).read_text())
    content["settings"] |= settings
    (run / RECORD).write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": "$__import__('os').system('touch hacked')"},
        {"normaliser": {"_target_": "os.system", "command": "touch hacked"}},
        {"normaliser": {"_target_": "cellbundle.transforms.SaveLabelsd", "output_dir": "."}},
        {"decoder": {"inner": [{"_target_": "subprocess.run", "args": "x"}]}},
        {"scale": "%/etc/passwd#0"},
        {"normaliser": {"_target_": "cellbundle.transforms.NormaliseIntensityd", "_requires_": "$print(1)"}},
        {"normaliser": {"command": "touch hacked"}, "normaliser#_target_": "os.system"},
        {"amp#_target_": "os.system", "amp": {"command": "touch hacked"}},
        {"scale": {"x#_target_": "os.system"}},
        {"class_names": "@run", "output_dir": ".", "replace_foreign": True},
        {"channels": "@run"},
        {"channels": "@evaluator"},
        {"run": ["@evaluator"]},
        {"weights": "other.pt"},
        {"imports": ["$import os"]},
    ],
)
def test_code_of_a_record_is_not_run(run, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change(run, settings)
    with pytest.raises(CheckpointError, match=r"run\.yaml.*code of cell_unet"):
        Predictor("cell_unet", device="cpu", weights=run / "model.pt")
    assert not (tmp_path / "hacked").exists()


def test_the_inferer_of_former_versions_is_taken(run):
    """They looked at images once, at one scale."""
    tiled = {"_target_": "cellbundle.inference.tiling.TiledInferer", "roi_size": [64, 64], "scale": "@scale"}
    change(run, {"inferer": tiled})
    predictor = Predictor("cell_unet", device="cpu", weights=run / "model.pt")
    assert not predictor.looks_for_size
    assert predictor.segment(np.zeros((1, 40, 50), np.float32)).size == (None, 1.0)
    assert predictor.at_diameter(36).segment(np.zeros((1, 40, 50), np.float32)).size == (36.0, 0.5)


def test_another_normaliser_of_ours_is_taken(run):
    change(run, {"normaliser": {"_target_": "cellbundle.transforms.NormaliseIntensityd", "lower": 7, "upper": 90}})
    assert Predictor("cell_unet", device="cpu", weights=run / "model.pt").normaliser.lower == 7


@pytest.mark.parametrize("text", ["", "[]", "form: 1", "form: 2\nbundle: cell_unet\nsettings: {}", "form: [", "\0"])
def test_a_damaged_record_is_named(run, text):
    (run / RECORD).write_text(text)
    with pytest.raises(CheckpointError, match=r"run\.yaml.*damaged.*another version"):
        settings_of(run / "model.pt", BUNDLE)


def test_weights_of_another_bundle_are_named_whatever_the_folder_is_called(run, tmp_path):
    renamed = shutil.copytree(BUNDLE, tmp_path / "renamed", ignore=shutil.ignore_patterns("runs", "eval"))
    assert settings_of(run / "model.pt", renamed)["scale"] == 2.0
    metadata = renamed / "configs" / "metadata.json"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"name": "swin_unet"}))
    with pytest.raises(CheckpointError, match=r"model\.pt.*cell_unet's.*not swin_unet's"):
        settings_of(run / "model.pt", renamed)


@pytest.mark.parametrize("name", BUNDLES)
def test_settings_of_every_bundle_build_its_inference(name, data, tmp_path):
    """What a training notes, as it is configured by default, changes nothing of ``inference.json``."""
    from monai.bundle import ConfigParser

    from cellbundle.engine.configs import load_config

    root = BUNDLE.parent / name
    parser = inference_parser(root, {})
    training = ConfigParser(load_config(root / "configs" / "hyper_parameters.yaml"))
    training["datalist"], training["basedir"] = str(data), str(data.parent)
    settings = find_settings(training)
    assert {"network_def", "normaliser", "decoder", "inferer", "scale"} <= settings.keys()
    assert not {"device", "mode", "resume", "bundle_root"} & settings.keys()
    assert "@mode" not in json.dumps(settings)
    from cellbundle.record import apply_settings

    write_record(tmp_path, {"form": 1, "bundle": name, "settings": settings})
    settings = settings_of(tmp_path / "model.pt", root)
    expected = parser.get_parsed_content("decoder")
    apply_settings(parser, settings)
    assert vars(parser.get_parsed_content("decoder")).keys() == vars(expected).keys()
    assert (
        parser.get_parsed_content("inferer").overlap == inference_parser(root, {}).get_parsed_content("inferer").overlap
    )


def test_monai_label_leaves_no_record_of_other_weights(run, make):
    """A training that no workflow started removes what describes the weights that it replaces."""
    from cellbundle.engine.handlers import find_handler
    from cellbundle.engine.handlers.checkpoint import TrainingCheckpoint

    trainer = make(overwrite=True).trainer
    checkpoint = find_handler(trainer, TrainingCheckpoint)
    assert read_record(run) is not None
    checkpoint.save_final(trainer)
    assert read_record(run) is None
    assert torch.load(run / "model_final.pt", weights_only=True)
