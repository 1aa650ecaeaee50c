"""A tiny cell_unet on tiny synthetic images, for everything that needs a whole workflow."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cellbundle.engine import roots
from cellbundle.engine.workflow import CellWorkflow
from cellbundle.synthetic import write_dataset

from .. import forked

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "cell_unet"
SMALL = {
    "network_def#features": [8, 8],
    "crops_per_epoch": 8,
    "batch_size": 4,
    "roi_size": [32, 32],
    "num_workers": 0,
    "device_name": "cpu",
    "final_test": False,
    "train#trainer#max_epochs": 2,
    "weights_dtype": "float32",
}
START = ("-m", "monai.bundle", "run_workflow", "scripts.workflow.CellUNet")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), n_training=4, n_testing=3, size=(64, 72), seed=0)


@pytest.fixture
def make(data: Path, tmp_path: Path):
    def make_workflow(folder: str = "run", **options: Any) -> CellWorkflow:
        files = {"ckpt_path": str(tmp_path / folder), "output_dir": str(tmp_path / folder / "eval")}
        options = {"datalist": str(data), "basedir": str(data.parent), **files, **SMALL, **options}
        config = str(BUNDLE / "configs" / "hyper_parameters.yaml")
        workflow = CellWorkflow(config_file=config, **{"logging_file": False, **options})
        workflow.initialize()
        return workflow

    return make_workflow


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty file system in memory, for roots that are elsewhere."""
    monkeypatch.setenv("CELLBUNDLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(roots, "RETRIES", (0,))
    files = pytest.importorskip("fsspec").filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    return files


@pytest.fixture
def command(data: Path, tmp_path: Path):
    """Runs the bundle as users do: in its folder, in a process of its own."""

    def run(
        *options: str, launcher: tuple[str, ...] = (sys.executable,), processes: int = 1, start: tuple[str, ...] = START
    ) -> subprocess.CompletedProcess[str]:
        small = [item for key, value in SMALL.items() for item in (f"--{key}", str(value))]
        where = ["--datalist", str(data), "--basedir", str(data.parent)]
        files = ["--ckpt_path", str(tmp_path / "run"), "--output_dir", str(tmp_path / "run" / "eval")]
        config = ["--config_file", "configs/hyper_parameters.yaml"]
        line = [*launcher, *start, *config, *where, *files, *small, *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        if launcher != (sys.executable,):
            return subprocess.run(
                line, cwd=BUNDLE, env=environment, capture_output=True, text=True, timeout=600, check=False
            )
        return forked.run(line, BUNDLE, environment, processes=processes)

    return run
