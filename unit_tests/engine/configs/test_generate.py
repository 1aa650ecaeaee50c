import json
from pathlib import Path

import pytest

from cellbundle.engine.configs.bases import load_config
from cellbundle.engine.configs.generate import generated_files, inference_config, tensorrt_config, train_config
from cellbundle.errors import ConfigError

BUNDLE = Path(__file__).resolve().parents[3] / "bundles" / "cell_unet"


@pytest.fixture
def config() -> dict:
    return load_config(BUNDLE / "configs" / "hyper_parameters.yaml")


def test_only_what_is_needed_is_in_a_configuration(config: dict):
    inference, train = inference_config(config), train_config(config)
    assert not inference.keys() & {"train", "datalist", "learning_rate", "bases", "inference", "handlers", "mode"}
    assert not train.keys() & {"dataset", "evaluator", "tracker", "input_dir", "initialize", "tensorrt"}
    assert not any("warmup_cosine" in line for line in inference["imports"])
    assert any("warmup_cosine" in line for line in train["imports"])
    assert train["run"][0] == "$set_determinism(@seed)"


def test_changes_of_a_bundle_win(config: dict):
    config["inference"] = {"decoder::min_size": 3, "diameter": 9}
    inference = inference_config(config)
    assert inference["decoder"]["min_size"] == 3
    assert inference["diameter"] == 9
    assert config["decoder"]["min_size"] == 25, "the configuration of trainings stays"


@pytest.mark.parametrize("key", ["decodr::min_size", "decoder::minimum", "scale::x", "diamter"])
def test_a_change_that_reaches_nothing(config: dict, key: str):
    config["inference"] = {key: 3}
    with pytest.raises(ConfigError, match=rf"{key}.*inference.*reaches nothing"):
        inference_config(config)


def test_a_change_for_tensorrt_that_reaches_nothing(config: dict):
    inference = inference_config(config)
    config["tensorrt"] = {"outputs": ["a"], "network": "$compile_tensorrt(@network_def, @outputs)"}
    assert tensorrt_config(config, inference)["outputs"] == ["a"]
    config["tensorrt"]["outputz"] = ["b"]
    with pytest.raises(ConfigError, match=r"outputz.*tensorrt.*reaches nothing"):
        tensorrt_config(config, inference)


def test_a_bundle_without_changes(config: dict):
    del config["inference"], config["tensorrt"]
    assert inference_config(config)["diameter"] == config["diameter"]


def test_files_hold_no_reference_to_another_file():
    files = generated_files(BUNDLE)
    assert {path.name for path in files} == {
        "inference.json", "inference_trt.json", "multi_gpu_train.json", "train.json",
    }  # fmt: skip
    assert all("bases" not in json.loads(text) and "_desc_" in json.loads(text) for text in files.values())
