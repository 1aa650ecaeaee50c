"""Published images, for the tests that prepare a data set, and synthetic ones for those of bundles."""

from pathlib import Path

import pytest
from unit_tests.datasets.conftest import stage1  # noqa: F401 - a fixture

from cellbundle.synthetic import write_dataset


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datalist of a data set that tests share: they may add files to its folder, and change none."""
    return write_dataset(tmp_path_factory.mktemp("data"), n_training=8, n_testing=2, size=(96, 128), seed=0)
