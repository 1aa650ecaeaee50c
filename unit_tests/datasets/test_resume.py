"""A preparation goes on where it was stopped, loses nothing, and repairs what was damaged."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cellbundle.datasets import convert, verify
from cellbundle.errors import DatasetError

from ..words import Like
from .running import contents, images, run, state


def test_state_may_be_deleted(twelve, tmp_path):
    first = contents(run(twelve, tmp_path / "out").folder)
    shutil.rmtree(tmp_path / "out/.cellbundle")
    assert contents(run(twelve, tmp_path / "out").folder) == first


def test_damage_that_keeps_size_and_time_is_repaired(twelve, tmp_path):
    before = contents(run(twelve, tmp_path / "out").folder)
    path = tmp_path / "out/labels/03aa.tif"
    times = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    run(twelve, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_half_files_of_a_killed_run_are_removed(twelve, out):
    half = out / "images" / f".{'0a' * 16}.png"
    half.write_bytes(b"half")
    run(twelve, out)
    assert not half.exists()


def test_files_of_earlier_runs_are_remarked(twelve, out):
    shutil.rmtree(twelve / "stage1_train/11aa")
    remarks = run(twelve, out).remarks
    assert Like(r"^2 files of earlier runs.*images/11aa\.png") in remarks


def test_a_second_run_touches_no_image(twelve, out):
    before = state(out)
    run(twelve, out)
    after = state(out)
    assert images(out) == {name: before[name] for name in images(out)}
    assert {name: content for name, (content, _) in before.items()} == {
        name: content for name, (content, _) in after.items()
    }


def test_damaged_and_missing_outputs_and_changed_sources_are_made_anew(twelve, out):
    before = state(out)
    (out / "labels/03aa.tif").write_bytes(b"damaged")
    (out / "images/04aa.png").unlink()
    (twelve / "stage1_train/02aa/masks" / f"{7:064x}.png").unlink()
    prepared = run(twelve, out)
    after = state(out)
    changed = {Path(name).stem for name in images(out) if before[name][1] != after[name][1]}
    assert changed == {"02aa", "03aa", "04aa"}
    assert after["labels/03aa.tif"][0] == before["labels/03aa.tif"][0]
    assert prepared.records["02aa"].instances == 2
    assert verify(out) == []


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


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(twelve, tmp_path, monkeypatch):
    written = []
    write = convert.write_labels

    def fail(path, labels):
        if len(written) == 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        write(path, labels)

    monkeypatch.setattr(convert, "write_labels", fail)
    with pytest.raises(DatasetError, match=r"no space left.*same command"):
        run(twelve, tmp_path / "out")
    monkeypatch.undo()
    before = images(tmp_path / "out")
    assert len(run(twelve, tmp_path / "out").items) == 12
    assert all(images(tmp_path / "out")[f"labels/{path.name}"] == before[f"labels/{path.name}"] for path in written)
