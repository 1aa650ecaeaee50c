"""scripts/environment.sh: which packages it installs, with a pip that only notes what it is asked for."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("bash", "cat", "cksum", "uname")
PYTHON = """#!/usr/bin/env bash
case "$*" in
    "-m pip --version") ;;
    "-m pip show"*) exit 1 ;;  # PyTorch is not installed
    *) echo "$*" >> "$LOG" ;;
esac
"""


@pytest.fixture
def source(tmp_path):
    """Function that sources the script in a copy of the repository and returns its calls of pip and its messages."""
    for name in ("pyproject.toml", "requirements.txt", "constraints.txt", "scripts/environment.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    tools, venv = tmp_path / "tools", tmp_path / ".venv" / "bin"
    tools.mkdir()
    venv.mkdir(parents=True)
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name))
    (venv / "python").write_text(PYTHON)
    (venv / "python").chmod(0o755)
    (venv / "activate").write_text('PATH="$PWD/.venv/bin:$PATH"\n')
    log = tmp_path / "log"

    def call(*extras, **environment):
        log.write_text("")
        done = subprocess.run(
            [tools / "bash", "-euo", "pipefail", "-c", 'source scripts/environment.sh "$@"', "bash", *extras],
            cwd=tmp_path,
            env={"PATH": str(tools), "LOG": str(log), "PYTHON": "python", **environment},
            check=True,
            capture_output=True,
            text=True,
        )
        return log.read_text().splitlines(), done.stderr

    return call


def test_it_installs_once(source):
    calls, _ = source()
    assert [call.split()[-1] for call in calls] == ["pip", "requirements.txt"]
    assert source() == ([], "")
    calls, _ = source("test,yolo")
    assert calls[-1].endswith("--constraint constraints.txt --editable .[test,yolo]")
    assert source("test,yolo") == ([], "")


def test_another_index_of_pytorch(source):
    calls, shown = source(TORCH_INDEX="https://example.org/cpu")
    first = "-m pip install --quiet --constraint constraints.txt --index-url https://example.org/cpu torch torchvision"
    assert calls[1] == first
    assert "No NVIDIA GPU" not in shown


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="PyTorch brings GPU libraries on Linux only")
def test_without_a_gpu_it_says_how_to_get_a_smaller_pytorch(source, tmp_path):
    _, shown = source()
    assert "No NVIDIA GPU" in shown
    assert "TORCH_INDEX=" in shown
    (tmp_path / "tools" / "nvidia-smi").symlink_to(shutil.which("true"))
    _, shown = source("test")
    assert "TORCH_INDEX names" in shown
    assert "No NVIDIA GPU" not in shown
