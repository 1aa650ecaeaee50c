"""Scores of detections: equal to a plain run of pycocotools, by hand, over processes, and in an engine."""

import io
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cellbundle import distributed
from cellbundle.errors import ArrayError
from cellbundle.instances.detections import Detections, tighten
from cellbundle.metrics import IOU_THRESHOLDS, InstanceScores, coco_ap
from cellbundle.metrics.detection import (
    DETECTION_NAMES,
    DetectionScores,
    DetectionScoresHandler,
    detection_scores,
    match_image,
)

SHAPE = (40, 50)


def detected(masks, scores, classes=None, shape=SHAPE):
    """Detections from whole-image masks."""
    cut = [tighten(np.asarray(mask, bool), 0, 0) for mask in masks]
    boxes = np.array([box for _, box in cut], np.int64).reshape(-1, 4)
    kinds = np.ones(len(cut), np.int64) if classes is None else np.asarray(classes, np.int64)
    return Detections([crop for crop, _ in cut], boxes, np.asarray(scores, np.float32), kinds, shape)


def bars(*places):
    """(4, 40) map of cells (id, start, stop)."""
    labels = np.zeros((4, 40), np.int32)
    for number, start, stop in places:
        labels[:, start:stop] = number
    return labels


def masks_of(labels):
    return [labels == number for number in np.unique(labels[labels > 0])]


def example(seed, n_true, n_pred, n_classes):
    """Rectangles with gaps between ids, and detections: shifted, doubled, of another class, invented."""
    rng = np.random.default_rng(seed)
    true = np.zeros(SHAPE, np.int32)
    for number in rng.permutation(n_true) * 7 + 3:
        y, x = rng.integers(0, SHAPE[0] - 6), rng.integers(0, SHAPE[1] - 8)
        true[y : y + rng.integers(3, 7), x : x + rng.integers(3, 9)] = number
    ids = np.unique(true[true > 0])
    masks = []
    for _ in range(n_pred):
        mask = true == rng.choice(ids) if len(ids) and rng.random() < 0.8 else rng.random(SHAPE) > 0.99
        mask = np.roll(mask, rng.integers(-1, 2), axis=rng.integers(2)) & (rng.random(SHAPE) > 0.05)
        masks.append(mask if mask.any() else ~mask)
    scores = rng.integers(1, 20, n_pred) / 20  # many are equal
    return true, rng.integers(1, n_classes + 1, len(ids)), masks, scores, rng.integers(1, n_classes + 1, n_pred)


def pycocotools_scores(examples, kind, n_classes):
    """Precision (T, R, K) and recall (T, K) of files as pycocotools reads them, with its limit of detections lifted."""
    truth = {"images": [], "annotations": [], "categories": [{"id": k + 1} for k in range(n_classes)]}
    results = []
    for image, (true, true_classes, masks, scores, classes) in enumerate(examples, start=1):
        truth["images"].append({"id": image, "height": true.shape[0], "width": true.shape[1]})
        listed = [(masks_of(true), true_classes, np.ones(len(true_classes)), truth["annotations"])]
        for shapes, kinds, values, out in [*listed, (masks, classes, np.float32(scores), results)]:
            for mask, category, score in zip(shapes, kinds, values, strict=True):
                rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
                out.append({"image_id": image, "category_id": int(category), "segmentation": rle, "iscrowd": 0})
                out[-1] |= {"bbox": coco_mask.toBbox(rle).tolist(), "area": int(mask.sum()), "score": float(score)}
                out[-1]["id"] = len(out)
    coco = COCO()
    coco.dataset = truth
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
        reference = COCOeval(coco, coco.loadRes(results), kind)
        reference.params.maxDets = [1000]
        reference.evaluate()
        reference.accumulate()
    return reference.eval["precision"][..., 0, 0], reference.eval["recall"][..., 0, 0]


