"""The bundles in a real server of MONAI Label, where scripts/monailabel_check.sh has made its environment."""

import subprocess
import sys

import pytest
from unit_tests.packages.packaging import ROOT

ENVIRONMENT = ROOT / ".venv-monailabel"


@pytest.mark.consumer
@pytest.mark.slow
def test_every_bundle_infers_and_trains():
    if not (ENVIRONMENT / "installed").is_file():
        pytest.skip("there is no environment with MONAI Label; scripts/monailabel_check.sh makes it")
    command = [sys.executable, "scripts/monailabel_check.py", "--environment", str(ENVIRONMENT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed, 0 failed" in done.stdout
