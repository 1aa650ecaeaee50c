"""Outlines that belong to another frame than that of their image."""

import json
import re

import numpy as np
import pytest

from cellbundle.cli import main
from cellbundle.io import read_labels

from .contract import save
from .own_images import save_features, save_rois

SIDE = 256


def squares(scale=1.0, shift=0.0):
    """Outlines of 20 cells of 10 x 10, (20, 4, 2)."""
    y, x = np.divmod(np.arange(20), 5)
    corners = np.array([(0, 0), (10, 0), (10, 10), (0, 10)])
    return (np.stack([20 + 40 * x, 20 + 40 * y], 1)[:, None] + corners) * scale + shift


def write_geojson(folder, stem, outlines):
    save_features(folder / f"{stem}.geojson", [(outline, {}) for outline in outlines.tolist()])


def write_imagej(folder, stem, outlines):
    save_rois(folder / f"{stem}_RoiSet.zip", outlines)


def write_coco(folder, stem, outlines):
    path = folder / "annotations.json"
    document = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    document = json.loads(path.read_text()) if path.exists() else document
    document["images"].append({"id": stem, "file_name": f"{stem}.png", "height": SIDE, "width": SIDE})
    for ring in outlines:
        index, segmentation = f"{stem}{len(document['annotations'])}", [ring.ravel().tolist()]
        document["annotations"].append({"id": index, "image_id": stem, "category_id": 1, "segmentation": segmentation})
    path.write_text(json.dumps(document))


WRITERS = {"geojson": write_geojson, "imagej": write_imagej, "coco": write_coco}


@pytest.fixture
def prepare(tmp_path, capsys):
    """Prepares a good image, and one with other outlines: exit code, failures, remarks, and labels by name."""

    def run(encoding, outlines):
        raw, out = tmp_path / "raw", tmp_path / "out"
        for stem, own in (("good", squares()), ("other", outlines)):
            save(raw / f"{stem}.png", np.random.default_rng(len(stem)).integers(0, 255, (SIDE, SIDE), np.uint8))
            WRITERS[encoding](raw, stem, own)
        with pytest.raises(SystemExit) as exit_:
            main(["data", "prepare", "custom", "--raw-dir", str(raw), "--output-dir", str(out), "--workers", "1"])
        failures = (out / "failures.csv").read_text() if (out / "failures.csv").exists() else ""
        labels = {path.stem: read_labels(path) for path in (out / "labels").iterdir()}
        return exit_.value.code, failures, capsys.readouterr().out, labels

    return run


@pytest.mark.parametrize("encoding", WRITERS)
def test_outlines_of_a_slide_fail_by_name_and_the_good_image_is_there(prepare, encoding):
    code, failures, _, labels = prepare(encoding, squares(shift=300))
    assert code == 1
    assert "other" in failures
    assert re.search(r"20 of 20 .*outside.*x 320 to 490, y 320 to 450.*256 x 256", failures)
    assert list(labels) == ["good"]
    assert labels["good"].max() == 20


@pytest.mark.parametrize("encoding", ["geojson", "coco"])
def test_fractions_of_the_image_fail_by_name(prepare, encoding):
    code, failures, _, labels = prepare(encoding, squares(1 / SIDE))
    assert code == 1
    assert re.search("fractions.*x by 256 and y by 256", failures)
    assert list(labels) == ["good"]


@pytest.mark.parametrize("encoding", WRITERS)
def test_outlines_that_leave_the_image_are_counted(prepare, encoding):
    code, failures, printed, labels = prepare(encoding, squares(shift=110))
    assert (code, failures) == (0, "")
    assert len(np.unique(labels["other"])) - 1 == 16
    assert re.search(r"other: 4 of 20 .*outside.*x 130 to 300, y 130 to 260.*256 x 256", printed)
    assert re.search("other: 7 of 20 .*leave", printed)
