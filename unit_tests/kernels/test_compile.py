"""Where the machine code of the kernels is kept, and which processes they work in."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

import cellbundle
from cellbundle.decode.flows import decode_flows
from cellbundle.decode.hover import decode_hover
from cellbundle.instances.measure import measure
from cellbundle.instances.overlaps import labels_to_rles
from cellbundle.instances.polygons import outlines
from cellbundle.kernels import compile as compiling
from cellbundle.metrics import image_scores
from cellbundle.synthetic import generate
from cellbundle.targets.flows import labels_to_flows
from cellbundle.targets.hover import labels_to_hover

CODE = """
import numpy as np, cellbundle
from cellbundle.targets.flows import labels_to_flows
print(cellbundle.__file__)
print(labels_to_flows(np.ones((3, 3), int))[0, :, 1].tolist())
"""


@pytest.fixture
def read_only_installation(tmp_path):
    """A copy of the package and an environment in which numba finds no folder to write to, even for root."""
    package = tmp_path / "site" / "cellbundle"
    shutil.copytree(Path(cellbundle.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "kernels" / "__pycache__").touch()  # a file, so that no folder of that name can be made
    nowhere = str(tmp_path / "file")
    Path(nowhere).touch()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    cleared = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    return cleared | {
        "PYTHONPATH": str(package.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": nowhere,
        "XDG_CACHE_HOME": nowhere,
        "TMPDIR": str(temporary),
    }


def run_code(environment):
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    file, flows = done.stdout.splitlines()
    assert file.startswith(environment["PYTHONPATH"])
    assert flows == "[1.0, 0.0, -1.0]"


def cached(folder):
    return sorted(path.name for path in Path(folder).rglob("*.nbi"))


def test_a_read_only_installation_keeps_its_code_in_the_temporary_folder(read_only_installation):
    temporary = Path(read_only_installation["TMPDIR"])
    run_code(read_only_installation)
    (folder,) = temporary.iterdir()
    first = cached(folder)
    assert any("instance_flows" in name for name in first)
    assert not folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nb*")}
    run_code(read_only_installation)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.nb*")} == written


def test_a_folder_that_others_can_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(compiling.tempfile, "tempdir", str(tmp_path))
    folder = Path(compiling._private_folder())
    assert folder == Path(compiling._private_folder())
    folder.chmod(0o777)
    assert Path(compiling._private_folder()) != folder


def test_without_any_folder_the_kernels_still_compile(monkeypatch):
    def njit(**options):
        if "cache" in options:
            raise RuntimeError("no locator available")
        return lambda function: function

    def fail():
        raise OSError("read-only file system")

    monkeypatch.setattr(compiling.numba, "njit", njit)
    monkeypatch.setattr(compiling, "_private_folder", fail)
    assert compiling.kernel(len) is len


class Everything:
    """A data set whose one item is the result of every kernel."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        labels = generate("fluorescence", (128, 160), 20, seed=3)[1]
        flows, distances = labels_to_flows(labels), labels_to_hover(labels)
        logit = np.where(labels > 0, 5, -5)[None]
        return {
            "flows": flows,
            "distances": distances,
            "from flows": decode_flows(np.concatenate([logit, 5 * flows]).astype(np.float32)),
            "from distances": decode_hover(np.concatenate([logit, distances]).astype(np.float32)),
            "scores": image_scores(labels, np.roll(labels, 2, 0)),
            "table": measure(labels).to_numpy(),
            "rles": labels_to_rles(labels),
            "polygons": [[part.exterior for part in parts] for parts in outlines(labels)],
        }


def unchanged(item):
    return item


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_equal_in_loader_workers(method, threads, monkeypatch):
    monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", "2")
    expected = Everything()[0]  # threads have run before the fork
    monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", threads)
    loader = DataLoader(
        Everything(), batch_size=None, num_workers=1, multiprocessing_context=method, timeout=120, collate_fn=unchanged
    )
    (found,) = loader
    for name, value in expected.items():
        np.testing.assert_equal(found[name], value, err_msg=name)
