from pathlib import Path

import yaml

from cellbundle.engine.configs.show import config_text

BASE = """# about the file
imports: [$import os]
# data
rate: 1.0e-5                  # peak
size: [1, 2]                  # pixels
steps:                        # in this order
  - "@a"                      # first
  - _target_: B               # second
    value: null               # of B
train:
  # names of others
  depth: 2                    # levels
  width: 3
a: 1
run: $@rate * @size * @steps * @train
"""
OWN = """
bases: [base.yaml]
+imports: [$import re]
rate: 2.0e-5
train::depth: 4               # one more
"""


def texts(folder: Path) -> tuple[str, str]:
    (folder / "base.yaml").write_text(BASE)
    (folder / "own.yaml").write_text(OWN)
    return config_text(folder / "own.yaml", origins=True), config_text(folder / "own.yaml", origins=False)


def test_each_value_with_its_comment_and_file(tmp_path: Path):
    lines = [" ".join(line.split()) for line in texts(tmp_path)[0].splitlines()]
    for line in (
        "imports: [$import os, $import re] # [base.yaml, own.yaml]",
        "# data",
        "rate: 2.0e-05 # peak [own.yaml]",
        "size: [1, 2] # pixels [base.yaml]",
        "steps: # in this order [base.yaml]",
        "- '@a' # first",
        "- _target_: B # second",
        "value: null # of B",
        "# names of others",
        "depth: 4 # levels; one more [own.yaml]",
        "width: 3",
    ):
        assert line in lines
    assert not any("about the file" in line for line in lines)


def test_text_that_yaml_takes_for_another_value_is_in_quotes(tmp_path: Path):
    content = {
        "a": ["off", "on"],
        "b": "12:30:00",
        "c": "1_000",
        "d": float("inf"),
        "e": "a # b",
        "f": "it's",
        "g": "~",
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    text = config_text(tmp_path / "own.yaml", origins=False)
    assert yaml.safe_load(text) == content
    assert "# b'" not in text.replace("a # b'", "")


def test_flat_text_is_the_configuration(tmp_path: Path):
    flat = texts(tmp_path)[1]
    assert "yaml" not in flat
    config = yaml.safe_load(flat)
    assert config["rate"] == 2e-5
    assert config["train"] == {"depth": 4, "width": 3}
    assert config["steps"] == ["@a", {"_target_": "B", "value": None}]
    (tmp_path / "flat.yaml").write_text(flat)
    assert config_text(tmp_path / "flat.yaml", origins=False) == flat
