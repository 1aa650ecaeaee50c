"""The folders that uploads are saved in."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from unit_tests.service.fakes import names

from cellbundle.service.http.uploads import LOCK, PREFIX, remove_left_folders, upload_folder

HOLD = """
import time
from cellbundle.service.http.uploads import upload_folder
with upload_folder() as folder:
    (folder / "image").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    tempfile.tempdir = None


def test_a_folder_is_removed_at_the_end(temporary):
    with upload_folder() as folder:
        (folder / "image").write_bytes(b"x")
        assert folder.name.startswith(PREFIX)
        assert folder.stat().st_mode & 0o077 == 0
        with upload_folder() as other:  # a second service of the same user
            assert names(temporary) == sorted([folder.name, other.name])
    assert names(temporary) == []


def test_folders_of_services_that_were_killed_are_removed_and_no_others(temporary):
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as process:
        left = process.stdout.readline().strip()
        assert left
        remove_left_folders()
        assert names(temporary) == [Path(left).name]  # its service runs
        process.kill()
    foreign = temporary / f"{PREFIX}foreign"
    (foreign / "work").mkdir(parents=True)
    (temporary / f"{PREFIX}link").symlink_to(foreign)
    (temporary / f"{PREFIX}file").touch()
    with upload_folder() as folder:
        assert names(temporary) == sorted([folder.name, *(f"{PREFIX}{name}" for name in ("foreign", "link", "file"))])
    assert names(foreign) == ["work"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_folders_of_other_users_stay(temporary):
    other = temporary / f"{PREFIX}other"
    other.mkdir()
    (other / LOCK).touch()
    os.chown(other, 12345, 12345)
    remove_left_folders()
    assert names(other) == [LOCK]
