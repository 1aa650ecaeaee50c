"""Scores of one image: exact values, invariants, and other packages as oracles."""

import numpy as np
import pytest
from skimage.draw import disk
from skimage.segmentation import relabel_sequential

from cellbundle.errors import ArrayError, ConfigError
from cellbundle.metrics import IOU_THRESHOLDS, aggregated_jaccard, image_scores, overlap_table

EMPTY = np.zeros((4, 6), np.int32)
COUNTS = ("n_", "tp", "fp", "fn", "iou_sum")


def ratios(scores):
    return {name: value for name, value in scores.items() if not name.startswith(COUNTS)}


def discs(shift=0, radius=8, grid=4, pitch=24):
    """A grid of discs, all moved by ``shift`` pixels in x."""
    labels = np.zeros((grid * pitch, grid * pitch + pitch), np.int32)
    for k in range(grid * grid):
        y, x = divmod(k, grid)
        labels[disk((y * pitch + pitch // 2, x * pitch + pitch // 2 + shift), radius)] = k + 1
    return labels


def noisy_maps(seed, shape=(40, 50)):
    """Discs of random size and place, and the same ones moved, lost or added."""
    rng = np.random.default_rng(seed)
    maps = np.zeros((2, *shape), np.int32)
    for k in range(1, rng.integers(3, 15)):
        centre, radius = rng.uniform(0, shape), rng.uniform(2, 7)
        keep = rng.random(2) > 0.15
        for labels, move, kept in zip(maps, ([0, 0], rng.normal(0, 1, 2)), keep, strict=True):
            if kept:
                labels[disk(centre + move, radius, shape=shape)] = k
    return maps


def test_thresholds_are_exact_decimals():
    assert IOU_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_all_scores_of_a_small_image_by_hand():
    true = np.array([[1, 1, 1, 0, 2, 2, 0, 0], [1, 1, 1, 0, 2, 2, 0, 3]])
    pred = np.array([[9, 9, 9, 0, 4, 0, 0, 0], [9, 9, 0, 0, 4, 0, 8, 0]])
    # IoU: 1-9 5/6, 2-4 2/4; 3 is missed, 8 is invented.
    scores = image_scores(true, pred)
    assert (scores["n_true"], scores["n_pred"]) == (3, 3)
    tp = {50: 2, 55: 1, 60: 1, 65: 1, 70: 1, 75: 1, 80: 1, 85: 0, 90: 0, 95: 0}
    for percent, count in tp.items():
        assert (scores[f"tp{percent}"], scores[f"fp{percent}"], scores[f"fn{percent}"]) == (count, 3 - count, 3 - count)
    expected = {
        "ap50": 2 / 4,
        "ap75": 1 / 5,
        "ap95": 0,
        "ap_mean": (2 / 4 + 6 * 1 / 5) / 10,
        "precision50": 2 / 3,
        "recall50": 2 / 3,
        "f150": 2 / 3,
        "rq": 2 / 3,
        "sq": (5 / 6 + 1 / 2) / 2,
        "pq": (5 / 6 + 1 / 2) / 3,
        "aji": (5 + 2) / (6 + 4 + 1 + 1),
        "dice": 2 * 7 / (11 + 8),
        "iou": 7 / 12,
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("threshold", IOU_THRESHOLDS)
def test_an_iou_of_exactly_the_threshold_counts(threshold):
    area, shared = 100, round(100 * threshold)
    true, pred = np.zeros((2, area), int)
    true[:] = 1
    pred[:shared] = 1
    percent = round(100 * threshold)
    assert image_scores(true, pred)[f"tp{percent}"] == 1
    pred[shared - 1] = 0
    assert image_scores(true, pred)[f"tp{percent}"] == 0


@pytest.mark.parametrize("true", [EMPTY, np.zeros((0, 0), np.uint8)])
def test_two_empty_maps_score_one(true):
    scores = image_scores(true, true)
    assert (scores["n_true"], scores["n_pred"], scores["tp50"]) == (0, 0, 0)
    assert set(ratios(scores).values()) == {1.0}


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_map_scores_zero(swap):
    pair = (EMPTY, np.ones_like(EMPTY))
    assert set(ratios(image_scores(*(pair[::-1] if swap else pair))).values()) == {0.0}


def test_a_perfect_prediction_scores_one():
    labels = discs()
    scores = image_scores(labels, labels)
    assert set(ratios(scores).values()) == {1.0}
    assert (scores["tp95"], scores["fp95"], scores["fn95"]) == (16, 0, 0)


@pytest.mark.parametrize(("shift", "found"), [(1, True), (4, True), (6, False), (11, False)])
def test_shifted_discs_are_all_found_or_all_lost(shift, found):
    true, pred = discs(), discs(shift)
    one = true == 1, pred == 1
    iou = (one[0] & one[1]).sum() / (one[0] | one[1]).sum()
    assert (iou >= 0.5) == found
    scores = image_scores(true, pred)
    assert (scores["tp50"], scores["fp50"], scores["fn50"]) == ((16, 0, 0) if found else (0, 16, 16))
    assert scores["sq"] == pytest.approx(iou if found else 0)


@pytest.mark.parametrize(
    "renumber",
    [
        lambda ids: ids[::-1],
        lambda ids: np.random.default_rng(0).permutation(ids),
        lambda ids: ids * 7,
        lambda ids: np.where(ids == 3, 1000, ids),
        lambda ids: np.where(ids == 3, 2**31 + 7, ids),
        lambda ids: ids + 2**60,
    ],
)
@pytest.mark.parametrize("side", ["true", "pred", "both"])
def test_the_ids_do_not_matter(renumber, side):
    true, pred = discs(), discs(3)
    new = np.concatenate([[0], renumber(np.arange(1, 17, dtype=np.int64))])
    changed = image_scores(new[true] if side != "pred" else true, new[pred] if side != "true" else pred)
    assert changed == pytest.approx(image_scores(true, pred), rel=1e-12)


def test_a_perfect_prediction_with_one_id_1000():
    labels = np.zeros((8, 8), np.int32)
    labels[2:5, 2:5] = 1000
    scores = image_scores(labels, labels)
    assert (scores["n_true"], scores["ap50"], scores["ap_mean"], scores["aji"]) == (1, 1, 1, 1)


@pytest.mark.parametrize("seed", range(20))
def test_identities_on_random_maps(seed):
    true, pred = noisy_maps(seed)
    scores, swapped = image_scores(true, pred), image_scores(pred, true)
    assert scores["rq"] == scores["f150"]
    assert scores["pq"] == pytest.approx(scores["sq"] * scores["rq"])
    assert scores["dice"] == pytest.approx(2 * scores["iou"] / (1 + scores["iou"]))
    assert scores["ap50"] == pytest.approx(scores["f150"] / (2 - scores["f150"]))
    assert scores["ap_mean"] == pytest.approx(np.mean([scores[f"ap{round(100 * t)}"] for t in IOU_THRESHOLDS]))
    assert all(0 <= value <= 1 for value in ratios(scores).values())
    assert scores["aji"] <= scores["iou"] + 1e-12
    assert scores["precision50"] == swapped["recall50"]
    assert scores["pq"] == pytest.approx(swapped["pq"])


def test_aji_lets_two_true_instances_share_a_prediction():
    true = np.array([[1, 1, 1, 2, 2, 0]])
    pred = np.array([[1, 1, 1, 1, 1, 0]])
    assert aggregated_jaccard(overlap_table(true, pred)) == (3 + 2) / (5 + 5)


def aji_with_loops(true, pred):
    """Kumar et al. 2017, algorithm 1, as written."""
    inter = union = 0
    used = set()
    for i in np.unique(true[true > 0]):
        candidates = []
        for j in np.unique(pred[(true == i) & (pred > 0)]):
            both, either = ((true == i) & (pred == j)).sum(), ((true == i) | (pred == j)).sum()
            candidates.append((both / either, both, either, j))
        _, both, either, j = max(candidates, default=(0, 0, (true == i).sum(), None))
        inter, union, used = inter + both, union + either, used | {j}
    return inter / (union + sum((pred == j).sum() for j in np.unique(pred[pred > 0]) if j not in used))


@pytest.mark.parametrize("seed", range(10))
def test_aji_equals_the_published_algorithm(seed):
    true, pred = noisy_maps(seed)
    assert aggregated_jaccard(overlap_table(true, pred)) == pytest.approx(aji_with_loops(true, pred), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_ap_agrees_with_cellpose(seed):
    metrics = pytest.importorskip("cellpose.metrics")
    true, pred = (relabel_sequential(labels)[0] for labels in noisy_maps(seed))
    ap, tp, fp, fn = metrics.average_precision(true, pred, threshold=list(IOU_THRESHOLDS))
    scores = image_scores(true, pred)
    for k, percent in enumerate(round(100 * threshold) for threshold in IOU_THRESHOLDS):
        assert (scores[f"tp{percent}"], scores[f"fp{percent}"], scores[f"fn{percent}"]) == (tp[k], fp[k], fn[k])
        assert scores[f"ap{percent}"] == pytest.approx(ap[k], abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_stardist(seed):
    stardist = pytest.importorskip("stardist.matching")
    true, pred = noisy_maps(seed)
    scores = image_scores(true, pred)
    for percent in (50, 75, 90):
        reference = stardist.matching(true, pred, thresh=percent / 100)
        assert (scores[f"tp{percent}"], scores[f"fp{percent}"]) == (reference.tp, reference.fp)
        assert scores[f"ap{percent}"] == pytest.approx(reference.accuracy, abs=1e-6)
    reference = stardist.matching(true, pred, thresh=0.5)
    assert scores["f150"] == pytest.approx(reference.f1, abs=1e-6)
    assert scores["pq"] == pytest.approx(reference.panoptic_quality, abs=1e-6)
    assert scores["sq"] == pytest.approx(reference.mean_matched_score, abs=1e-6)


def test_other_thresholds():
    scores = image_scores(discs(), discs(3), thresholds=[0.3, 0.5])
    assert scores["ap30"] == 1
    assert scores["ap_mean"] == (scores["ap30"] + scores["ap50"]) / 2
    assert "ap75" not in scores


@pytest.mark.parametrize("thresholds", [(), (0.6,), (0.5, 0.555), (0.5, 0.0), (0.5, 1.5)])
def test_bad_thresholds_are_refused(thresholds):
    with pytest.raises(ConfigError, match=r"IoU threshold"):
        image_scores(EMPTY, EMPTY, thresholds)


def test_bad_maps_are_refused():
    with pytest.raises(ArrayError, match=r"true.*\(4, 6\).*pred.*\(4, 5\)"):
        image_scores(EMPTY, EMPTY[:, :5])
