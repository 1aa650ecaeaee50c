"""Packages of the small bundle for a user who has installed nothing."""

import pytest
from unit_tests.datasets.conftest import server  # noqa: F401 - a fixture
from unit_tests.packages.installing import make_package, with_metadata
from unit_tests.packages.packaging import package_bundle, write_files


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Folder of the bundles that a new user installs; the core in packages becomes one small file."""
    monkeypatch.delenv("CELLBUNDLE_BUNDLES", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    write_files(tmp_path / "core", {"__init__.py": '__version__ = "0"\n'})
    monkeypatch.setattr(package_bundle, "CORE", tmp_path / "core")
    return tmp_path / "data" / "cellbundle" / "bundles"


@pytest.fixture
def archive(home, tmp_path):
    return make_package(tmp_path)


@pytest.fixture
def newer(home, tmp_path):
    return make_package(tmp_path / "newer", with_metadata(version="2.0.0"))
