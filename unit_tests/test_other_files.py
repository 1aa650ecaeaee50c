"""An OME-TIFF that names another file, in every command: its own pixels are used, and no other file is opened."""

import base64
import re
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from unit_tests.cli.conftest import call
from unit_tests.io.ome_files import KINDS, OWN, cells, channels, opened, referring, write_ome, write_set
from unit_tests.service.conftest import make  # noqa: F401 - a fixture

from cellbundle.inference.segment import Segmentation
from cellbundle.inference.sizing import Size
from cellbundle.io import read_image, read_labels, write_labels

N_OWN = 2  # cells in its own pixels
SECRETS = ("secret.tif", "b.tif", "pipe", "missing", "text")


def segment(image):
    """Components of what is bright in any channel."""
    labels, n = ndimage.label(image.max(axis=0) > 100)
    return Segmentation(labels.astype(np.int32), np.full(n, 0.5, np.float32))


@pytest.fixture
def predictor(monkeypatch):
    """``cellbundle predict`` without a network."""

    class Predictor:
        tile, scale, weights, device = 64, 1.0, "none", "cpu"
        segment = staticmethod(segment)
        size, looks_for_size = Size(), False

        def __init__(self, **options):
            pass

    for module in ("predictor", "batch.run"):
        monkeypatch.setattr(f"cellbundle.inference.{module}.Predictor", Predictor)


def secrets_in(paths):
    return [path for path in paths if path.rpartition("/")[2] in SECRETS]


def table(path, column):
    return pd.read_csv(path).set_index("image")[column].to_dict()


def test_predict(tmp_path, predictor):
    paths = [referring(tmp_path / kind, kind, f"{kind}.tif") for kind in KINDS]
    with opened() as used:
        assert call("predict", *paths, "-o", tmp_path / "out", "--save", "labels") == 0
    assert table(tmp_path / "out" / "images.csv", "cells") == {f"{kind}.tif": N_OWN for kind in KINDS}
    assert not secrets_in(used)


@pytest.mark.parametrize("kind", KINDS)
def test_serve(make, tmp_path, kind):  # noqa: F811
    client = make()
    path = referring(tmp_path / "root" / f"of {kind}", kind)
    content = path.read_bytes()
    with opened() as used:
        upload = client.post("/v1/segment", content=content, headers={"content-type": "image/tiff"})
        below_root = client.post("/seg_mask", json={"image_path": str(path)})
    assert upload.headers["x-cell-count"] == str(N_OWN)
    mask = read_labels(below_root.json()["mask_path"], binary="components")
    assert mask.max() == N_OWN
    assert not secrets_in(used)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mlflow_model(tmp_path, kind):
    served = pytest.importorskip("cellbundle.mlflow_model.served", reason="mlflow is not installed")
    model = served.ServedBundle()
    model.options, model.lock = {"max_pixels": 10**6}, threading.Lock()
    model.predictor = SimpleNamespace(segment=segment)
    text = base64.b64encode(referring(tmp_path / "images", kind).read_bytes()).decode()
    with opened() as used:
        assert model.predict(None, pd.DataFrame({"image": [text]}))["n"].tolist() == [N_OWN]
    assert not secrets_in(used)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "beside"])
def test_data_prepare(tmp_path, kind):
    path = referring(tmp_path / "raw", kind, "a.tif")
    write_labels(tmp_path / "raw" / "a_label.tif", ndimage.label(OWN > 100)[0])
    with opened() as used:
        code = call("data", "prepare", "custom", "--raw-dir", path.parent, "-o", tmp_path / "out", "--workers", 1)
    assert code == (kind == "fifo"), "a FIFO among the data is named as a problem"
    (image,) = (tmp_path / "out" / "images").rglob("*.tif")
    assert np.array_equal(read_image(image).data, OWN[None])
    assert not secrets_in(used)


def test_both_files_of_a_set_and_three_positions(tmp_path, predictor):
    (tmp_path / "images").mkdir()
    channels(tmp_path / "images")
    names = [f"{i}.tif" for i in range(3)]
    pixels = {name: [cells(3 + i)] for i, name in enumerate(names)}
    write_set(tmp_path / "images", [[(0, 0, 0, name, 0)] for name in names], pixels)
    assert call("predict", tmp_path / "images", "-o", tmp_path / "out", "--save", "labels") == 0
    found = table(tmp_path / "out" / "images.csv", "cells")
    assert found == {"a.ome.tif": 2, "b.ome.tif": 7, "0.tif": 3, "1.tif": 4, "2.tif": 5}


