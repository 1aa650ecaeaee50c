"""COCO's average precision: values by hand, what differs from other definitions, pycocotools from end to end."""

import io
import json
from contextlib import redirect_stdout

import numpy as np
import pandas as pd
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cellbundle.errors import ArrayError
from cellbundle.instances import Instances
from cellbundle.io.formats.coco import write_coco
from cellbundle.metrics import image_scores
from cellbundle.metrics.coco_ap import coco_ap, match_detections, match_in_order


def boxes(*places):
    """(20, 60) map of the ids and columns given, 10 rows high."""
    labels = np.zeros((20, 60), np.int32)
    for number, start, stop in places:
        labels[2:12, start:stop] = number
    return labels


TRUE = boxes((5, 0, 10), (300, 20, 30))
PRED = boxes((4, 0, 10), (6, 40, 50), (8, 20, 30))  # right, wrong, right


def test_precision_is_interpolated_at_101_recalls():
    # .9 right, .8 wrong, .7 right: precision 1 up to recall .5 (51 places), 2/3 up to 1 (50 places).
    scores = coco_ap([match_detections(TRUE, PRED, np.array([0.9, 0.8, 0.7]))])
    assert scores["coco_ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101, rel=1e-12)
    assert scores["coco_ap"] == pytest.approx(scores["coco_ap75"]) == pytest.approx(scores["coco_ap50"])
    assert scores["coco_ar"] == 1
    assert image_scores(TRUE, PRED)["ap50"] == 2 / 3  # the other definition


@pytest.mark.parametrize(
    ("order", "expected"),
    [((0.9, 0.1, 0.8), 1), ((0.1, 0.9, 0.2), (101 * 2 / 3) / 101), ((0.2, 0.9, 0.1), (101 * 2 / 3) / 101)],
)
def test_scores_order_the_detections(order, expected):
    assert coco_ap([match_detections(TRUE, PRED, np.array(order))])["coco_ap50"] == pytest.approx(expected)


def test_thresholds():
    # IoU 8/10: right at .5 to .8, which is 7 of 10 thresholds.
    detections = match_detections(boxes((1, 0, 10)), boxes((1, 0, 8)))
    assert detections.found[:, 0].tolist() == [True] * 7 + [False] * 3
    scores = coco_ap([detections])
    assert [scores[key] for key in ("coco_ap", "coco_ap50", "coco_ap75", "coco_ar")] == pytest.approx([0.7, 1, 1, 0.7])


def test_an_iou_of_exactly_three_fifths_reaches_its_threshold():
    assert match_detections(boxes((1, 0, 10)), boxes((1, 0, 6))).found[:, 0].tolist() == [True] * 3 + [False] * 7


@pytest.mark.parametrize(("start", "levels"), [(0, slice(0, 7)), (6, slice(4, 7))])
def test_of_equal_ious_the_last_one_is_taken_as_in_cocoeval(start, levels):
    # The first detection has an IoU of 8/12 with both, the second one of 8/10 with one of them.
    true, pred = [[0, 0, 10, 1], [4, 0, 10, 1]], [[2, 0, 10, 1], [start, 0, 8, 1]]
    found = match_in_order(true, pred, np.array([0.9, 0.8])).found
    assert found[:, 0].tolist() == [True] * 4 + [False] * 6
    assert np.flatnonzero(found[:, 1]).tolist() == list(range(10))[levels]


def test_of_equal_scores_the_earlier_one_is_right():
    wrong, right, close = [5, 0, 1, 1], [0, 0, 10, 1], [0, 0, 9, 1]
    detections = match_in_order([right], [wrong, right] + [wrong, close] * 99, np.tile([0.5, 0.25], 100))
    assert detections.scores.tolist() == [0.5] * 100 + [0.25] * 100
    assert np.argwhere(detections.found).tolist() == [[level, 100] for level in range(10)]


def test_missed_instances_limit_the_recall():
    scores = coco_ap([match_detections(TRUE, boxes((1, 0, 10)))])
    assert scores["coco_ap50"] == pytest.approx(51 / 101)
    assert scores["coco_ar"] == 0.5


def test_images_share_one_order():
    # In each image alone the best detection is right; together the wrong one of the second comes second.
    first = match_detections(boxes((1, 0, 10)), boxes((1, 0, 10), (2, 40, 50)), np.array([0.3, 0.1]))
    second = match_detections(boxes((1, 0, 10)), boxes((1, 0, 10), (2, 40, 50)), np.array([0.9, 0.8]))
    assert coco_ap([first])["coco_ap50"] == coco_ap([second])["coco_ap50"] == pytest.approx(1)
    assert coco_ap([first, second])["coco_ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_more_than_100_detections_count():
    labels = np.arange(1, 145, dtype=np.int32).reshape(12, 12).repeat(3, 0).repeat(3, 1)
    assert coco_ap([match_detections(labels, labels)])["coco_ap"] == pytest.approx(1)


def test_no_size_is_left_out():
    true = np.zeros((200, 200), np.int32)
    true[0, 0], true[10:150, 10:150] = 1, 2
    assert coco_ap([match_detections(true, true)])["coco_ap"] == pytest.approx(1)


def test_empty_maps():
    empty = np.zeros((20, 60), np.int32)
    nothing, extra, missed = (match_detections(*pair) for pair in ((empty, empty), (empty, PRED), (TRUE, empty)))
    unknown = dict.fromkeys(("coco_ap", "coco_ap50", "coco_ap75", "coco_ar"))
    assert coco_ap([nothing]) == coco_ap([extra]) == coco_ap([]) == unknown
    assert set(coco_ap([missed]).values()) == {0}
    right = match_detections(TRUE, TRUE, np.array([0.5, 0.5]))
    assert coco_ap([right, nothing])["coco_ap"] == pytest.approx(1)
    assert coco_ap([right, extra])["coco_ap"] == pytest.approx(2 / 5)  # all scores of the extra ones are higher


def test_nothing_is_printed(capsys):
    coco_ap([match_detections(TRUE, PRED)])
    assert capsys.readouterr().out == ""


def test_equal_to_files_through_pycocotools(tmp_path):
    random = np.random.default_rng(0)
    images, truth, results = [], {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}, []
    for number in range(1, 5):
        true = np.arange(1, 50, dtype=np.int32).reshape(7, 7).repeat(9, 0).repeat(9, 1)
        pred = np.roll(true, random.integers(0, 3), axis=1) * (random.random(true.shape) > 0.05)
        true = true * (true % 5 > 0)
        scores = random.random(49)
        images.append(match_detections(true, pred, scores))
        for labels, out in ((true, truth["annotations"]), (pred, results)):
            ids = np.unique(labels[labels > 0])
            compact = np.searchsorted(ids, labels, side="right").astype(np.int32)
            write_coco(tmp_path / "a.json", Instances(compact, pd.DataFrame({"label": range(1, len(ids) + 1)})), "a")
            for annotation in json.loads((tmp_path / "a.json").read_text())["annotations"]:
                score = scores[annotation["id"] - 1]
                out.append(annotation | {"id": len(out) + 1, "image_id": number, "score": score})
        truth["images"].append({"id": number, "height": true.shape[0], "width": true.shape[1]})
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        reference = COCOeval(coco, coco.loadRes(results), "segm")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    scores = coco_ap(images)
    assert 0.1 < scores["coco_ap"] < 0.9
    assert [scores[key] for key in ("coco_ap", "coco_ap50", "coco_ap75", "coco_ar")] == pytest.approx(
        reference.stats[[0, 1, 2, 8]].tolist(), rel=1e-9
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TRUE, PRED, np.ones(2)), r"scores.*finite.* 3 .*\(2,\)"),
        ((TRUE, PRED, np.array([1, np.nan, 1])), r"scores.*\(3,\).* 1 .*not finite"),
        ((TRUE, PRED[:5]), r"same shape.*\(20, 60\).*\(5, 60\)"),
        ((TRUE.astype(float), PRED), "2-D integer"),
        ((TRUE, -PRED), "negative"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ArrayError, match=message):
        match_detections(*arguments)
