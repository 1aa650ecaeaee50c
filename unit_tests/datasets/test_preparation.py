"""A preparation goes on where it was stopped, loses nothing, and says what is wrong."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from monai.auto3dseg.utils import datafold_read

from cellbundle.datalist import read_datalist
from cellbundle.datasets import convert, facts, prepare, source, verify
from cellbundle.errors import ConfigError, DatasetError

WEB_PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


def run(raw, output, **options):
    return prepare("dsb2018", raw, output, **{"workers": 1} | options)


def state(folder):
    """Content and time of every file that people see."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".cellbundle" not in path.parts]
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def contents(folder):
    return {name: content for name, (content, _) in state(folder).items()}


def images(folder):
    return {name: found for name, found in state(folder).items() if name.startswith(("images/", "labels/"))}


def test_a_list_that_every_bundle_and_monai_read(twelve, tmp_path):
    prepared = run(twelve, tmp_path / "out", n_folds=3)
    read = read_datalist(tmp_path / "out/dsb2018.json", tmp_path / "out")
    assert [len(read[section]) for section in ("training", "testing")] == [10, 2]
    training, validation = datafold_read(str(tmp_path / "out/dsb2018.json"), str(tmp_path / "out"), fold=1)
    assert len(training) + len(validation) == 10
    assert {Path(entry["image"]).name for entry in validation} == {
        f"{item.name}.png" for item in prepared.items if item.fold == 1
    }
    content = json.loads((tmp_path / "out/dsb2018.json").read_text())
    names = [entry["image"] for entry in content["training"]]
    assert names == sorted(names)
    assert set(content["training"][0]) == {"image", "label", "fold", "group"}
    assert set(content["testing"][0]) == {"image", "label", "group"}


def test_neither_order_nor_processes_change_a_byte(twelve, tmp_path, shuffled_listing):
    run(twelve, tmp_path / "out")
    expected = contents(tmp_path / "out")
    for seed in range(2):
        shuffled_listing(seed)
        run(twelve, tmp_path / f"out{seed}", workers=2)
        assert contents(tmp_path / f"out{seed}") == expected


def test_a_second_run_touches_no_image(twelve, tmp_path):
    run(twelve, tmp_path / "out")
    before = state(tmp_path / "out")
    run(twelve, tmp_path / "out")
    after = state(tmp_path / "out")
    assert images(tmp_path / "out") == {name: before[name] for name in images(tmp_path / "out")}
    assert {name: content for name, (content, _) in before.items()} == {
        name: content for name, (content, _) in after.items()
    }


def test_damaged_and_missing_outputs_and_changed_sources_are_made_anew(twelve, tmp_path):
    run(twelve, tmp_path / "out")
    before = state(tmp_path / "out")
    (tmp_path / "out/labels/03aa.tif").write_bytes(b"damaged")
    (tmp_path / "out/images/04aa.png").unlink()
    (twelve / "stage1_train/02aa/masks" / f"{7:064x}.png").unlink()
    prepared = run(twelve, tmp_path / "out")
    after = state(tmp_path / "out")
    changed = {Path(name).stem for name in images(tmp_path / "out") if before[name][1] != after[name][1]}
    assert changed == {"02aa", "03aa", "04aa"}
    assert after["labels/03aa.tif"][0] == before["labels/03aa.tif"][0]
    assert prepared.records["02aa"].instances == 2
    assert verify(tmp_path / "out") == []


