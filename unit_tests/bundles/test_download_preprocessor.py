"""The data sets on MONAI's command line."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from .. import forked

ROOT = Path(__file__).parents[2] / "download_preprocessor"

pytestmark = pytest.mark.slow


def run(*options, config="dsb2018"):
    """``monai.bundle run_workflow`` as the README has it."""
    command = [sys.executable, "-m", "monai.bundle", "run_workflow", "scripts.workflow.PreprocessDataset"]
    command += ["--config_file", f"configs/{config}.yaml", *map(str, options)]
    return forked.run(command, ROOT)


@pytest.fixture
def raw(stage1, tmp_path):
    """Six published images of one nucleus."""
    return stage1(tmp_path / "raw", {f"{n}a": [np.eye(20, dtype=bool)] for n in range(6)})


def test_one_command_prepares_a_data_set(raw, tmp_path):
    done = run("--raw_dir", raw, "--output_dir", tmp_path / "out", "--n_folds", 2)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out/dsb2018.json").read_text())
    assert {entry["fold"] for entry in content["training"]} == {0, 1}
    assert "all: 6 images, 6 groups, 6 instances" in done.stderr


def test_broken_pairs_end_with_an_error_after_all_else_is_written(raw, tmp_path):
    next((raw / "stage1_train/3a/masks").iterdir()).unlink()
    done = run("--raw_dir", raw, "--output_dir", tmp_path / "out")
    assert done.returncode != 0
    assert re.match(r"cellbundle\.errors\.DatasetError: 1 images.* 3a:", done.stderr.strip().splitlines()[-1])
    assert len(list((tmp_path / "out/labels").iterdir())) == 5


def test_a_misspelt_option_is_an_error_that_suggests_the_right_one(raw, tmp_path):
    done = run("--raw_dir", raw, "--out_dir", tmp_path / "out")
    assert done.returncode != 0
    assert "--output_dir" in done.stderr.strip().splitlines()[-1]


def test_without_folders_it_says_which_options_are_missing():
    done = run()
    assert done.returncode != 0
    assert "--raw_dir DIR --output_dir DIR" in done.stderr.strip().splitlines()[-1]
