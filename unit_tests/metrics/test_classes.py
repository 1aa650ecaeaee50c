"""Scores by class: exact values of small maps, absent classes, bad input."""

import numpy as np
import pytest

from cellbundle.errors import ArrayError
from cellbundle.metrics import overlap_table
from cellbundle.metrics.classes import (
    class_confusion,
    class_scores,
    count_class_pixels,
    majority_classes,
    mean_known,
)

TRUE = np.array([[1, 1, 1, 1, 0, 2], [1, 1, 0, 0, 0, 2]], np.uint8)
PRED = np.array([[1, 1, 1, 0, 0, 1], [1, 2, 0, 3, 3, 2]], np.uint8)

# Squares of 4 pixels: 5 true ones, of which 10 and 20 are found with their class, 30 with another, 40 and 50 missed.
TRUE_IDS = np.repeat([[10, 20, 30, 40, 50, 0, 0]], 2, axis=0).repeat(2, axis=1)
PRED_IDS = np.repeat([[3, 9, 5, 0, 0, 7, 1]], 2, axis=0).repeat(2, axis=1)
TRUE_CLASSES = np.array([1, 1, 1, 1, 2])  # of 10, 20, 30, 40, 50
PRED_CLASSES = np.array([2, 1, 2, 1, 1])  # of 1, 3, 5, 7, 9


def confusion(true=TRUE_CLASSES, pred=PRED_CLASSES, n=3):
    return class_confusion(overlap_table(TRUE_IDS, PRED_IDS), true, pred, n)


def scores_of(pixels, table):
    return class_scores(np.array(pixels), np.array(table))


def test_pixels_by_hand():
    assert count_class_pixels(TRUE, PRED, 4).tolist() == [[4, 6, 5], [1, 2, 2], [0, 0, 2], [0, 0, 0]]


def test_iou_and_dice_by_hand():
    one, two, three, four = scores_of(count_class_pixels(TRUE, PRED, 4), np.zeros((5, 5), int))
    assert (one["iou"], one["dice"]) == (4 / 7, 8 / 11)
    assert (two["iou"], two["dice"]) == (1 / 3, 2 / 4)
    assert (three["iou"], three["dice"]) == (0, 0)  # predicted where there is none: wrong, not absent
    assert (four["iou"], four["dice"]) == (None, None)


def test_absent_classes_are_left_out_of_the_mean():
    rows = scores_of(count_class_pixels(TRUE, PRED, 4), np.zeros((5, 5), int))
    assert mean_known(rows, ["iou"]) == {"iou": pytest.approx((4 / 7 + 1 / 3 + 0) / 3)}
    assert mean_known(rows[3:], ["iou", "dice"]) == {"iou": None, "dice": None}


def test_background_is_no_class():
    empty = np.zeros((4, 4), int)
    assert count_class_pixels(empty, empty, 2).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_confusion_by_hand():
    # Rows true, columns predicted: 10-3 and 20-9 agree, 30-5 differ, 40 and 50 are missed, 7 and 1 are extra.
    assert confusion().tolist() == [[0, 1, 1, 0], [1, 2, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_instance_scores_by_hand():
    one, two, three = scores_of(np.zeros((3, 3), int), confusion())
    assert (one["n_true"], one["n_pred"], one["tp"]) == (4, 3, 2)
    assert (one["precision"], one["recall"], one["f1"]) == (2 / 3, 2 / 4, 4 / 7)
    assert (two["n_true"], two["n_pred"], two["precision"], two["recall"], two["f1"]) == (1, 2, 0, 0, 0)
    assert [three[key] for key in ("precision", "recall", "f1", "matched_f1")] == [None] * 4


def test_matched_pairs_alone():
    one, two, _ = scores_of(np.zeros((3, 3), int), confusion())
    assert (one["matched_precision"], one["matched_recall"], one["matched_f1"]) == (1, 2 / 3, 4 / 5)
    assert (two["matched_precision"], two["matched_recall"], two["matched_f1"]) == (0, 0, 0)  # 30-5: 2 for 1


def test_an_instance_without_a_class_counts_as_not_there():
    table = confusion(pred=np.array([2, 0, 2, 1, 1]))  # 3, the match of 10, has none
    assert table[1].tolist() == [2, 1, 1, 0]
    assert table.sum() == 7
    assert confusion(true=np.zeros(5, int), pred=np.zeros(5, int)).sum() == 0


def test_the_class_of_an_instance_does_not_change_what_it_matches():
    assert confusion(pred=np.array([1, 2, 1, 2, 2]))[1:, 1:].sum() == confusion()[1:, 1:].sum() == 3


def test_a_match_needs_half():
    true, pred = np.zeros((2, 4), int)
    true[:] = pred[:2] = 1
    ones = np.array([1])
    assert class_confusion(overlap_table(true, pred), ones, ones, 1).tolist() == [[0, 0], [0, 1]]
    pred[1] = 0
    assert class_confusion(overlap_table(true, pred), ones, ones, 1).tolist() == [[0, 1], [1, 0]]


def test_majority():
    labels = np.array([[7, 7, 7, 4, 4, 4, 9, 9, 2, 2]])
    classes = np.array([[0, 3, 3, 1, 2, 2, 0, 0, 2, 1]])
    # In the order 2, 4, 7, 9; background is no vote, of equals the lowest.
    assert majority_classes(labels, classes, 3).tolist() == [1, 2, 3, 0]
    labels = np.array([[1, 1, 1, 1, 1]])
    assert majority_classes(labels, np.array([[0, 0, 0, 0, 2]]), 3).tolist() == [2]
    assert majority_classes(labels * 0, labels, 3).tolist() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: count_class_pixels(TRUE, PRED, 2), r"predicted classes.* 0\.\.2.* 0\.\.3"),
        (lambda: count_class_pixels(TRUE, PRED[:1], 3), r"same shape.*\(2, 6\).*\(1, 6\)"),
        (lambda: count_class_pixels(TRUE.astype(float), PRED, 3), "true classes.*2-D integer.*float64"),
        (lambda: majority_classes(TRUE, PRED, 1), r"classes.* 0\.\.1.* 0\.\.3"),
        (lambda: majority_classes(TRUE, PRED[:, :3], 3), r"same shape.*\(2, 6\).*\(2, 3\)"),
        (lambda: confusion(true=np.array([1, 1])), r"true classes.* 5 instances.*\(2,\)"),
        (lambda: confusion(n=1), r"true classes.* 0\.\.1.* 0\.\.2"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ArrayError, match=message):
        call()
