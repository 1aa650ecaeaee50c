"""Where bundles are found, where their results go, and bundles of another version of the core."""

import logging
import os
from pathlib import Path

import pytest

from cellbundle import __version__, bundles
from cellbundle.bundles import (
    describe_bundle,
    find_bundle,
    in_wheel,
    list_bundles,
    results_root,
    search_folders,
    version_conflict,
    warn_of_version_conflict,
)


def make_bundle(folder, name="tiny"):
    (folder / name / "configs").mkdir(parents=True)
    (folder / name / "configs" / "inference.json").write_text("{}")
    (folder / name / "configs" / "metadata.json").write_text('{"version": "1", "description": ""}')
    return folder / name


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folder of each place that bundles are looked up in, in the order of the look-up."""
    names = {"CELLBUNDLE_BUNDLES": "given", "installed": "data/cellbundle/bundles", "checkout": "checkout/bundles"}
    places = {source: tmp_path / name for source, name in names.items()}
    places["wheel"] = tmp_path / "site-packages" / "cellbundle" / "_bundles"
    for place in places.values():
        place.mkdir(parents=True)
    monkeypatch.setenv("CELLBUNDLE_BUNDLES", str(places["CELLBUNDLE_BUNDLES"]))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(bundles, "REPOSITORY_BUNDLES", places["checkout"])
    monkeypatch.setattr(bundles, "WHEEL_BUNDLES", places["wheel"])
    monkeypatch.chdir(tmp_path)
    return places


def test_the_first_place_with_a_bundle_is_taken(places):
    assert search_folders() == list(places.values())
    for source, place in reversed(places.items()):
        root = make_bundle(place)
        assert find_bundle("tiny") == root
        assert [(info.path, info.source) for info in list_bundles()] == [(root, source)]


def test_a_path_comes_before_all_places(places, tmp_path):
    make_bundle(places["CELLBUNDLE_BUNDLES"])
    root = make_bundle(tmp_path)
    assert find_bundle("tiny") == root
    assert describe_bundle(root).source == "path"


def test_places_that_are_missing_are_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(bundles, "REPOSITORY_BUNDLES", tmp_path / "none")
    assert tmp_path / "none" not in search_folders()


def test_results_go_to_the_bundle_where_it_is_the_users(tmp_path):
    root = make_bundle(tmp_path)
    assert not in_wheel(root)
    assert results_root(root) == results_root(str(root)) == str(root)
    assert results_root("not made yet") == "not made yet"


def test_results_of_a_bundle_in_a_wheel_go_to_the_working_directory(places, monkeypatch):
    root = make_bundle(places["wheel"])
    assert in_wheel(root)
    assert results_root(root) == "."
    monkeypatch.chdir(root)
    assert results_root(".") == "."


def test_results_of_a_bundle_that_cannot_be_written_go_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert results_root(make_bundle(tmp_path)) == "."


def write_version(core: Path, version: str) -> None:
    core.mkdir(parents=True, exist_ok=True)
    (core / "version.py").write_text(f'"""Version."""\n\n__version__ = "{version}"\n')


def test_a_bundle_of_a_checkout_of_another_version_is_named(places, caplog):
    root = make_bundle(places["checkout"])
    checkout = places["checkout"].parent
    assert version_conflict(root) == ""  # no core beside it
    write_version(checkout / "scripts" / "cellbundle", __version__)
    assert version_conflict(root) == ""
    write_version(checkout / "scripts" / "cellbundle", "9.8.7")
    conflict = version_conflict(root)
    for part in ("9.8.7", str(root), __version__, str(bundles.CORE), f"pip install -e {checkout}"):
        assert part in conflict
    with caplog.at_level(logging.WARNING):
        warn_of_version_conflict(root)
        warn_of_version_conflict(root)
    assert caplog.messages == [conflict]


def test_a_bundle_of_another_wheel_is_named(places):
    root = make_bundle(places["wheel"])
    write_version(places["wheel"].parent, "9.8.7")
    assert "9.8.7" in version_conflict(root)


def test_a_package_runs_its_own_core(places):
    root = make_bundle(places["checkout"].parent / "dist")
    write_version(places["checkout"].parent / "scripts" / "cellbundle", "9.8.7")
    write_version(root / "scripts" / "cellbundle", "9.8.6")
    assert version_conflict(root) == ""


def test_a_bundle_at_the_root_of_the_file_system():
    assert version_conflict(Path("/none")) == ""
