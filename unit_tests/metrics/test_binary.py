"""The IoU of binary masks: values by hand, empty images, many images, and use in an engine."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from cellbundle.errors import ArrayError
from cellbundle.evaluation import format_report, summarise
from cellbundle.metrics import BinaryScores, InstanceScoresHandler, binary_output, image_scores
from cellbundle.metrics.binary import binary_scores

TRUE = torch.tensor([[[1, 1, 0, 4, 4, 4]]])
PRED = torch.tensor([[[2, 2, 0, 0, 0, 0]]])
MASK = torch.tensor([[[True, True, True, False, False, True]]])
EMPTY = torch.zeros(1, 1, 6, dtype=torch.int32)


def item(index, true=TRUE, pred=PRED, mask=MASK):
    return {"index": index, "label": true, "pred": pred, "binary": mask}


def test_values_by_hand():
    true, pred = np.array([[1, 1, 0, 1, 0]], bool), np.array([[1, 0, 1, 1, 0]], bool)
    assert binary_scores(true, pred) == {"binary_iou": 2 / 4, "source_iou": 2 / 4, "binary_dice": pytest.approx(4 / 6)}
    assert set(binary_scores(true, ~true).values()) == {0}
    assert set(binary_scores(true, true).values()) == {1}


def test_both_conventions_for_images_without_cells():
    nothing = np.zeros((3, 4), bool)
    assert binary_scores(nothing, nothing) == {"binary_iou": 1, "source_iou": 0, "binary_dice": 1}
    assert set(binary_scores(nothing, ~nothing).values()) == {0}


def test_masks_of_one_shape():
    with pytest.raises(ArrayError, match=r"one shape.*\(2, 3\) and \(3, 2\)"):
        binary_scores(np.zeros((2, 3), bool), np.zeros((3, 2), bool))
    with pytest.raises(ArrayError, match=r"\(2, H, W\).*\(1, 1, 6\).*binary_output"):
        BinaryScores()([PRED], [TRUE])


def test_the_mask_counts_and_not_the_instances():
    metric = BinaryScores()
    predictions, labels, indices = binary_output([item(0)])
    metric(predictions, labels, index=indices)
    scores = metric.images()[0]
    assert scores["binary_iou"] == 3 / 6
    assert scores["iou"] == 2 / 5
    assert {k: v for k, v in scores.items() if k in image_scores(TRUE.numpy(), PRED.numpy())} == image_scores(
        TRUE.numpy(), PRED.numpy()
    )


def test_mean_over_images_each_counted_once():
    metric = BinaryScores()
    for items in ([item(0)], [item(1, mask=TRUE > 0), item(2, EMPTY, EMPTY, EMPTY > 0)], [item(1, mask=TRUE > 0)], []):
        if items:
            predictions, labels, indices = binary_output(items)
            metric(predictions, labels, index=indices)
    result = metric.aggregate()
    assert result["n_images"] == 3
    assert result["per_image_mean"]["binary_iou"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert result["per_image_mean"]["source_iou"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert "binary_iou" not in result["pooled"]


def test_in_an_engine():
    """A failed image gives an empty output."""
    engine = Engine(lambda engine, output: output)
    metric = BinaryScores()
    handler = InstanceScoresHandler(metric, binary_output, key="binary_iou", logged=["source_iou", "ap50"])
    handler.attach(engine, "key_score")
    engine.run([[item(0)], [], [item(1, mask=TRUE > 0)]])
    assert engine.state.metrics == {"source_iou": 0.75, "ap50": 0.5, "key_score": 0.75}


def test_the_report_has_a_column_where_there_are_masks():
    import pandas as pd

    metric = BinaryScores()
    predictions, labels, indices = binary_output([item(0)])
    metric(predictions, labels, index=indices)
    rows = [{"image": "a", "group": "g", **metric.images()[0]}]
    lines = format_report(summarise(pd.DataFrame(rows))).splitlines()
    assert lines[0].endswith("| dice | binary_iou |")
    assert lines[-1].endswith("| 0.500 |")
    plain = [{"image": "a", "group": "g", **image_scores(TRUE.numpy(), PRED.numpy())}]
    assert "binary_iou" not in format_report(summarise(pd.DataFrame(plain)))
