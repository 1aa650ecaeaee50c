"""What outlines keep of nuclei: the table for some by hand, and the share that is kept of real ones."""

import importlib.util
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellbundle.io import write_labels
from cellbundle.io.formats.yolo import read_yolo

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts" / "benchmarks"
HEADER = (
    "| filled by, {} label maps | nuclei | IoU ≥ 0.95 | mean IoU | least | below 0.95 | with holes | in parts |\n"
    "|---|---|---|---|---|---|---|---|\n"
)
AS_READ = "| read_yolo | 3 | 100.0000% | 1.00000 | 1.0000 (a.tif) | 0 | 1 | 1 |\n"


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """The command, for two label maps: of a ring, and of a nucleus in two parts two pixels apart beside another."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import yolo_polygons

    (tmp_path / "maps").mkdir()
    write_labels(tmp_path / "maps" / "a.tif", np.pad([[0]], 1, constant_values=7))
    write_labels(tmp_path / "maps" / "b.tif", np.array([[5, 0, 0, 5], [9, 9, 0, 0]]))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["yolo_polygons.py", *map(str, arguments)])
        yolo_polygons.main()
        return capsys.readouterr().out

    return call


def test_a_path_between_parts_is_filled_by_ultralytics(run, tmp_path):
    pytest.importorskip("cv2")
    row = "| ultralytics | 3 | 66.6667% | 0.83333 | 0.5000 (b.tif) | 1 | 1 | 1 |\n"
    assert run(tmp_path / "maps") == HEADER.format(2) + AS_READ + row
    entries = [{"image": f"maps/{name}.tif", "label": f"maps/{name}.tif"} for name in "ab"]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries[:1], "testing": entries[1:]}))
    assert run("--datalist", tmp_path / "list.json", "--basedir", tmp_path) == HEADER.format(2) + AS_READ + row
    row = "| ultralytics | 1 | 100.0000% | 1.00000 | 1.0000 (a.tif) | 0 | 1 | 0 |\n"
    assert run(tmp_path / "maps", "--every", 2).endswith(row)


def test_without_opencv_it_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run(tmp_path / "maps") == (
        HEADER.format(2) + AS_READ + "OpenCV is not installed: how ultralytics fills them is left out "
        "(pip install 'cellbundle[yolo]')\n"
    )
    write_labels(tmp_path / "maps" / "a.tif", np.zeros((2, 2), int))
    (tmp_path / "maps" / "b.tif").unlink()
    assert "| read_yolo | 0 | | | | | | |\n" in run(tmp_path / "maps")


def test_what_to_measure_must_be_said_once(run, tmp_path, capsys):
    for arguments in ([], ["--datalist", "a.json"], [tmp_path, "--datalist", "a.json", "--basedir", "b"]):
        with pytest.raises(SystemExit):
            run(*arguments)
        assert "--datalist FILE --basedir DIR" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dsb2018", "nuinsseg"])
def test_outlines_keep_real_nuclei(tmp_path, monkeypatch, name):
    folder = Path(os.environ.get("CELLBUNDLE_TEST_DATA", ".")) / name
    if "CELLBUNDLE_TEST_DATA" not in os.environ or not folder.exists():
        pytest.skip(f"CELLBUNDLE_TEST_DATA has no {name}")
    pytest.importorskip("cv2")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import yolo_polygons

    paths = random.Random(0).sample(sorted((folder / "labels").iterdir()), 20)
    if name == "nuinsseg":  # outlines of others; what they are filled to is the truth
        for path in paths:
            tifffile.imwrite(tmp_path / f"{path.stem}.tif", read_yolo(path, (512, 512))[0].labels)
        paths = sorted(tmp_path.iterdir())
    for fill in (yolo_polygons.fill_as_read, yolo_polygons.fill_as_ultralytics):
        measured = yolo_polygons.measure(paths, fill)
        assert len(measured.ious) > 500
        assert (measured.ious >= 0.95).mean() >= 0.99
