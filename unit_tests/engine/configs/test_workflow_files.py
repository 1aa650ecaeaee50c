"""What the workflow takes from the files of a bundle, though base files of the core come first in the list."""

import logging
from pathlib import Path

import pytest

from cellbundle.engine.workflow import CellWorkflow
from cellbundle.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[3] / "bundles" / "cell_unet" / "configs"
OWN = CONFIGS / "hyper_parameters.yaml"


def make(files: str | list[str], folder: Path, **options: object) -> CellWorkflow:
    return CellWorkflow(config_file=files, ckpt_path=str(folder / "run"), **{"logging_file": False, **options})


@pytest.mark.parametrize("is_alone", [True, False])
def test_the_bundle_of_a_file_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture, is_alone: bool):
    more = tmp_path / "more.yaml"
    more.write_text((f"bases: [{OWN}]\n" if is_alone else "") + "learning_rate: 0.5\ntrain::blur::prob: 0.0\n")
    workflow = make(str(more) if is_alone else [str(OWN), str(more)], tmp_path)
    assert workflow.root == CONFIGS.parent
    assert workflow.config_root_path == CONFIGS
    assert workflow.parser["bundle_root"] == str(CONFIGS.parent)
    assert workflow.parser["_meta_"]["name"] == "cell_unet"
    assert workflow.parser["learning_rate"] == 0.5
    assert workflow.parser["train#blur#prob"] == 0.0
    assert workflow.override["learning_rate"] == 0.5
    assert not {"bases", "inference", "tensorrt"} & workflow.parser.get().keys()
    assert all("_target_" in handler for handler in workflow.parser["train#handlers"])
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["Logging file is set to False, skipping logging."]


def test_an_override_of_a_named_handler(tmp_path: Path):
    workflow = make(str(OWN), tmp_path, **{"train#early_stop#min_epochs": 7})
    assert [handler for handler in workflow.parser["train#handlers"] if handler.get("min_epochs") == 7]
    with pytest.raises(ConfigError, match="train#early_stop#min_epochz"):
        make(str(OWN), tmp_path, **{"train#early_stop#min_epochz": 7})


def test_files_of_the_user_are_kept(tmp_path: Path):
    meta = tmp_path / "meta.json"
    meta.write_text('{"name": "own"}')
    assert make(str(OWN), tmp_path, meta_file=str(meta)).parser["_meta_"] == {"name": "own"}
    with pytest.raises(FileNotFoundError, match=r"none\.conf"):
        make(str(OWN), tmp_path, logging_file=str(tmp_path / "none.conf"))


def test_a_mistake_in_a_file_names_file_and_key(tmp_path: Path):
    more = tmp_path / "more.yaml"
    more.write_text("train::trainr::max_epochs: 3\n")
    with pytest.raises(ConfigError, match=r"more\.yaml: the key 'train::trainr::max_epochs' reaches nothing"):
        make([str(OWN), str(more)], tmp_path)
