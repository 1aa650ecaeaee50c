"""COCO data sets come back from pycocotools as the same pixels."""

import contextlib
import io
import json

import numpy as np
import pytest

from cellbundle.io.coco import write_coco

from .conftest import make

coco = pytest.importorskip("pycocotools.coco")
mask = pytest.importorskip("pycocotools.mask")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:pycocotools")


def load(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return coco.COCO(str(path))


def test_pixels_come_back(tmp_path, instances):
    write_coco(tmp_path / "a.json", instances, "a.png")
    data = load(tmp_path / "a.json")
    labels = np.zeros_like(instances.labels)
    for annotation in data.loadAnns(data.getAnnIds(imgIds=[1])):
        own = data.annToMask(annotation).astype(bool)
        assert not labels[own].any()
        labels[own] = annotation["id"]
        assert annotation["area"] == own.sum()
        assert annotation["bbox"] == mask.toBbox(data.annToRLE(annotation)).tolist()
        assert annotation["iscrowd"] == 0
    np.testing.assert_array_equal(labels, instances.labels)
    assert len(list(tmp_path.iterdir())) == 1


def test_image_and_categories(tmp_path, scored):
    write_coco(tmp_path / "a.json", scored, "Größe 1.png")
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert document["images"] == [{"id": 1, "file_name": "Größe 1.png", "height": 3, "width": 4}]
    assert document["categories"] == [
        {"id": 1, "name": "cell"},
        {"id": 2, "name": "immune"},
        {"id": 3, "name": "tumour"},
    ]
    assert [annotation["category_id"] for annotation in document["annotations"]] == [3, 1, 2, 3]
    assert [annotation.get("score") for annotation in document["annotations"]] == [0.5, 1.0, None, 0.25]


def test_there_is_a_category_without_instances(tmp_path):
    write_coco(tmp_path / "a.json", make(np.zeros((2, 3), int)), "a.png")
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert document["categories"] == [{"id": 1, "name": "cell"}]
    assert document["annotations"] == []


def test_many_instances(tmp_path, many):
    write_coco(tmp_path / "a.json", many, "a.png")
    assert (tmp_path / "a.json").stat().st_size < 20e6
    data = load(tmp_path / "a.json")
    assert len(data.anns) == 75_625
    rles = [data.annToRLE(annotation) for annotation in data.anns.values()]
    assert {annotation["area"] for annotation in data.anns.values()} == {9}
    sample = slice(None, None, 1000)  # merging masks takes time
    merged = mask.decode(mask.merge(rles[sample])).astype(bool)
    np.testing.assert_array_equal(merged, np.isin(many.labels, many.table["label"][sample]))


def test_a_failed_write_leaves_nothing(tmp_path, scored, full_disk):
    with pytest.raises(OSError, match="No space"):
        write_coco(tmp_path / "a.json", scored, "a.png")
    assert not list(tmp_path.iterdir())
