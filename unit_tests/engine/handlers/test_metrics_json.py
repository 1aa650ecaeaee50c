"""The file of all scores, in an evaluation as users run it, and what a handler does with its items."""

import json

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events

from cellbundle.engine.handlers.metrics_json import MetricsFile
from cellbundle.errors import ArrayError, CellBundleError
from cellbundle.instances.detections import Detections
from cellbundle.metrics import InstanceScores
from cellbundle.metrics.detection import DetectionScores

TRUE = torch.tensor([[[1, 1, 0, 4, 4, 4]]])
PRED = torch.tensor([[[2, 2, 0, 0, 0, 7]]])
CLASSES = torch.tensor([[[1, 1, 0, 2, 2, 2]]])


def evaluate(tmp_path, items, metric=None, **options):
    """Run an engine whose iterations give these pairs of batch and output; the content of the file."""
    metric = InstanceScores() if metric is None else metric

    def step(engine, pair):
        engine.state.batch, output = pair
        for item in output:
            more = {"detections": [item["detections"]]} if "detections" in item else {}
            metric([item["pred"]], [item["label"]], index=[item["index"]], **more)
        return output

    engine = Engine(step)
    data = [{"image": f"{i}.png"} for i in range(len(items))]
    MetricsFile(tmp_path / "results" / "metrics.json", metric, data, **options).attach(engine)
    engine.run(items)
    path = tmp_path / "results" / "metrics.json"
    return json.loads(path.read_text()) if path.exists() else None


def item(index, pred=PRED, batch=(), **output):
    batch = {"path": f"{index}.png", "class_label": CLASSES, **dict(batch)}
    return [batch], [{"index": index, "label": TRUE, "pred": pred, **output}]


def test_scores_of_both_kinds(tmp_path):
    content = evaluate(tmp_path, [item(1, TRUE), item(0, scores=np.array([0.5, 0.9]))])
    assert [row["image"] for row in content["images"]] == ["0.png", "1.png"]
    assert [row["ap50"] for row in content["images"]] == [1 / 3, 1]
    assert content["images"][0]["coco_ap50"] == pytest.approx(51 / 2 / 101)  # the wrong one has the higher score
    assert content["pooled"]["tp50"] == 3
    assert content["n_failed"] == 0
    assert "classes" not in content["pooled"]


def test_classes_come_from_batch_and_output(tmp_path):
    content = evaluate(tmp_path, [item(0, TRUE, class_pred=CLASSES[0])], class_names=["a", "b", "c"])
    assert [content["pooled"]["classes"][name]["f1"] for name in "abc"] == [1, 1, None]


def test_failed_images_are_counted(tmp_path):
    content = evaluate(tmp_path, [([], []), item(1)])
    assert (content["n_images"], content["n_failed"]) == (1, 1)
    content = evaluate(tmp_path, [([], [])])
    assert (content["n_images"], content["n_failed"], content["pooled"]) == (0, 1, None)


def test_bad_classes_name_the_image(tmp_path):
    with pytest.raises(ArrayError, match=r"^0\.png.*classes.* 0\.\.1.* 0\.\.2"):
        evaluate(tmp_path, [item(0, class_pred=CLASSES)], class_names=["a"])


def test_switched_off(tmp_path):
    assert evaluate(tmp_path, [item(0)], enabled=False) is None


def test_every_run_starts_anew(tmp_path):
    metric = InstanceScores()
    handler = MetricsFile(tmp_path / "m.json", metric, [{"image": "a"}, {"image": "b"}])

    def step(engine, pair):
        engine.state.batch, output = pair
        metric([output[0]["pred"]], [output[0]["label"]], index=[output[0]["index"]])
        return output

    engine = Engine(step)
    engine.add_event_handler(Events.STARTED, lambda _: metric.reset())
    handler.attach(engine)
    engine.run([item(0), item(1)])
    engine.run([item(1)])
    content = json.loads((tmp_path / "m.json").read_text())
    assert [row["image"] for row in content["images"]] == ["b"]


def test_detections(tmp_path):
    boxes = np.array([[0, 0, 1, 2], [0, 3, 1, 6], [0, 0, 1, 3]])
    masks = [np.ones((1, right - left), bool) for _, left, _, right in boxes.tolist()]
    found = Detections(masks, boxes, np.array([0.9, 0.8, 0.2], np.float32), np.ones(3, np.int64), (1, 6))
    steps = [item(1, TRUE, detections=found.select([0])), item(0, detections=found)]
    content = evaluate(tmp_path, steps, metric=DetectionScores())
    # All found in the first image, though the label map has one of two; half in the second.
    assert [row["mask_ap"] for row in content["images"]] == pytest.approx([1, 51 / 101])
    assert [row["box_ar"] for row in content["images"]] == [1, 1 / 2]
    assert content["per_image_mean"]["mask_ap50"] == pytest.approx((1 + 51 / 101) / 2)
    # In the order of their scores .9, .9, .8, .2: three of four are found before anything is wrong.
    assert content["pooled"]["mask_ap"] == pytest.approx(76 / 101)
    assert content["per_image_mean"]["sartorius_score"] == content["per_image_mean"]["ap_mean"] == (1 + 1 / 3) / 2


def test_in_a_workflow(make, tmp_path):
    make().run()
    workflow = make(mode="eval")
    data = workflow.content("dataset").data
    MetricsFile(tmp_path / "metrics.json", workflow.content("key_metric_fn"), data).attach(
        workflow.content("evaluator")
    )
    workflow.run()
    content = json.loads((tmp_path / "metrics.json").read_text())
    report = json.loads((tmp_path / "run" / "eval" / "report.json").read_text())
    assert (content["n_images"], content["n_failed"]) == (3, 0)
    for kind in ("pooled", "per_image_mean"):
        assert {name: content[kind][name] for name in report["all"][kind]} == report["all"][kind]
        assert 0 <= content[kind]["coco_ap"] <= content[kind]["coco_ap50"] <= 1
    assert [row["image"] for row in content["images"]] == [entry["image"] for entry in data]


def test_in_a_workflow_with_a_bad_image(make, data, tmp_path):
    make().run()
    listed = json.loads(data.read_text())
    bad = data.parent / "bad.png"
    bad.write_bytes(b"not an image")
    listed["testing"][0]["image"] = "bad.png"
    (data.parent / "with_bad.json").write_text(json.dumps(listed))
    workflow = make(mode="eval", datalist=str(data.parent / "with_bad.json"))
    entries = workflow.content("dataset").data
    handler = MetricsFile(tmp_path / "metrics.json", workflow.content("key_metric_fn"), entries)
    handler.attach(workflow.content("evaluator"))
    with pytest.raises(CellBundleError, match=r"1 of 3 images.*bad\.png"):
        workflow.run()
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert (content["n_images"], content["n_failed"]) == (2, 1)
