"""What is logged is on disk first."""

import errno
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cellbundle.tracking import spool as module
from cellbundle.tracking.spool import Spool

from ..damage import damaged, other_values


def drain(spool: Spool) -> list[int]:
    found = []
    while chunk := spool.read():
        found += [record["n"] for record in chunk.records]
        spool.commit(chunk)
    return found


def full(fd: int, line: bytes) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def spool(tmp_path):
    made = Spool(tmp_path / "tracking" / "run")
    assert made.lock()
    yield made
    made.close()


def test_records_come_back_in_order_and_once(spool, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 30)
    for n in range(10):
        spool.append({"n": n})
    assert drain(spool) == list(range(10))
    spool.append({"n": 10})
    assert spool.remaining() == 1
    assert drain(spool) == [10]
    assert spool.is_done


def test_what_was_not_sent_is_there_for_the_next_process(spool, tmp_path):
    spool.append({"n": 1})
    drain(spool)
    spool.append({"n": 2})
    spool.close()
    assert drain(Spool(spool.folder)) == [2]


def test_lost_state_means_that_all_is_sent_again(spool):
    spool.append({"n": 1})
    drain(spool)
    (spool.folder / "state.json").write_text('{"offs')
    assert drain(Spool(spool.folder)) == [1]


def test_lines_that_a_power_cut_took_do_not_hide_new_ones(spool):
    for n in range(9):
        spool.append({"n": n})
    drain(spool)
    spool.close()
    os.truncate(spool.folder / "points.jsonl", len('{"n": 0}\n'))
    again = Spool(spool.folder)
    again.append({"n": 9})
    assert drain(again) == [9]


def test_file_that_somebody_removed(spool):
    spool.append({"n": 1})
    drain(spool)
    (spool.folder / "points.jsonl").unlink()
    spool.append({"n": 2})
    assert drain(spool) == [2]


def test_half_a_line_of_a_killed_process_spoils_nothing(spool):
    spool.append({"n": 1})
    spool.close()
    with (spool.folder / "points.jsonl").open("ab") as file:
        file.write(b'{"n": 2, "val')
    again = Spool(spool.folder)
    assert drain(again) == [1]
    again.append({"n": 3})
    assert drain(again) == [3]


def test_full_disk_keeps_the_records_in_memory(spool, monkeypatch, caplog):
    spool.append({"n": 1})
    write = os.write
    monkeypatch.setattr(module.os, "write", lambda fd, line: write(fd, line[:4]))
    spool.append({"n": 2})
    monkeypatch.setattr(module.os, "write", full)
    spool.append({"n": 3})
    monkeypatch.setattr(module.os, "write", write)
    spool.append({"n": 4})
    lines = (spool.folder / "points.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == [1, 4]
    assert spool.remaining() == 4
    assert drain(spool) == [1, 4, 2, 3]
    assert spool.is_done
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "takes no data" in caplog.text


def test_memory_is_bounded(spool, monkeypatch, caplog):
    monkeypatch.setattr(module, "MAX_IN_MEMORY", 3)
    monkeypatch.setattr(module.os, "write", full)
    for n in range(5):
        spool.append({"n": n})
    assert drain(spool) == [2, 3, 4]
    spool.close()
    assert re.search(r"\b2 .*records.*lost", caplog.text)


def test_folder_that_cannot_be_made(tmp_path, caplog):
    (tmp_path / "tracking").write_text("a file")
    spool = Spool(tmp_path / "tracking" / "run")
    assert spool.lock()
    spool.append({"n": 1})
    assert drain(spool) == [1]
    spool.close()
    assert len(caplog.records) == 1


def test_a_run_has_one_writer(spool):
    assert not Spool(spool.folder).lock()
    spool.close()
    again = Spool(spool.folder)
    assert again.lock()
    again.close()


def test_a_killed_process_leaves_the_run_free_though_its_children_live(tmp_path):
    folder = tmp_path / "run"
    code = (
        "import os, sys, time\n"
        "from cellbundle.tracking.spool import Spool\n"
        f"spool = Spool({str(folder)!r})\n"
        "assert spool.lock()\n"
        "child = os.fork()\n"
        "if child: print(child, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[3])}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    child = int(process.stdout.readline())
    try:
        assert not Spool(folder).lock()
        process.kill()
        process.wait()
        assert Path(f"/proc/{child}").exists() or sys.platform != "linux"
        again = Spool(folder)
        assert again.lock()
        again.close()
    finally:
        os.kill(child, 9)
        process.stdout.close()


def test_removed_when_nothing_is_left(spool):
    other = spool.folder.parent / "other"
    other.mkdir()
    spool.close(keep=False)
    assert not spool.folder.exists()
    assert other.exists()


LOGGED = [
    {"time": 1, "params": {"batch": "4"}},
    {"time": 2, "values": {"loss": 0.5, "nan": float("inf"), "count": 3}, "step": 1},
    {"time": 3, "tags": {"user": "ä"}},
    {"time": 4, "file": ["/data/x.csv", "eval"]},
    {"time": 5, "values": {"loss": 0.25}, "step": 2},
    {"time": 6, "status": "FINISHED"},
]


def records(folder):
    """All records of a spool that another process left."""
    spool, found = Spool(folder), []
    while chunk := spool.read():
        found += chunk.records
        spool.state["offset"] = chunk.end
    assert spool.remaining() == 0
    assert spool.last("status") in (None, "FINISHED")
    return found


def test_a_damaged_line_takes_no_other_with_it(spool, caplog):
    for record in LOGGED:
        spool.append(record)
    path = spool.folder / "points.jsonl"
    assert records(spool.folder) == LOGGED
    assert not caplog.records
    original, kept = path.read_bytes(), 0
    for content in damaged(original, 500):
        path.write_bytes(content)
        found = records(spool.folder)
        assert all(record in LOGGED for record in found if record.keys() - {"time"})
        kept += len(found)
    assert kept > 1000
    assert "damaged lines" in caplog.text


def test_lines_of_other_types_without_a_checksum_are_left_out(spool):
    path = spool.folder / "points.jsonl"
    spool.folder.mkdir(parents=True, exist_ok=True)
    for record in LOGGED:
        path.write_text(json.dumps(record) + "\n")
        assert records(spool.folder) == [record]
        for content in other_values(record):
            path.write_bytes(content + b"\n")
            for found in records(spool.folder):
                values = found.get("values", {})
                assert all(isinstance(value, int | float) for value in values.values())
                assert not values or isinstance(found["step"], int)


def test_a_damaged_state_is_put_aside_and_all_lines_are_sent_again(spool, caplog):
    for record in LOGGED:
        spool.append(record)
    spool.state |= {"key": "k", "refused": 1}
    spool.commit(spool.read())
    path = spool.folder / "state.json"
    original = path.read_bytes()
    assert Spool(spool.folder).state == spool.state
    for content in [*damaged(original, 300), *other_values(spool.state)]:
        path.write_bytes(content)
        again = Spool(spool.folder)
        if again.state["offset"] == spool.state["offset"]:
            assert again.state == spool.state or b"sha256" not in content
        else:
            assert records(spool.folder) == LOGGED
        assert sum((again.remaining(), len(again.state["files"]), again.state.get("refused", 0))) <= len(LOGGED) + 1
    assert "state.json.damaged" in caplog.text
    assert (spool.folder / "state.json.damaged").is_file()
