"""What docs/serving.md shows is true: its commands are run against the real service."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from .running import EXAMPLE, ROOT, Service

pytest.importorskip("uvicorn")

GUIDE = (ROOT / "docs" / "serving.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
ADDRESS, FOLDER = "127.0.0.1:5050", "/data/images"
TABLE_ROW = re.compile(r"^\| `?(\w[\w, ]*)`? \|", re.MULTILINE)


def blocks(language, beginning):
    return [text for kind, text in BLOCKS if kind == language and text.startswith(beginning)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the image of the guide, and what replaces the names in the guide."""
    here = tmp_path_factory.mktemp("guide")
    images = here / "images"
    images.mkdir()
    for copy in (here / "cells.png", images / "cells.png"):
        shutil.copy(EXAMPLE, copy)
    (start,) = blocks("bash", "cellbundle serve")
    options = start.removeprefix("cellbundle serve").replace(FOLDER, str(images)).split()
    with Service("--threads", 1, *options) as service:
        yield here, {ADDRESS: f"127.0.0.1:{service.port}", FOLDER: str(images)}


def run(place, text, *command):
    here, names = place
    for name, actual in names.items():
        text = text.replace(name, actual)
    done = subprocess.run([*command, text], cwd=here, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on PATH")
def test_uploads_with_curl(place):
    (sending,) = blocks("bash", "curl --silent --fail-with-body --form")
    printed = json.loads(run(place, sending, "bash", "-euc"))
    (shown,) = map(json.loads, blocks("json", '{"n"'))
    assert list(printed) == list(shown)
    assert (printed["size"], printed["bundle"]) == (shown["size"], shown["bundle"])
    assert printed["n"] == len(printed["measurements"]) == pytest.approx(shown["n"], rel=0.05)
    first, told = printed["measurements"][0], shown["measurements"][0]
    assert {key: first[key] for key in told} == pytest.approx(told, rel=0.1)  # processors differ in rounding
    here, _ = place
    assert tifffile.imread(here / "labels.tif").max() == printed["n"]
    assert json.loads((here / "cells.geojson").read_text())["type"] == "FeatureCollection"


@pytest.mark.slow
def test_python(place):
    (program,) = blocks("python", "import")
    printed = run(place, program, sys.executable, "-c")
    assert re.fullmatch(r"\d\d cells, the largest of \d+ pixels\n", printed)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on PATH")
def test_paths_with_curl(place):
    (asking,) = blocks("bash", "curl --silent --fail-with-body --header 'Content-Type")
    (shown,) = blocks("json", '{"mask_path"')
    here, names = place
    assert run(place, asking, "bash", "-euc") == shown.strip().replace(FOLDER, names[FOLDER])
    assert set(np.unique(Image.open(here / "images" / "cells_mask.png"))) == {0, 255}


def test_tables_are_complete():
    from cellbundle.service.http.documentation import ERRORS
    from cellbundle.service.workers.answers import MEDIA_TYPES

    rows = [word for row in TABLE_ROW.findall(GUIDE) for word in row.split(", ")]
    assert {int(word) for word in rows if word.isdigit()} == set(ERRORS)
    assert {word for word in rows if word in MEDIA_TYPES} == set(MEDIA_TYPES) - {"preview"}


def test_options_exist():
    from typer.main import get_command

    from cellbundle.cli import app

    known = {option for one in get_command(app).commands["serve"].params for option in one.opts}
    told = set(re.findall(r"(?<![\w-])--[\w-]+", " ".join(re.findall(r"`(--[^`]+)`", GUIDE))))
    assert told <= known | {"--run", "--header", "--read", "--side"}, told - known
