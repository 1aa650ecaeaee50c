"""A preparation replaces only files that preparations wrote; all others are named before the work starts."""

import json
import shutil

import pytest

from cellbundle.datasets import verify
from cellbundle.errors import ConfigError

from .running import contents, pack, run


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def fill(folder, names):
    """Foreign files; what is in them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")
    return {name: (folder / name).read_text() for name in names}


@pytest.fixture
def names(twelve, tmp_path):
    """Of all files of a preparation, also with a failure."""
    run(twelve, tmp_path / "first")
    return {*files(tmp_path / "first"), "failures.csv"}


@pytest.mark.parametrize("source", ["folder", "archive", "broken", "missing"])
def test_foreign_files_of_every_name_stay(twelve, tmp_path, names, source):
    raw = twelve
    if source == "archive":
        (tmp_path / "packed").mkdir()
        pack(twelve, tmp_path / "packed/stage1_train.zip")
        raw = tmp_path / "packed"
    elif source == "broken":
        (twelve / "stage1_train/03aa/images/03aa.png").write_bytes(b"")
    elif source == "missing":
        raw = tmp_path / "nowhere"
    before = fill(tmp_path / "out", names)
    with pytest.raises(ConfigError, match=r"dsb2018\.json.*--replace-foreign") as refused:
        run(raw, tmp_path / "out")
    assert all(name in str(refused.value) for name in ("dsb2018.json", "report.html", "failures.csv", "manifest.csv"))
    assert "images/00aa.png" in str(refused.value)
    assert {name: (tmp_path / "out" / name).read_text() for name in files(tmp_path / "out")} == before


def test_a_single_foreign_file_is_named_also_in_a_folder_of_results(twelve, tmp_path, names):
    shutil.rmtree(twelve / "stage1_train/03aa")
    shutil.rmtree(tmp_path / "first")
    run(twelve, tmp_path / "out")
    own = contents(tmp_path / "out")
    added = {"images/03aa.png", "labels/03aa.tif", "failures.csv"}
    before = fill(tmp_path / "out", added)
    for number in (3, 11):
        shutil.copytree(twelve / "stage1_train/04aa", twelve / f"stage1_train/{number:02d}aa", dirs_exist_ok=True)
    (twelve / "stage1_train/03aa/images/04aa.png").rename(twelve / "stage1_train/03aa/images/03aa.png")
    (twelve / "stage1_train/11aa/images/04aa.png").unlink()
    for name in sorted(added):
        for other in added - {name}:
            (tmp_path / "out" / other).unlink()
        with pytest.raises(ConfigError, match=f" {name};.*--replace-foreign"):
            run(twelve, tmp_path / "out")
        assert contents(tmp_path / "out") == own | {name: before[name].encode()}
        fill(tmp_path / "out", added)


def test_foreign_files_are_replaced_where_that_is_wanted(twelve, tmp_path, names):
    expected = contents(tmp_path / "first")
    fill(tmp_path / "out", {*names, "images/notes.txt"})
    run(twelve, tmp_path / "out", replace_foreign=True)
    (tmp_path / "out/images/notes.txt").unlink()
    run(twelve, tmp_path / "out")
    assert contents(tmp_path / "out") == expected
    assert verify(tmp_path / "out") == []


def test_results_of_a_former_version_are_our_own(twelve, tmp_path, names):
    (tmp_path / "first/.cellbundle/files.json").unlink()
    before = contents(tmp_path / "first")
    run(twelve, tmp_path / "first")
    assert contents(tmp_path / "first") == before


def test_a_stopped_run_knows_its_own_files(twelve, tmp_path, names):
    folder = tmp_path / "first"
    (folder / "manifest.csv").unlink()
    path = folder / ".cellbundle/journal.jsonl"
    path.write_bytes(path.read_bytes()[:900])  # as after a kill between two files and their line
    run(twelve, folder)
    assert verify(folder) == []


def test_a_list_of_a_subset_is_checked_too(tmp_path, twelve, monkeypatch):
    from cellbundle.datasets import prepared

    monkeypatch.setattr(prepared, "find_subsets", lambda name, items: {name: list(items), f"{name}_x": list(items)})
    fill(tmp_path / "out", ["dsb2018_x.json"])
    with pytest.raises(ConfigError, match=r" dsb2018_x\.json;.*--replace-foreign"):
        run(twelve, tmp_path / "out")
    assert not (tmp_path / "out/images").exists()


def test_half_files_in_a_folder_that_is_not_ours_stay(twelve, tmp_path):
    fill(tmp_path / "out", [f".{'0a' * 16}.png"])
    run(twelve, tmp_path / "out")
    assert (tmp_path / "out" / f".{'0a' * 16}.png").is_file()


def test_foreign_folders_beside_extracted_archives_stay(twelve, tmp_path):
    (tmp_path / "packed").mkdir()
    pack(twelve, tmp_path / "packed/stage1_train.zip")
    fill(tmp_path / "out", [".cellbundle/extracted/mine/notes.txt", ".cellbundle/extracted/old-0123456789ab/a.txt"])
    run(tmp_path / "packed", tmp_path / "out")
    assert sorted(path.name.partition("-")[0] for path in (tmp_path / "out/.cellbundle/extracted").iterdir()) == [
        "mine",
        "stage1_train",
    ]


def test_the_list_has_the_files_that_were_written(out):
    record = json.loads((out / ".cellbundle/files.json").read_text())
    assert set(record["files"]) == set(contents(out))
