import logging
from collections import Counter
from pathlib import Path

import pytest

from cellbundle.engine.configs.bases import (
    base_files,
    config_files,
    finish_config,
    further_options,
    load_config,
    quiet_about_folders,
)
from cellbundle.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[3]
BUNDLES = sorted(path.parents[1] for path in REPOSITORY.glob("bundles/*/configs/hyper_parameters.yaml"))
ROOT = """
train:
  loss:
    _target_: torch.nn.HuberLoss
    delta: 2.0
    reduction: mean
  steps: [1, 2]
learning_rate: 0.1
run: [$@train#loss, $@learning_rate]
"""


def write(folder: Path, **files: str) -> Path:
    """Write configuration files; returns the last one."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{name}.yaml"


def changed(folder: Path, text: str) -> dict:
    return load_config(write(folder, root=ROOT, own=f"bases: [root.yaml]\n{text}"))


def test_a_file_comes_after_its_bases_and_each_comes_once(tmp_path: Path):
    left, right = "bases: [root.yaml]\nlearning_rate: 0.2", "bases: root.yaml\nlearning_rate: 0.3"
    own = write(tmp_path, root=ROOT, left=left, right=right, own="bases: [left.yaml, right.yaml]")
    assert [path.name for path in config_files(own)] == ["root.yaml", "left.yaml", "right.yaml", "own.yaml"]
    assert load_config(own)["learning_rate"] == 0.3
    assert config_files([tmp_path / "root.yaml", own])[0].name == "root.yaml"


def test_a_key_reaches_into_a_block(tmp_path: Path):
    config = changed(tmp_path, "train::loss::delta: 3.0\n+train::steps: [3]\ntrain#loss#reduction: sum")
    assert config["train"]["loss"] == {"_target_": "torch.nn.HuberLoss", "delta": 3.0, "reduction": "sum"}
    assert config["train"]["steps"] == [1, 2, 3]
    assert "bases" not in config


def test_a_block_of_another_class_replaces_one(tmp_path: Path):
    config = changed(tmp_path, "train::loss: {_target_: torch.nn.L1Loss}")
    assert config["train"]["loss"] == {"_target_": "torch.nn.L1Loss"}


def test_a_new_key_that_something_refers_to(tmp_path: Path):
    config = changed(tmp_path, "train::period: 3\nsize: 2\nlearning_rate: $@size * @train::period")
    assert config["train"]["period"] == 3


def test_a_later_file_may_replace_the_reference_to_a_key(tmp_path: Path):
    own = write(
        tmp_path, root=ROOT, middle="bases: [root.yaml]\nsize: 2\nlearning_rate: $@size", own="learning_rate: 1"
    )
    assert load_config([tmp_path / "middle.yaml", own])["learning_rate"] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train::los::delta: 3", "own.yaml train::los::delta reaches nothing train::loss::delta"),
        ("train::loss::delt: 3", "own.yaml train::loss::delt torch.nn.HuberLoss has no delt"),
        ("learning_rat: 3", "own.yaml learning_rat nothing refers did you mean learning_rate"),
        ("train::perid: 3", "own.yaml train::perid nothing refers"),
        ("+train::stages: [3]", "own.yaml +train::stages expected a list"),
        ("+train::steps: 3", "own.yaml +train::steps adds a int expected a list"),
        ("train::steps::7: 3", "own.yaml train::steps::7 reaches nothing"),
        ("train: {loss: {delta: 3}}", "own.yaml train would remove steps"),
        ("train::loss: {_target_: torch.nn.HuberLoss, delta: 3}", "own.yaml train::loss would remove reduction"),
        ("+train: {los: 3}", "own.yaml train::los nothing refers"),
        ("+train::loss: {delt: 3}", "own.yaml train#loss#delt torch.nn.HuberLoss has no delt"),
        (
            "other: {_target_: torch.nn.HuberLoss, delt: 3}\nrun: $@other",
            "own.yaml other torch.nn.HuberLoss delt delta?",
        ),
        ("learning_rate: 1e-3", "own.yaml learning_rate text '1e-3' 1.0e-03"),
        ("learning_rate: 1\nlearning_rate: 2", "own.yaml Duplicate learning_rate"),
        ("3: 4", "own.yaml 3 is not an id"),
        ("yes: 4", "own.yaml True is not an id"),
        ("'train:::loss': 4", "own.yaml train:::loss is not an id"),
        ("inference: null", "own.yaml inference None expected a mapping"),
        ("bases: {a: b}", "own.yaml bases expected the name of a base"),
        ("bases: 3", "own.yaml bases 3 expected the name of a base"),
        ("bases: [flow]", "own.yaml bases flow did you mean flows"),
        ("bases: [own]", "own.yaml bases own did you mean own.yaml"),
        ("# nothing", "own.yaml is empty"),
        ("bases: [rot]", "own.yaml bases rot does not exist common flows"),
        ("bases: [rot.yaml]", "own.yaml bases rot.yaml does not exist"),
        ("bases: [own.yaml]", "own.yaml bases circle own.yaml -> own.yaml"),
        ("a: [", "own.yaml cannot be read"),
        ("- a", "own.yaml expected a mapping got list"),
    ],
)
def test_errors_name_file_and_key(tmp_path: Path, text: str, words: str):
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, own=text)) if text[:5] in ("bases", "- a", "# not") else changed(tmp_path, text)
    assert "did you mean learning_rat " not in str(error.value)
    assert [word for word in words.split() if word not in str(error.value)] == []


def test_a_circle_of_several_files(tmp_path: Path):
    own = write(tmp_path, a="bases: [b.yaml]", b="bases: [own.yaml]", own="bases: [a.yaml]")
    with pytest.raises(ConfigError, match=r"own.yaml -> a.yaml -> b.yaml -> own.yaml"):
        load_config(own)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(ConfigError, match="no configuration file"):
        load_config(tmp_path / "none.yaml")


def test_without_bases_a_key_cannot_reach_into_a_block(tmp_path: Path):
    with pytest.raises(ConfigError, match="reaches nothing"):
        load_config(write(tmp_path, own="train::loss: 3"))


def test_handlers_become_blocks_where_they_are_listed():
    config = {
        "bases": ["common"],
        "inference": {},
        "train": {
            "early": {"_target_": "A"},
            "late": {"_target_": "B"},
            "handlers": ["@train#late", {"_target_": "C"}],
        },
        "validate": {"handlers": ["@train#early", "@progress"]},
        "progress": {"_target_": "D"},
        "handlers": ["@progress"],
    }
    finish_config(config)
    assert config == {
        "train": {"handlers": [{"_target_": "B"}, {"_target_": "C"}]},
        "validate": {"handlers": [{"_target_": "A"}, {"_target_": "D"}]},
        "handlers": [{"_target_": "D"}],
    }


def test_what_follows_a_bundles_own_file_counts_as_options(tmp_path: Path):
    own = write(tmp_path, root=ROOT, hyper_parameters="bases: [root.yaml]\nlearning_rate: 1")
    more = write(tmp_path, more="bases: [hyper_parameters.yaml]\nlearning_rate: 2")
    assert further_options(own) == {}
    assert further_options(more) == further_options([own, more]) == {"learning_rate": 2}
    assert further_options([tmp_path / "root.yaml", write(tmp_path, other="learning_rate: 3")]) == {"learning_rate": 3}


def test_only_monais_message_about_folders_is_dropped(caplog: pytest.LogCaptureFixture):
    log = logging.getLogger("monai.bundle.workflows")
    with quiet_about_folders():
        log.warning("Not all config files are in x")
        log.warning("another")
    log.warning("Not all config files are in y")
    assert [record.getMessage() for record in caplog.records] == ["another", "Not all config files are in y"]


def test_a_base_serves_at_least_two_bundles():
    files = [config_files(bundle / "configs" / "hyper_parameters.yaml") for bundle in BUNDLES]
    users = Counter(path.stem for paths in files for path in paths[:-1])
    assert users.keys() == base_files().keys()
    assert min(users.values()) >= 2


def test_configurations_stay_short():
    files = [*REPOSITORY.glob("bundles/*/configs/*.yaml"), *base_files().values()]
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in lines) <= 1200
