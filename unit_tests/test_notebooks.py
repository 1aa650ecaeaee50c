"""The notebooks run from top to bottom."""

import json
import sys

import pytest

from .bundles.contract import REPOSITORY, run

NOTEBOOKS = sorted((REPOSITORY / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    """Its code as a program, so that no kernel is needed; a notebook in the repository holds no outputs."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells)
    program = tmp_path / f"{path.stem}.py"
    program.write_text("\n".join("".join(cell["source"]) for cell in cells))
    done = run([sys.executable, str(program)], tmp_path, MPLBACKEND="Agg", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