def test_joined(tmp_path, predictor, capsys):
    """A set is one image, of its first file; others are as without the option."""
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    channels(images, ("dna.tif", "actin.tif"), (cells(4), cells(6)))
    write_set(images, [[(0, 0, 0, f"{i}.tif", 0)] for i in range(2)], {f"{i}.tif": [cells(1 + i)] for i in range(2)})
    command = ("predict", images, "-o", out, "--save", "labels", "--join-ome")
    assert call(*command) == 0
    assert table(out / "images.csv", "cells") == {"0.tif": 1, "1.tif": 2, "dna.tif": 6}
    assert table(out / "images.csv", "joined")["dna.tif"] == "actin.tif"
    assert re.search(r"dna\.tif.*actin\.tif", capsys.readouterr().err)
    assert sorted(path.name for path in out.glob("*_labels.tif")) == ["0_labels.tif", "1_labels.tif", "dna_labels.tif"]
    assert call(*command) == 0
    assert "3 of 3 images are finished" in capsys.readouterr().err
    assert table(out / "images.csv", "joined")["dna.tif"] == "actin.tif"
    assert call("predict", images / "0.tif", "-o", out, "--save", "labels", "--join-ome") == 0
    assert table(out / "images.csv", "joined")["dna.tif"] == "actin.tif", "an image of an earlier run"
    assert call(*command[:-1]) == 2
    assert "join_ome True, not None" in capsys.readouterr().err


def test_a_changed_file_of_a_set_is_segmented_again(tmp_path, predictor, capsys):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    channels(images)
    command = ("predict", images / "b.ome.tif", "-o", out, "--save", "labels", "--join-ome")
    assert call(*command) == 0
    assert table(out / "images.csv", "cells") == {"a.ome.tif": 7}, "the first file names the set"
    channels(images, planes=(OWN, cells(8)))
    capsys.readouterr()
    assert call(*command) == 0
    assert "finished already" not in capsys.readouterr().err
    assert table(out / "images.csv", "cells") == {"a.ome.tif": 8}


def test_sets_that_cannot_be_joined_are_failures(tmp_path, predictor):
    images = tmp_path / "images"
    images.mkdir()
    for kind in KINDS:
        referring(images / kind, kind, f"{kind}.tif")
    assert call("predict", images, "-o", tmp_path / "out", "--save", "labels", "--join-ome") == 1
    reasons = table(tmp_path / "out" / "failures.csv", "reason")
    assert sorted(reasons) == sorted([f"{kind}/{kind}.tif" for kind in KINDS])
    for kind, name in {"absolute": "secret.tif", "relative": "secret.tif", "fifo": "pipe", "beside": "b.tif"}.items():
        assert name in reasons[f"{kind}/{kind}.tif"]
    assert table(tmp_path / "out" / "images.csv", "cells") == {"beside/b.tif": 7, "secret.tif": 7}


def test_sets_of_two_folders_and_inputs_given_twice(tmp_path, predictor):
    for number, plate in enumerate("xy"):
        (tmp_path / plate).mkdir()
        channels(tmp_path / plate, planes=(cells(1), cells(2 + number)))
    inputs = (tmp_path / "x" / "b.ome.tif", tmp_path, tmp_path / "y" / ".." / "x" / "a.ome.tif")
    assert call("predict", *inputs, "-o", tmp_path / "out", "--save", "labels", "--join-ome") == 0
    assert sorted(table(tmp_path / "out" / "images.csv", "cells").values()) == [2, 3]


def test_a_plain_file_between_files_of_sets(tmp_path, predictor):
    (tmp_path / "images").mkdir()
    channels(tmp_path / "images")
    write_ome(tmp_path / "images" / "c.tif", [cells(5)], None)
    assert call("predict", tmp_path / "images", "-o", tmp_path / "out", "--save", "labels", "--join-ome") == 0
    assert table(tmp_path / "out" / "images.csv", "cells") == {"a.ome.tif": 7, "c.tif": 5}
