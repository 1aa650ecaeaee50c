"""Scores of many images: pooled and mean values, the buffer, and use in an engine."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import from_engine

from cellbundle.errors import ArrayError
from cellbundle.metrics import InstanceScores, InstanceScoresHandler, image_scores, pool


def maps(n_images=6, seed=0):
    """Label maps (1, 24, 24) of 3x3 squares, and copies with some squares lost, cut or invented."""
    rng = np.random.default_rng(seed)
    shift = np.ones((4, 4), np.int32)
    shift[3] = shift[:, 3] = 0
    true = rng.permuted(np.tile(np.arange(36, dtype=np.int32), (n_images, 1)), axis=1).reshape(-1, 6, 6)
    pred = true * (rng.random(true.shape) > 0.2)
    true = true * (rng.random(true.shape) > 0.1)
    true, pred = (np.kron(labels, shift[None])[:, None] for labels in (true, pred))
    pred[rng.random(pred.shape) < 0.15] = 0
    return list(true.astype(np.int32)), list(pred.astype(np.int32))


def test_pooled_and_mean_differ_and_are_exact():
    large = np.kron(np.arange(1, 10, dtype=np.int32).reshape(3, 3), np.ones((2, 2), np.int32))
    small = np.where(large == 1, 1, 0)
    result = pool([image_scores(large, large), image_scores(small, 0 * small), image_scores(0 * small, 0 * small)])
    assert result["n_images"] == 3
    pooled, mean = result["pooled"], result["per_image_mean"]
    assert (pooled["n_true"], pooled["n_pred"]) == (10, 9)
    assert (pooled["tp50"], pooled["fp50"], pooled["fn50"]) == (9, 0, 1)
    assert pooled["ap50"] == pooled["ap_mean"] == 9 / 10
    assert (pooled["precision50"], pooled["recall50"]) == (1, 9 / 10)
    assert pooled["rq"] == pooled["f150"] == pooled["pq"] == 18 / 19
    assert mean["ap50"] == mean["f150"] == mean["pq"] == mean["aji"] == mean["dice"] == mean["iou"] == 2 / 3
    assert "aji" not in pooled
    assert "tp50" not in mean


def test_pool_of_one_image_is_its_scores():
    true, pred = maps(1)
    scores = image_scores(true[0], pred[0])
    result = pool([scores])
    assert scores == result["pooled"] | result["per_image_mean"]


def test_no_image_is_an_error():
    with pytest.raises(ArrayError, match=r"no image.*data list"):
        pool([])
    with pytest.raises(ArrayError, match=r"no image.*data list"):
        InstanceScores().aggregate()


@pytest.mark.parametrize(
    "convert", [list, lambda arrays: [MetaTensor(a) for a in arrays], lambda arrays: torch.tensor(np.stack(arrays))]
)
def test_the_metric_equals_pool(convert):
    true, pred = maps()
    metric = InstanceScores()
    rows = metric(convert(pred), convert(true))
    assert rows.shape == metric.get_buffer().shape == (6, len(metric.names))
    assert metric.aggregate() == pool([image_scores(t, p) for t, p in zip(true, pred, strict=True)])
    assert isinstance(metric.aggregate()["pooled"]["tp50"], int)
    metric.reset()
    assert len(metric) == 0


def test_two_halves_joined_equal_one():
    true, pred = maps()
    whole, first, second, joined = (InstanceScores() for _ in range(4))
    whole(pred, true, index=range(6))
    first(pred[::2], true[::2], index=[0, 2, 4])
    second(pred[1::2], true[1::2], index=[1, 3, 5])
    joined.extend(torch.cat([first.get_buffer(), second.get_buffer()]))
    assert joined.aggregate() == whole.aggregate()


def test_repeated_images_count_once_if_numbered():
    true, pred = maps()
    once, padded, unnumbered = (InstanceScores() for _ in range(3))
    once(pred, true, index=range(6))
    for batch in ([0, 1, 2, 3], [4, 5, 0, 1]):
        padded([pred[k] for k in batch], [true[k] for k in batch], index=torch.tensor(batch))
        unnumbered([pred[k] for k in batch], [true[k] for k in batch])
    assert padded.aggregate() == once.aggregate()
    assert unnumbered.aggregate()["n_images"] == 8


def test_a_process_without_images_has_a_buffer_to_share():
    metric = InstanceScores(thresholds=(0.5,))
    assert metric.get_buffer().shape == (0, len(metric.names))
    assert metric.get_buffer().dtype == torch.float64


@pytest.mark.parametrize(("n_pred", "n_true", "index"), [(1, 2, None), (2, 1, None), (2, 2, [0])])
def test_lengths_must_agree(n_pred, n_true, index):
    true, pred = maps(2)
    with pytest.raises(ArrayError, match="prediction, label map and index"):
        InstanceScores()(pred[:n_pred], true[:n_true], index=index)


def test_a_misspelt_argument_is_refused():
    true, pred = maps(1)
    with pytest.raises(TypeError, match="indices"):
        InstanceScores()(pred, true, indices=[0])


def test_float_predictions_are_refused():
    true, pred = maps(1)
    with pytest.raises(ArrayError, match="float32"):
        InstanceScores()([pred[0].astype(np.float32)], true)


@pytest.mark.parametrize("numbered", [True, False])
def test_the_handler_logs_pooled_scores(numbered):
    true, pred = maps()
    items = [{"pred": p, "label": t, "index": k} for k, (t, p) in enumerate(zip(true, pred, strict=True))]
    keys = ["pred", "label", "index"] if numbered else ["pred", "label"]
    options = {"key": "ap_mean", "logged": ["pq"], "summary": "pooled"}
    handler = InstanceScoresHandler(InstanceScores(), output_transform=from_engine(keys), **options)
    engine = Engine(lambda _, batch: batch)
    handler.attach(engine, "val_ap")
    state = engine.run([items[:4], items[4:], items[:2]])
    report = handler.metric_fn.aggregate()
    assert report["n_images"] == (6 if numbered else 8)
    assert state.metrics == {"val_ap": report["pooled"]["ap_mean"], "pq": report["pooled"]["pq"]}
    assert state.metric_details["val_ap"].shape == (8, len(handler.metric_fn.names))
