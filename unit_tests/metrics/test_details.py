"""COCO's average precision and scores by class of images, alone and together, and the content of metrics.json."""

import json

import numpy as np
import pandas as pd
import pytest

from cellbundle.errors import ArrayError
from cellbundle.evaluation import Evaluation, metrics_content, summarise, write_metrics
from cellbundle.metrics import image_scores
from cellbundle.metrics.details import detail_scores, image_details, mean_details

NAMES = ["a", "b", "c"]


def maps(*cells):
    """Label map (4, 40) and class map of cells (id, class, start, stop)."""
    labels, classes = np.zeros((2, 4, 40), np.int32)
    for number, kind, start, stop in cells:
        labels[:, start:stop], classes[:, start:stop] = number, kind
    return labels, classes


# First image: two of class a, one found, one taken for b; an extra b. Second: one a, found. No image has class c.
FIRST = maps((1, 1, 0, 10), (2, 1, 10, 20)), maps((5, 1, 0, 10), (6, 2, 10, 20), (9, 2, 30, 35))
SECOND = maps((7, 1, 0, 10)), maps((1, 1, 0, 10))
SCORES = np.array([0.9, 0.8, 0.7]), np.array([0.5])


def details(pair, scores):
    (true, true_classes), (pred, pred_classes) = pair
    return image_details(true, pred, scores, true_classes=true_classes, pred_classes=pred_classes, n_classes=3)


@pytest.fixture
def images():
    return [details(pair, scores) for pair, scores in zip((FIRST, SECOND), SCORES, strict=True)]


@pytest.fixture
def evaluation():
    rows = [
        {"image": name, "group": "", **image_scores(true[0], pred[0])}
        for name, (true, pred) in zip("xy", (FIRST, SECOND), strict=True)
    ]
    table = pd.DataFrame(rows)
    return Evaluation(table, summarise(table), [])


def test_pooled(images):
    scores = detail_scores(images, NAMES)
    # .9 right, .8 right, .7 extra, .5 right of 3: precision 1 up to recall 2/3 (67 places), 3/4 up to 1 (34 places).
    assert scores["coco_ap50"] == pytest.approx((67 + 34 * 3 / 4) / 101)
    a, b, c = scores["classes"].values()
    assert (a["iou"], a["dice"]) == (80 / 120, 160 / 200)
    assert (a["n_true"], a["n_pred"], a["tp"], a["precision"], a["recall"]) == (3, 2, 2, 1, 2 / 3)
    assert a["coco_ap50"] == pytest.approx(67 / 101)
    assert (b["iou"], b["precision"], b["recall"], b["f1"], b["coco_ap"]) == (0, 0, 0, 0, None)
    assert c["n_true"] == c["n_pred"] == c["tp"] == 0
    assert {value for name, value in c.items() if name not in ("n_true", "n_pred", "tp")} == {None}
    assert scores["class_mean"]["iou"] == (80 / 120 + 0) / 2
    assert scores["class_mean"]["coco_ap50"] == a["coco_ap50"]
    assert scores["confusion"] == [[0, 0, 1, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_per_image_mean_leaves_out_images_without_a_class(images):
    means = mean_details([detail_scores([image], NAMES) for image in images], NAMES)
    assert means["classes"]["a"]["iou"] == (1 / 2 + 1) / 2
    assert means["classes"]["a"]["f1"] == (2 / 3 + 1) / 2
    assert means["classes"]["b"]["iou"] == 0  # of the first image alone
    assert means["classes"]["c"]["iou"] is None
    assert means["class_mean"]["iou"] == (1 / 4 + 1) / 2
    assert means["coco_ap50"] == pytest.approx(1)


def test_without_classes():
    (true, _), (pred, _) = FIRST
    scores = detail_scores([image_details(true, pred)])
    assert scores.keys() == {"coco_ap", "coco_ap50", "coco_ap75", "coco_ar"}


def test_the_class_of_a_detection_decides_its_own_average_precision():
    pair = maps((1, 1, 0, 10)), maps((1, 2, 0, 10))
    scores = detail_scores([details(pair, np.ones(1))], NAMES)
    assert scores["coco_ap"] == pytest.approx(1)
    assert (scores["classes"]["a"]["coco_ap"], scores["classes"]["b"]["coco_ap"]) == (0, None)


def test_scores_stay_with_their_instances():
    # Of class a, the wrong one is better than the right one: precision 1/2 at every recall. The right b comes first.
    pair = maps((1, 1, 0, 10), (2, 2, 20, 30)), maps((3, 1, 0, 10), (5, 2, 20, 30), (7, 1, 12, 18), (9, 2, 31, 39))
    scores = detail_scores([details(pair, np.array([0.2, 0.9, 0.6, 0.4]))], NAMES)
    assert [scores["classes"][name]["coco_ap50"] for name in "ab"] == pytest.approx([1 / 2, 1])


@pytest.mark.parametrize("missing", ["true", "predicted"])
def test_a_missing_class_map(missing):
    (true, classes), (pred, _) = FIRST
    given = {"pred_classes": classes} if missing == "true" else {"true_classes": classes}
    with pytest.raises(ArrayError, match=f"class maps.* 3 classes.*no {missing} "):
        image_details(true, pred, n_classes=3, **given)


def test_content(images, evaluation):
    content = metrics_content(evaluation, images, NAMES)
    assert (content["n_images"], content["class_names"]) == (2, NAMES)
    pooled, mean = content["pooled"], content["per_image_mean"]
    assert (pooled["n_true"], pooled["tp50"], pooled["precision50"]) == (3, 3, 3 / 4)
    assert pooled["rq"] == pooled["f150"] == 6 / 7
    assert (mean["precision50"], mean["pq"]) == ((2 / 3 + 1) / 2, pytest.approx((4 / 5 + 1) / 2))
    assert pooled["coco_ap50"] != mean["coco_ap50"]
    assert [row["image"] for row in content["images"]] == ["x", "y"]
    assert [row["ap50"] for row in content["images"]] == [2 / 3, 1]
    assert [row["classes"]["a"]["recall"] for row in content["images"]] == [1 / 2, 1]


def test_content_without_images():
    empty = Evaluation(pd.DataFrame(columns=["image", "group"]), {}, [])
    content = metrics_content(empty, [])
    assert (content["n_images"], content["pooled"], content["images"]) == (0, None, [])


def test_file(tmp_path, images, evaluation):
    content = metrics_content(evaluation, images, NAMES)
    write_metrics(content, tmp_path / "results" / "metrics.json")
    assert json.loads((tmp_path / "results" / "metrics.json").read_text()) == content
    with pytest.raises(ValueError, match="JSON"):
        write_metrics({"a": float("nan")}, tmp_path / "results" / "metrics.json")
    assert json.loads((tmp_path / "results" / "metrics.json").read_text()) == content
