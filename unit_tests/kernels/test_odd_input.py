"""Odd and bad input ends in an exact answer or a clear error, never in a crash or a write out of bounds.

Each function runs in a process of its own, in which numba checks the bounds of every array access.
"""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "odd_input.py"
FUNCTIONS = runpy.run_path(str(SCRIPT))["FUNCTIONS"]


def run(command, environment):
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """With a cache of its own: machine code without the checks lies in the usual one."""
    return os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path_factory.mktemp("numba"))}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_exact_answer_or_value_error(function, environment):
    done = run([sys.executable, SCRIPT, function], environment)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert len(outcomes) > 15
    for name, outcome in outcomes.items():
        if name.startswith("bad"):
            assert outcome.startswith("ValueError"), (name, outcome)
            assert "dtype" in outcome, (name, outcome)
            assert "shape" in outcome, (name, outcome)
        else:
            assert outcome == "equal", (name, outcome)


def test_bounds_are_checked(environment):
    code = "import numpy as np; from cellbundle.kernels.runs import label_runs; label_runs(np.full(4, 9, np.int32), 2)"
    done = run([sys.executable, "-c", code], environment)
    assert "IndexError" in done.stderr