def test_a_run_that_is_killed_leaves_no_half_file_and_goes_on(stage1, tmp_path):
    y, x = np.indices((200, 200))
    masks = [(y // 10 == i // 20) & (x // 10 == i % 20) for i in range(60)]
    raw = stage1(tmp_path / "raw", {f"{n:02d}": masks for n in range(60)})
    arguments = f"'dsb2018', {str(raw)!r}, {str(tmp_path / 'out')!r}, workers=1"
    code = f"from cellbundle.datasets import prepare; prepare({arguments})"
    journal = tmp_path / "out/.cellbundle/journal.jsonl"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (journal.exists() and journal.read_text().count("\n") > 5):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    lines = journal.read_text().splitlines()
    finished = {json.loads(line)["name"] for line in lines if line.endswith("}")}
    assert 0 < len(finished) < 60
    journal.write_text(journal.read_text() + '{"name": "torn')
    before = state(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.json"))
    run(raw, tmp_path / "out")
    after = images(tmp_path / "out")
    assert all(after[f"labels/{name}.tif"] == before[f"labels/{name}.tif"] for name in finished)
    run(raw, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert not [path for path in (tmp_path / "out").rglob(".*.*") if path.is_file()]


def test_folds_do_not_change_when_a_broken_image_is_repaired(twelve, tmp_path):
    image = twelve / "stage1_train/07aa/images/07aa.png"
    content = image.read_bytes()
    image.write_bytes(content[:60])
    broken = run(twelve, tmp_path / "out")
    assert [problem.name for problem in broken.problems] == ["07aa"]
    assert "07aa" in (tmp_path / "out/failures.csv").read_text()
    assert "\nfailures.csv," in (tmp_path / "out/manifest.csv").read_text()
    image.write_bytes(content)
    whole = run(twelve, tmp_path / "out")
    assert not (tmp_path / "out/failures.csv").exists()
    places = {item.name: (item.section, item.fold) for item in whole.items}
    assert {item.name: (item.section, item.fold) for item in broken.items} == {
        name: place for name, place in places.items() if name != "07aa"
    }


def test_copies_of_an_image_come_into_one_place(twelve, tmp_path):
    for n in range(2, 8):
        shutil.copy(
            twelve / "stage1_train/01aa/images/01aa.png", twelve / f"stage1_train/{n:02d}aa/images/{n:02d}aa.png"
        )
    prepared = run(twelve, tmp_path / "out")
    assert len({(item.section, item.fold) for item in prepared.items if "01aa" <= item.name <= "07aa"}) == 1
    assert prepared.leaks == []


def test_names_that_differ_in_case_only_are_errors(twelve, tmp_path):
    shutil.copytree(twelve / "stage1_train/03aa", twelve / "stage1_train/03AA")
    prepared = run(twelve, tmp_path / "out")
    assert [problem.name for problem in prepared.problems] == ["03AA and 03aa"]
    assert len(prepared.items) == 11


def test_names_with_all_letters_work(stage1, tmp_path):
    raw = stage1(tmp_path / "raw", {"Zelle übergroß 細胞": [np.eye(9, dtype=bool)], "b": [np.eye(9, dtype=bool)]})
    run(raw, tmp_path / "out", n_folds=2)
    read_datalist(tmp_path / "out/dsb2018.json", tmp_path / "out")
    assert "Zelle übergroß 細胞" in (tmp_path / "out/dsb2018.json").read_text(encoding="utf-8")
    assert verify(tmp_path / "out") == []


def test_published_defects_are_left_out_and_counts_compared(twelve, tmp_path, monkeypatch):
    known = facts.read_facts("dsb2018")
    changed = facts.Facts(**{**vars(known), "excluded": {"05aa": "its mask shows another image"}})
    monkeypatch.setattr("cellbundle.datasets.preparation.read_facts", lambda name: changed)
    prepared = run(twelve, tmp_path / "out")
    assert "05aa" not in prepared.records
    assert prepared.remarks[:2] == [
        "12 images found, 670 are published",
        "05aa is left out: its mask shows another image",
    ]


def test_results_may_lie_in_the_published_folder(twelve):
    first = contents((run(twelve, twelve / "out")).folder)
    assert contents((run(twelve, twelve / "out")).folder) == first


def test_folders_that_hold_something_else_are_refused(twelve, tmp_path):
    with pytest.raises(ConfigError, match="holds the published files"):
        run(twelve, twelve)
    (tmp_path / "mine/images").mkdir(parents=True)
    with pytest.raises(ConfigError, match="not ours"):
        run(twelve, tmp_path / "mine")
    run(twelve, tmp_path / "out")
    with pytest.raises(ConfigError, match="holds the data set dsb2018"):
        prepare("yeaz", twelve, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "stage2"}, "has no variant 'stage2'; choose one of: auto, stage1, stardist"),
        ({"n_folds": 1}, "n_folds is 1"),
        ({"workers": 0}, "workers is 0"),
        ({"options": {"folds": 3}}, "has no option folds; its options are: none"),
    ],
)
def test_wrong_options_are_named(options, message, twelve, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run(twelve, tmp_path / "out", **options)


def test_another_data_set_is_recognised(tmp_path):
    for part in ("original", "mask"):
        (tmp_path / "raw/train" / part).mkdir(parents=True)
        (tmp_path / "raw/train" / part / "a.png").write_bytes(b"x")
        (tmp_path / "raw/test" / part).mkdir(parents=True)
        (tmp_path / "raw/test" / part / "b.png").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"does not hold 2018 Data Science Bowl.*It looks like bccd"):
        run(tmp_path / "raw", tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WEB_PAGE, "web page"),
        (b"", "is empty"),
        (b"PK\x03\x04 cut off", "damaged or incomplete"),
        (b"text", "not a zip"),
    ],
)
def test_what_is_no_archive_is_explained_and_the_right_one_continues(content, message, twelve, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "stage1_train.zip").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        run(packed, tmp_path / "out")
    with zipfile.ZipFile(packed / "stage1_train.zip", "w") as archive:
        for path in twelve.rglob("*.png"):
            archive.write(path, path.relative_to(twelve / "stage1_train"))
    assert len(run(packed, tmp_path / "out").items) == 12


