import pytest

from cellbundle.engine.overrides import check_overrides, choose, config_ids, convert_switches
from cellbundle.errors import ConfigError

CONFIG = {
    "learning_rate": 0.1,
    "train": {
        "trainer": {"_target_": "SupervisedTrainer", "max_epochs": 5},
        "handlers": ["@a", {"_target_": "StatsHandler"}],
    },
    "network_def": {"_target_": "monai.networks.nets.UNet", "channels": [1, 2]},
}


def test_config_ids():
    config = {"a": {"b": [1, {"c": 2}]}, "d": None}
    assert config_ids(config) == ["a", "a#b", "a#b#0", "a#b#1", "a#b#1#c", "d"]


@pytest.mark.parametrize(
    "name",
    [
        "learning_rate",
        "train#trainer#max_epochs",
        "train::trainer::max_epochs",
        "+train#handlers",
        "train#handlers#1#_target_",
        "train#handlers#1#_disabled_",
        "train#trainer#accumulation_steps",  # not in the configuration, but a parameter of SupervisedTrainer
        "network_def#strides",
        "network_def#channels#1",
    ],
)
def test_known(name):
    check_overrides(CONFIG, [name])


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("learning_rat", "--learning_rate"),
        ("max_epochz", None),
        ("train#trainer#max_epochz", "--train#trainer#max_epochs"),
        ("train::trainer::max_epoch", "--train#trainer#max_epochs"),
        ("trian#trainer#max_epochs", "--train#trainer#max_epochs"),
        ("train#trainer#accumulation_step", "--train#trainer#accumulation_steps"),
        ("network_def#chanels", "--network_def#channels"),
        ("learning_rate#value", "--learning_rate"),
    ],
)
def test_misspelt(name, suggestion):
    with pytest.raises(ConfigError, match=f"--{name} .*known option") as error:
        check_overrides(CONFIG, [name])
    if suggestion:
        assert suggestion in str(error.value)


def test_text_becomes_switches():
    config = {"amp": True, "train": {"step": {"clip": False}}, "name": "auto", "enabled": "@amp"}
    given = {"amp": "false", "train::step::clip": "True", "name": "auto", "enabled": "FALSE", "amp#x": "$False", "n": 3}
    expected = {**given, "amp": False, "train::step::clip": True, "enabled": False}
    assert convert_switches(config, given) == expected


def test_other_text_for_a_switch_is_refused():
    with pytest.raises(ConfigError, match=r"--amp.*'off'.*true or false"):
        convert_switches({"amp": True}, {"amp": "off"})


def test_choices():
    assert choose("image_mode", "tile", {"tile": 1, "resize": 2}) == 1
    with pytest.raises(ConfigError, match=r"image_mode.*'tiles'.*tile, resize"):
        choose("image_mode", "tiles", {"tile": 1, "resize": 2})
