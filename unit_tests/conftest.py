"""Fixtures of all tests: real images, where there are some, and no bundles but those of the repository."""

import os
import shutil
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # the processes share the cores; read when PyTorch is imported
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

from cellbundle.tracking import Tracker


@pytest.fixture(scope="session", autouse=True)
def no_installed_bundles(tmp_path_factory):
    """Bundles that a developer has installed would hide those of the repository."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data_home")))
        patch.delenv("CELLBUNDLE_BUNDLES", raising=False)
        yield


@pytest.fixture
def real_data():
    """Call it with the parts of a path in ``$CELLBUNDLE_TEST_DATA``: the path, or the test is skipped without it."""
    root = os.environ.get("CELLBUNDLE_TEST_DATA")

    def find(*parts):
        if not root or not Path(root, *parts).exists():
            pytest.skip(f"CELLBUNDLE_TEST_DATA has no {'/'.join(parts)}")
        return Path(root, *parts)

    return find


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """Making the tables takes seconds."""
    path = tmp_path_factory.mktemp("database") / "empty.db"
    pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(empty_database, tmp_path):
    shutil.copyfile(empty_database, tmp_path / "runs.db")
    return f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture
def client(uri):
    return pytest.importorskip("mlflow").MlflowClient(uri)


@pytest.fixture
def make_tracker(uri, tmp_path):
    def make_one(address: str | None = uri, folder: str = "tracking", **options) -> Tracker:
        return Tracker(address, "cells", folder=tmp_path / folder, **options)

    return make_one