def test_numbers_that_start_again_do_not_make_an_archive_seem_extracted(tmp_path):
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "000_img.png").write_text(folder)
        with zipfile.ZipFile(tmp_path / f"{folder}.zip", "w") as archive:
            archive.writestr("000_img.png", folder)
    shutil.rmtree(tmp_path / "test")
    files = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    assert source._is_extracted(tmp_path / "train.zip", files)
    assert not source._is_extracted(tmp_path / "test.zip", files)


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(twelve, tmp_path, monkeypatch):
    written = []
    write = convert.write_labels

    def fail(path, labels):
        if len(written) == 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        write(path, labels)

    monkeypatch.setattr(convert, "write_labels", fail)
    with pytest.raises(DatasetError, match="no space left; make room, and the same command goes on"):
        run(twelve, tmp_path / "out")
    monkeypatch.undo()
    before = images(tmp_path / "out")
    assert len(run(twelve, tmp_path / "out").items) == 12
    assert all(images(tmp_path / "out")[f"labels/{path.name}"] == before[f"labels/{path.name}"] for path in written)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(twelve, tmp_path):
    (twelve / "stage1_train/01aa/images/01aa.png").chmod(0)
    prepared = run(twelve, tmp_path / "out")
    assert [problem.name for problem in prepared.problems] == ["01aa"]
    assert "Permission denied" in prepared.problems[0].reason


def test_nothing_there_says_where_to_get_it(tmp_path):
    with pytest.raises(DatasetError, match=r"Get stage1_train\.zip.* from https://bbbc"):
        run(tmp_path / "missing", tmp_path / "out")


def test_missing_files_are_fetched_only_where_no_login_is_needed(twelve, tmp_path, monkeypatch):
    def fetch(url, target, **options):
        with zipfile.ZipFile(target, "w") as archive:
            for path in twelve.rglob("*.png"):
                archive.write(path, path.relative_to(twelve / "stage1_train"))

    monkeypatch.setattr(source, "fetch", fetch)
    assert len(run(tmp_path / "raw", tmp_path / "out", fetch=True).items) == 12
    with pytest.raises(DatasetError, match="cannot be fetched without you"):
        prepare("sartorius", tmp_path / "none", tmp_path / "out2", fetch=True)