@pytest.mark.parametrize("n_classes", [1, 2, 3])
def test_equal_to_pycocotools(n_classes, monkeypatch):
    monkeypatch.setattr(coco_ap, "DETECTIONS_AT_ONCE", 64)
    sizes = [(12, 150), (0, 5), (9, 0), (0, 0), (14, 20), (3, 30)]  # 150: above its limit of 100
    examples = [example(seed, *size, min(2, n_classes)) for seed, size in enumerate(sizes)]  # the third class is absent
    matched = [
        match_image(true, detected(masks, scores, classes), true_classes, n_classes)
        for true, true_classes, masks, scores, classes in examples
    ]
    scores = detection_scores(matched)
    for kind, coco_kind in (("mask", "segm"), ("box", "bbox")):
        precision, recall = pycocotools_scores(examples, coco_kind, n_classes)
        places = {"": slice(None), "50": IOU_THRESHOLDS.index(0.5), "75": IOU_THRESHOLDS.index(0.75)}
        expected = {
            f"{kind}_ap{name}": precision[place][precision[place] > -1].mean() for name, place in places.items()
        }
        expected[f"{kind}_ar"] = recall[recall > -1].mean()
        assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-12)
        assert 0.02 < scores[f"{kind}_ap"] < scores[f"{kind}_ap50"] < 0.9
    assert set(scores) == set(DETECTION_NAMES)


def test_masks_and_boxes_by_hand():
    # Of 40 pixels the mask has the 13 of an L: below .5. Its box is that of the cell.
    cell = bars((1, 0, 10))
    corner = cell > 0
    corner[1:, 1:10] = False
    scores = detection_scores([match_image(cell, detected([corner], [0.9], shape=cell.shape))])
    assert (scores["mask_ap"], scores["mask_ar"]) == (0, 0)
    assert (scores["box_ap"], scores["box_ar"]) == (pytest.approx(1), 1)


def test_a_doubled_detection_is_wrong():
    cell = bars((4, 0, 10))
    twice = detected([cell > 0, cell > 0], [0.5, 0.9], shape=cell.shape)
    assert match_image(cell, twice).mask[0].found.all(axis=0).tolist() == [True, False]
    both = match_image(bars((1, 0, 10), (2, 20, 30)), twice)
    assert detection_scores([both])["mask_ap"] == pytest.approx(51 / 101)


def test_classes_are_matched_apart_and_absent_ones_are_left_out():
    cells = bars((9, 0, 10), (3, 20, 30))
    found = detected(masks_of(cells), [0.9, 0.8], [1, 3], shape=cells.shape)  # of the ids 3 and 9
    scores = detection_scores([match_image(cells, found, np.array([1, 2]), 3)])
    assert scores["mask_ap"] == pytest.approx(1 / 2)
    assert scores["box_ar"] == 1 / 2


