"""COCO data sets come back from pycocotools as the same pixels."""

import contextlib
import io
import json

import numpy as np
import pytest

from cellbundle.instances.detections import Detections
from cellbundle.io.formats.coco import result_texts, write_coco, write_image_info, write_results

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


def test_results_by_hand(tmp_path):
    masks = [np.array([[True, True], [False, True]]), np.ones((1, 1), bool)]
    boxes = np.array([[1, 2, 3, 4], [0, 0, 1, 1]])
    found = Detections(masks, boxes, np.array([0.25, 0.5], np.float32), np.array([2, 1]), (3, 5))
    write_results(tmp_path / "a.json", [(4, result_texts(found)), (5, []), ("x", result_texts(found.select([0])))])
    first = '{"size":[3,5],"counts":"01>"},"bbox":[0,0,1,1],"score":0.5}'
    assert (tmp_path / "a.json").read_text().splitlines() == [
        "[",
        f'{{"image_id":4,"category_id":1,"segmentation":{first},',
        '{"image_id":4,"category_id":2,"segmentation":{"size":[3,5],"counts":"71211"},"bbox":[2,1,2,2],"score":0.25},',
        f'{{"image_id":"x","category_id":1,"segmentation":{first}',
        "]",
    ]
    write_results(tmp_path / "none.json", [(4, [])])
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_image_info_without_classes(tmp_path):
    images = [{"id": 4, "file_name": "é.png", "height": 3, "width": 5}]
    write_image_info(tmp_path / "a.json", images)
    data = load(tmp_path / "a.json")
    assert (data.imgs, data.cats) == ({4: images[0]}, {1: {"id": 1, "name": "cell"}})
