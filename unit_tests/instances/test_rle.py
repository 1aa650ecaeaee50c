"""Masks as run lengths, both ways: by hand, and against pycocotools."""

import math

import numpy as np
import pytest

from cellbundle.errors import ArrayError, ConfigError
from cellbundle.instances.overlaps import labels_to_rles, masks_to_labels, rles_to_labels
from cellbundle.instances.rle import FORMS

from .overlapping import assert_equal, drawn, plain_loop


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("coco", ["024", "3110", "6"]),
        ("kaggle", ["1 2", "4 1 6 1", ""]),
        ("kaggle_rows", ["1 1 4 1", "5 2", ""]),
    ],
)
def test_run_lengths_by_hand(form, expected):
    labels = np.array([[1, 0, 0], [1, 2, 2]])
    rles = labels_to_rles(labels.astype(np.uint8), form)
    assert rles == expected[:2]
    with_absent = labels_to_rles(np.where(labels == 2, 3, labels), form)
    assert with_absent == [expected[0], expected[2], expected[1]]
    assert_equal(rles_to_labels([*rles, expected[2]], [3, 2, 1], (2, 3), form), (labels, [0, 1]))


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths_are_those_of_pycocotools_after_a_plain_loop(seed):
    coco = pytest.importorskip("pycocotools.mask")
    _, _, scores, masks = drawn(30, ((1, 1), (70, 90), (300, 5))[seed % 3], seed)
    encoded = [coco.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    expected = plain_loop(masks, scores, min_size=3)
    texts = labels_to_rles(masks_to_labels(masks, scores, min_size=3)[0])
    assert texts == [
        coco.encode(np.asfortranarray(expected[0] == label, np.uint8))["counts"].decode()
        for label in range(1, len(expected[1]) + 1)
    ]
    flat = [np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=~mask[0, 0], append=~mask[-1, -1])) for mask in masks]
    lists = [[0] * int(mask[0, 0]) + np.diff(ends).tolist() for mask, ends in zip(masks, flat, strict=True)]
    for rles in (
        encoded,
        [rle["counts"] for rle in encoded],
        [rle["counts"].decode() for rle in encoded],
        lists,
        [{"size": list(masks.shape[1:]), "counts": counts} for counts in lists],
    ):
        assert_equal(rles_to_labels(rles, scores, masks.shape[1:], min_size=3), expected)


@pytest.mark.parametrize("form", FORMS)
def test_large_counts_and_lone_pixels_survive(form):
    labels = np.zeros((1500, 1400), np.int32)
    labels[3, 7] = labels[-1, 0] = labels[-1, -1] = 1
    labels[700:, 600:1200] = 2
    rles = labels_to_rles(labels, form)
    assert_equal(rles_to_labels(rles, [2, 1], labels.shape, form), (labels, [0, 1]))


@pytest.mark.parametrize(
    ("form", "rle", "message"),
    [
        ("kaggle", "1 2 3", "start and length.* 3 numbers"),
        ("kaggle", "1 x", "invalid literal .* 'x'"),
        ("kaggle", "1 2.5", "invalid literal"),
        ("kaggle", "1 99999999999999999999", "too large"),
        ("kaggle", math.nan, "text.* nan"),
        ("kaggle", None, "text.* None"),
        ("kaggle", "0 1", "run 0 .*start -1.*length 1"),
        ("kaggle_rows", "6 2", r"run 0 .* 6 pixels"),
        ("kaggle", "8 0", "run 0"),
        ("kaggle", "1 9223372036854775807", "run 0"),
        ("kaggle", "-9223372036854775808 1", "run 0"),
        ("kaggle", "3 -1", "run 0"),
        ("kaggle", "1 3 3 1", "run 1 .* 6 pixels"),
        ("kaggle", "5 1 1 1", "run 1 .* 6 pixels"),
        ("coco", "06x", "counts.* pixels|characters"),
        ("coco", "0", " 0 pixels.* 6"),
        ("coco", "", " 0 pixels.* 6"),
        ("coco", "07", " 7 pixels.* 6"),
        ("coco", "0 6", "characters from 1 "),
        ("coco", "0\x7f", "characters from 1 "),
        ("coco", "0é", "characters from 1 "),
        ("coco", b"06\x00", "characters from 2 "),
        ("coco", "0" + "o" * 30 + "0", "characters from 1 "),
        ("coco", "05o", "characters from 2 "),
        ("coco", "0K;", "run 0 .* length -5"),
        ("coco", [0, 7, -1], "run 0"),
        ("coco", [-1, 7], r"start -1"),
        ("coco", [2, 3, -1, 2], "run 1"),
        ("coco", [1, 2, 4], " 7 pixels.* 6"),
        ("coco", [2**62, 2**62, 2**62, 2**62, 6], "run 0"),
        ("coco", [2**63, 6], "too large"),
        ("coco", [0, 6.0], "'float'"),
        ("coco", [0, "6"], "'str'"),
        ("coco", 6, "'int'"),
        ("coco", None, "NoneType"),
        ("coco", {"size": [3, 2], "counts": "06"}, r"size.*\[3, 2\].*\[2, 3\]"),
        ("coco", {"size": [2, 3]}, "'counts'"),
        ("coco", {"size": 6, "counts": "06"}, "'int'"),
    ],
)
def test_broken_run_lengths_are_refused(form, rle, message):
    whole = "06" if form == "coco" else "1 6"
    assert_equal(rles_to_labels([whole], [1], (2, 3), form), (np.ones((2, 3)), [0]))
    with pytest.raises(ArrayError, match=f"mask 1.*({message})"):
        rles_to_labels([whole, rle], [1, 2], (2, 3), form)


def test_random_text_never_does_harm():
    rng = np.random.default_rng(0)
    for _ in range(500):
        text = bytes(rng.integers(40, 120, rng.integers(0, 12)).astype(np.uint8))
        try:
            labels, _ = rles_to_labels([text], [1], (3, 4))
        except ArrayError as error:
            assert "mask 0" in str(error)  # noqa: PT017  (most texts are broken, not all)
        else:
            assert set(np.unique(labels)) <= {0, 1}


def test_what_does_not_fit_run_lengths_is_refused():
    with pytest.raises(ArrayError, match="2 scores and 1 masks"):
        rles_to_labels(["06"], [1, 2], (2, 3))
    with pytest.raises(ConfigError, match=r"form.*'yolo'.*coco, kaggle, kaggle_rows"):
        rles_to_labels([], [], (2, 3), "yolo")
    with pytest.raises(ConfigError, match=r"form.*'row'.*coco, kaggle"):
        labels_to_rles(np.zeros((2, 2), int), "row")
    with pytest.raises(ArrayError, match="2-D integer"):
        labels_to_rles(np.zeros((2, 2)))
    with pytest.raises(ArrayError, match=r"id 9 .*\(2, 2\)"):
        labels_to_rles(np.full((2, 2), 9))