def test_without_true_instances_there_is_no_value():
    nothing = match_image(bars(), detected([bars((1, 0, 10))], [0.9], shape=(4, 40)))
    assert detection_scores([nothing]) == detection_scores([]) == dict.fromkeys(DETECTION_NAMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((bars((1, 0, 5))[:3], None, 1), r"one image.*\(3, 40\) and \(4, 40\)"),
        ((bars((1, 0, 5)), np.array([1, 1]), 2), r"true classes.* 1 instances.*\(2,\)"),
        ((bars((1, 0, 5)), np.array([0]), 2), r"true classes.* 1\.\.2.* 0\.\.0"),
        ((bars((1, 0, 5)), None, 1), r"predicted classes.* 1\.\.1.* 2\.\.2"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    true, true_classes, n_classes = arguments
    with pytest.raises(ArrayError, match=message):
        match_image(true, detected([bars((1, 0, 5))], [1], [2], shape=(4, 40)), true_classes, n_classes)


def items():
    """Four images as an evaluator has them: labels, label map of the prediction, detections that may overlap."""
    first, second = bars((1, 0, 10), (2, 20, 30)), bars((5, 4, 14))
    pairs = [(first, first), (second, bars((1, 4, 10))), (bars(), bars()), (bars(), bars((1, 0, 5)))]
    for index, (true, pred) in enumerate(pairs):
        found = detected([*masks_of(pred), bars((1, 2, 12)) > 0], [*[0.9] * len(masks_of(pred)), 0.3], shape=true.shape)
        yield {"index": index, "label": true[None], "pred": pred[None], "detections": found}


def add(metric, chosen):
    keys = ("pred", "label", "index", "detections")
    pred, label, index, detections = ([item[key] for item in chosen] for key in keys)
    metric(pred, label, index=index, detections=detections)


def test_the_sartorius_score_is_the_mean_over_images_of_tp_over_all():
    metric = DetectionScores()
    add(metric, list(items()))
    # All right; IoU 6/10, right at .5, .55 and .6; nothing to find and nothing found; one extra.
    assert metric.aggregate()["detection"]["sartorius_score"] == pytest.approx((1 + 3 / 10 + 1 + 0) / 4)


def test_the_sartorius_score_is_its_definition():
    metric, expected = DetectionScores(), []
    for seed in range(3):
        true, _, masks, scores, _ = example(seed, 10, 15, 1)
        pred = np.zeros_like(true)
        for number, mask in enumerate(masks, start=1):
            pred[mask] = number
        add(metric, [{"index": seed, "label": true, "pred": pred, "detections": detected(masks, scores)}])
        iou = np.array([[(t & p).sum() / (t | p).sum() for p in masks_of(pred)] for t in masks_of(true)])
        assert (iou >= 0.5).sum(axis=0).max() <= 1  # so there is nothing to choose
        hits = [(iou >= threshold).any(axis=1).sum() for threshold in IOU_THRESHOLDS]
        expected.append(np.mean([tp / (sum(iou.shape) - tp) for tp in hits]))
    assert metric.aggregate()["detection"]["sartorius_score"] == pytest.approx(np.mean(expected), rel=1e-12)
    assert 0.01 < np.mean(expected) < 0.9


def test_it_has_the_instance_scores_of_the_label_maps():
    metric, plain = DetectionScores(), InstanceScores()
    add(metric, list(items()))
    plain([item["pred"] for item in items()], [item["label"] for item in items()], index=range(4))
    result = metric.aggregate()
    assert {key: result[key] for key in plain.aggregate()} == plain.aggregate()
    assert metric.images() == plain.images()
    assert result["detection"]["ap50"] == result["per_image_mean"]["ap50"]
    metric.reset()
    assert metric.matched() == {}


def test_processes_are_joined_and_repeated_images_count_once(monkeypatch):
    whole, first, second = (DetectionScores() for _ in range(3))
    listed = list(items())
    add(whole, listed)
    add(first, [listed[3], listed[1]])
    add(second, [listed[0], listed[2], listed[3]])  # the last is repeated, as samplers do
    monkeypatch.setattr(distributed, "gather", lambda value: [value, second._matched])
    assert list(first.matched()) == [0, 1, 2, 3]
    assert detection_scores(list(first.matched().values())) == detection_scores(list(whole._matched.values()))


def test_every_image_needs_an_index_and_detections():
    item = next(items())
    for given in ({}, {"index": [0]}, {"index": [0], "detections": []}):
        with pytest.raises(ArrayError, match=r"index, detections and classes.* 1 images"):
            DetectionScores()([item["pred"]], [item["label"]], **given)


def run_engine(handler, name, steps):
    """An engine after a run whose iterations give these pairs of batch and output."""

    def step(engine, pair):
        engine.state.batch, output = pair
        return output

    engine = Engine(step)
    handler.attach(engine, name)
    engine.run(steps)
    return engine


def test_the_handler_takes_true_classes_from_the_batch():
    cells = bars((1, 0, 10), (2, 20, 30))
    found = detected(masks_of(cells), [0.9, 0.8], [1, 1], shape=cells.shape)
    item = {"pred": cells[None], "label": cells[None], "index": 0, "detections": found, "classes": found.classes}
    classes = torch.tensor([0, 2, 1])[torch.from_numpy(cells).long()][None]
    steps = [([{"class_label": classes}], [item]), ([], [])]  # the second failed
    metrics = run_engine(DetectionScoresHandler(DetectionScores(n_classes=2)), "mask_ap", steps).state.metrics
    assert list(metrics) == [*DETECTION_NAMES[1:], "sartorius_score", "mask_ap"]
    # Of class 1, the worse of two detections is right: precision 1/2 at every recall. Class 2 is missed.
    assert metrics["mask_ap"] == pytest.approx(1 / 4)
    assert (metrics["mask_ar"], metrics["sartorius_score"]) == (1 / 2, 1)


def test_the_handler_logs_numbers_where_there_is_no_value():
    handler = DetectionScoresHandler(DetectionScores(), key="box_ap", logged=["mask_ap50", "pq"])
    engine = run_engine(handler, "score", [([{}], list(items())[3:])])
    assert engine.state.metrics == {"mask_ap50": 0, "pq": 0, "score": 0}
    assert handler.metric_fn.aggregate()["detection"]["box_ap"] is None
