"""FIFOs, devices and sockets among published files are named and never opened."""

import csv
import sys

import pytest

from cellbundle.datasets import prepare
from cellbundle.errors import DatasetError

from ..damage import bind_socket, fifo
from ..words import Like
from .own_images import save_image, save_labels
from .running import run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs in folders")


def failures(folder):
    with (folder / "failures.csv").open(newline="") as file:
        return {row["name"]: row["reason"] for row in csv.DictReader(file)}


def test_they_are_failures_of_a_preparation(twelve, tmp_path):
    home = twelve / "stage1_train/03aa"
    (home / "images/03aa.png").unlink()
    (home / "masks/device.png").symlink_to("/dev/zero")
    bind_socket(home / "masks/socket.png")
    with fifo(home / "images/03aa.png"):
        prepared = run(twelve, tmp_path / "out")
    assert len(prepared.items) == 11
    found = failures(tmp_path / "out")
    names = ("images/03aa.png", "masks/device.png", "masks/socket.png")
    for name in names:
        assert found[f"stage1_train/03aa/{name}"] == Like("FIFO.*device.*socket")
        assert name in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize("name", ["images/x.png", "labels/x.tif", "annotations.json", "train.csv", "x.zip"])
def test_they_are_not_opened_to_recognise_an_encoding(tmp_path, name, caplog):
    for stem in "abc":
        save_image(tmp_path / f"raw/images/{stem}.png", ord(stem))
        save_labels(tmp_path / f"raw/labels/{stem}.tif")
    with fifo(tmp_path / "raw" / name):
        prepared = prepare("custom", tmp_path / "raw", tmp_path / "out", workers=1)
    assert (len(prepared.items), list(failures(tmp_path / "out"))) == (3, [name])
    assert f"{name}: is a FIFO" in caplog.text


def test_a_source_that_is_one_is_refused(tmp_path):
    with fifo(tmp_path / "raw.zip"), pytest.raises(DatasetError, match=r"raw\.zip.*FIFO"):
        prepare("custom", tmp_path / "raw.zip", tmp_path / "out", workers=1)
