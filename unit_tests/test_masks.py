"""Overlapping masks to one map, and run lengths both ways: by hand, and against a plain loop and pycocotools."""

import math

import numpy as np
import pytest

from cellbundle.errors import ArrayError, ConfigError
from cellbundle.masks import FORMS, labels_to_rles, masks_to_labels, rles_to_labels

LEFT, MIDDLE = [[1, 1, 1, 0, 0]], [[0, 1, 1, 1, 0]]
CROP = np.ones((2, 3), bool)


def stack(*masks):
    """(N, H, W) uint8."""
    return np.array(masks, np.uint8)


def drawn(n, shape, seed):
    """Rectangles with holes that overlap: crops, their boxes, scores with ties, and the same masks as a stack."""
    rng = np.random.default_rng(seed)
    crops, boxes, masks = [], [], np.zeros((n, *shape), bool)
    for mask in masks:
        height, width = (int(rng.integers(0, size // 2 + 1)) for size in shape)
        y, x = int(rng.integers(0, shape[0] - height + 1)), int(rng.integers(0, shape[1] - width + 1))
        crops.append(rng.random((height, width)) < 0.8)
        boxes.append((y, x, y + height, x + width))
        mask[y : y + height, x : x + width] = crops[-1]
    return crops, np.array(boxes).reshape(-1, 4), rng.integers(0, 5, n) / 4, masks


def plain_loop(masks, scores, min_size=1, max_overlap=1.0):
    """The same rules with one full-size mask after the other."""
    labels, kept = np.zeros(masks.shape[1:], np.int32), []
    for i in sorted(range(len(masks)), key=lambda i: -scores[i]):
        free = masks[i] & (labels == 0)
        if free.sum() >= max(1, min_size) and 1 - free.sum() / masks[i].sum() <= max_overlap + 1e-9:
            kept.append(i)
            labels[free] = len(kept)
    return labels, kept


def assert_equal(result, expected):
    labels, kept = result
    assert (labels.dtype, kept.dtype, labels.flags.c_contiguous) == (np.int32, np.int64, True)
    np.testing.assert_array_equal(labels, expected[0])
    assert kept.tolist() == list(expected[1])


@pytest.mark.parametrize(
    ("scores", "rules", "labels", "kept"),
    [
        ([0.9, 0.8], {}, [1, 1, 1, 2, 0], [0, 1]),
        ([0.8, 0.9], {}, [2, 1, 1, 1, 0], [1, 0]),
        ([0.5, 0.5], {}, [1, 1, 1, 2, 0], [0, 1]),  # of equal scores the earlier one
        ([-math.inf, -1], {}, [2, 1, 1, 1, 0], [1, 0]),
        ([0.9, 0.8], {"min_size": 2}, [1, 1, 1, 0, 0], [0]),
        ([0.9, 0.8], {"min_size": 0}, [1, 1, 1, 2, 0], [0, 1]),
        ([0.9, 0.8], {"max_overlap": 2 / 3}, [1, 1, 1, 2, 0], [0, 1]),
        ([0.9, 0.8], {"max_overlap": 0.66}, [1, 1, 1, 0, 0], [0]),
    ],
)
def test_two_masks_by_hand(scores, rules, labels, kept):
    assert_equal(masks_to_labels(stack(LEFT, MIDDLE), scores, **rules), ([labels], kept))


@pytest.mark.parametrize("rules", [{"min_size": 2}, {"max_overlap": 0.5}])
def test_the_pixels_of_a_dropped_mask_are_free_for_the_next(rules):
    masks = stack(LEFT, MIDDLE, [[0, 0, 0, 1, 1]])
    assert_equal(masks_to_labels(masks, [3, 2, 1], **rules), ([[1, 1, 1, 2, 2]], [0, 2]))


def test_a_mask_that_lost_all_pixels_has_no_id():
    masks = stack([[1, 1, 1]], [[0, 1, 0]], [[0, 0, 0]])
    assert_equal(masks_to_labels(masks, [2, 1, 3]), ([[1, 1, 1]], [0]))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((1, 1, 3, 4), [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1]]),
        ((-1, -1, 1, 2), [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        ((2, 3, 4, 6), [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]),
        ((0, 4, 2, 7), np.zeros((3, 4))),
        ((-9, 0, -7, 3), np.zeros((3, 4))),
        ((8, 9, 10, 12), np.zeros((3, 4))),
    ],
)
def test_boxes_over_the_edge_are_cut(box, expected):
    labels, kept = masks_to_labels([CROP], [1.0], (3, 4), [box])
    assert_equal((labels, kept), (expected, [0] if np.any(expected) else []))


def test_pixels_outside_of_the_image_are_no_overlap():
    crops, boxes = [CROP, CROP], [(0, 0, 2, 3), (1, 2, 3, 5)]
    assert masks_to_labels(crops, [2, 1], (2, 3), boxes, max_overlap=0.9)[1].tolist() == [0]


@pytest.mark.parametrize("seed", range(12))
def test_every_form_of_the_same_masks_gives_what_a_plain_loop_gives(seed):
    rng = np.random.default_rng(seed)
    shape = ((1, 1), (1, 300), (40, 1), (23, 17), (64, 64), (50, 260))[seed % 6]
    crops, boxes, scores, masks = drawn((0, 1, 7, 40)[seed % 4], shape, seed)
    rules = {"min_size": int(rng.integers(0, 12)), "max_overlap": float(rng.choice([0.2, 0.5, 1.0]))}
    expected = plain_loop(masks, scores, **rules)
    strided = masks.repeat(2, axis=2)[:, :, ::2]
    mirrored = masks[:, ::-1, ::-1].copy()[:, ::-1, ::-1]
    read_only = masks.copy()
    read_only.flags.writeable = False
    others = [masks.view(np.uint8) * 255, -masks.astype(np.int64), np.asfortranarray(masks), strided, mirrored]
    for other in [masks, read_only, *others]:
        assert_equal(masks_to_labels(other, scores, **rules), expected)
    assert_equal(masks_to_labels((mask for mask in masks), scores, shape, **rules), expected)
    assert_equal(masks_to_labels(crops, scores.tolist(), shape, boxes, **rules), expected)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (4, 0), (3, 4)])
def test_no_masks_and_no_pixels(shape):
    blank = np.zeros(shape)
    assert_equal(masks_to_labels(np.zeros((0, *shape), bool), []), (blank, []))
    assert_equal(masks_to_labels([], [], shape), (blank, []))
    assert_equal(masks_to_labels([], [], shape, []), (blank, []))
    assert_equal(masks_to_labels(np.zeros((2, *shape), bool), [1, 2]), (blank, []))
    assert_equal(rles_to_labels([], [], shape), (blank, []))
    assert labels_to_rles(blank.astype(int)) == []


def test_masks_as_large_as_the_image():
    masks = np.ones((2, 30, 200), bool)
    assert_equal(masks_to_labels(masks, [1, 2]), (np.ones((30, 200)), [1]))
    assert_equal(masks_to_labels(masks, [1, 2], (30, 200), [(0, 0, 30, 200)] * 2), (np.ones((30, 200)), [1]))


@pytest.mark.parametrize("shape", [(1, 300), (2, 150), (300, 1)])
def test_a_pixel_is_found_wherever_it_is(shape):
    masks = np.eye(300, dtype=bool).reshape(300, *shape)
    expected = np.arange(1, 301).reshape(shape)
    assert_equal(masks_to_labels(masks, np.ones(300)), (expected, range(300)))
    assert_equal(masks_to_labels(list(masks), np.ones(300), shape), (expected, range(300)))


def test_masks_are_taken_one_at_a_time():
    alive = 0

    class Mask(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def make():
        nonlocal alive
        for i in range(20):
            alive += 1
            assert alive <= 2  # the new one, and the last one that is about to be replaced
            mask = np.zeros((1, 20), bool).view(Mask)
            mask[0, i] = True
            yield mask
            del mask

    assert_equal(masks_to_labels(make(), np.arange(20), (1, 20)), ([np.arange(20, 0, -1)], range(19, -1, -1)))


def test_more_masks_than_16_bits_count():
    boxes = np.stack([np.arange(70_000) // 350, np.arange(70_000) % 350], axis=1)
    boxes = np.concatenate([boxes, boxes + 1], axis=1)
    expected = np.arange(1, 70_001).reshape(200, 350)
    scores = -np.arange(70_000)
    assert_equal(masks_to_labels(np.ones((70_000, 1, 1), bool), scores, (200, 350), boxes), (expected, range(70_000)))
    assert_equal(rles_to_labels(labels_to_rles(expected), scores, (200, 350)), (expected, range(70_000)))


def test_any_number_of_threads_gives_the_same(monkeypatch):
    _, _, scores, masks = drawn(50, (90, 70), 0)
    monkeypatch.setattr("cellbundle.masks.MIN_PIXELS_PER_THREAD", 1)
    for threads in ("1", "2", "7", "50"):
        monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", threads)
        assert_equal(masks_to_labels(masks, scores), plain_loop(masks, scores))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 3, 4)), [1, 2]), r"mask 0 .* shape \(3, 4\), got shape \(3, 4\) dtype float64; .* threshold"),
        ((np.zeros((3, 4), bool), [1, 2, 3]), r"shape \(H, W\) of the image .* ndarray of shape \(3, 4\)"),
        (([CROP], [1]), r"shape \(H, W\) of the image .* list"),
        ((CROP[None], [1], None, [(0, 0, 2, 3)]), r"shape \(H, W\) of the image"),
        (([CROP, CROP.T], [1, 2], (2, 3)), r"mask 1 .* shape \(2, 3\), got shape \(3, 2\) dtype bool"),
        (([CROP, None], [1, 2], (2, 3)), r"mask 1 .* got shape \(\) dtype object"),
        (([CROP], [1], (2, 3, 1)), r"shape must be \(H, W\)"),
        (([CROP], [1], (2, -3)), r"shape must be \(H, W\)"),
        (([CROP], [1], 6), r"shape must be \(H, W\)"),
        ((CROP[None], [1, 2]), "2 scores and 1 masks"),
        ((stack(CROP, CROP), [1]), "1 scores and more masks"),
        (([CROP, CROP], [1], (2, 3), [(0, 0, 2, 3)]), "1 scores and more masks"),
        ((CROP[None], [[1]]), r"scores must be a 1-D array .* shape \(1, 1\) dtype int64"),
        ((CROP[None], ["a"]), r"scores must be a 1-D array .* dtype <U1"),
        ((stack(CROP, CROP), [0.5, math.nan]), "score 1 is NaN"),
        (([CROP], [1], (9, 9), [(0, 0, 2)]), r"boxes must be \(1, 4\) integers, got shape \(1, 3\)"),
        (([CROP], [1], (9, 9), [(0.0, 0, 2, 3)]), "boxes must be .* dtype float64"),
        (([CROP], [1], (9, 9), [(0, 0, 2, 3)] * 2), r"boxes must be \(1, 4\)"),
        (([CROP], [1], (9, 9), [(0, 0, 3, 2)]), r"mask 0 .* shape \(3, 2\), got shape \(2, 3\)"),
        (([CROP], [1], (9, 9), [(2, 3, 0, 0)]), r"mask 0 .* shape \(-2, -3\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ArrayError, match=message):
        masks_to_labels(*arguments)


@pytest.mark.parametrize(
    ("masks", "labels", "kept"),
    [
        ([LEFT, [[0, 1, 1, 0, 0]]], [2, 1, 1, 0, 0], [1, 0]),  # the id 1 is that of the smallest
        ([[[0, 1, 1, 0, 0]], LEFT], [2, 1, 1, 0, 0], [0, 1]),
        ([LEFT, MIDDLE], [1, 1, 1, 2, 0], [0, 1]),  # of equal sizes the earlier one
        ([[[0, 0, 0, 0, 0]], LEFT, [[1, 1, 1, 1, 0]]], [1, 1, 1, 2, 0], [1, 2]),
        ([LEFT, LEFT], [1, 1, 1, 0, 0], [0]),
    ],
)
def test_without_scores_the_smaller_mask_is_better(masks, labels, kept):
    assert_equal(masks_to_labels(stack(*masks), None), ([labels], kept))
    assert_equal(masks_to_labels((np.array(mask) for mask in masks), None, (1, 5)), ([labels], kept))
    assert_equal(masks_to_labels(stack(*masks), None, (1, 5), [(0, 0, 1, 5)] * len(masks)), ([labels], kept))
    counts = [" ".join(f"{x + 1} 1" for x in np.flatnonzero(mask)) for mask in masks]
    assert_equal(rles_to_labels(counts, None, (1, 5), "kaggle_rows"), ([labels], kept))
    assert_equal(rles_to_labels(iter(counts), None, (1, 5), "kaggle"), ([labels], kept))


@pytest.mark.parametrize("seed", range(4))
def test_without_scores_every_form_gives_what_a_plain_loop_gives(seed):
    shape = ((23, 17), (64, 64))[seed % 2]
    crops, boxes, _, masks = drawn((0, 7, 40, 25)[seed], shape, seed)
    rules = {"min_size": (1, 5)[seed % 2], "max_overlap": (1.0, 0.5)[seed // 2]}
    expected = plain_loop(masks, -masks.sum(axis=(1, 2)), **rules)
    rles = [" ".join(f"{i + 1} 1" for i in np.flatnonzero(mask)) for mask in masks]
    assert_equal(masks_to_labels(masks, None, **rules), expected)
    assert_equal(masks_to_labels(masks.astype(np.int64), None, **rules), expected)
    assert_equal(masks_to_labels(iter(masks), None, shape, **rules), expected)
    assert_equal(masks_to_labels(iter(crops), None, shape, boxes, **rules), expected)
    assert_equal(rles_to_labels(rles, None, shape, "kaggle_rows", **rules), expected)


def test_without_scores_only_pixels_inside_of_the_image_count():
    crops, boxes = [np.ones((1, 5)), np.ones((1, 2))], [(0, -4, 1, 1), (0, 0, 1, 2)]
    assert_equal(masks_to_labels([crop > 0 for crop in crops], None, (1, 3), boxes), ([[1, 2, 0]], [0, 1]))


@pytest.mark.parametrize("n", [1, 3])
def test_without_scores_there_must_be_a_box_for_each_mask(n):
    with pytest.raises(ArrayError, match=f"as many boxes as masks, got {n} boxes and (more|2) masks"):
        masks_to_labels([CROP, CROP], None, (9, 9), [(0, 0, 2, 3)] * n)
    with pytest.raises(ArrayError, match=r"boxes must be \(1, 4\) integers, got shape \(1, 3\)"):
        masks_to_labels([CROP], None, (9, 9), [(0, 0, 2)])


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_is_from_0_to_1(share):
    with pytest.raises(ConfigError, match="max_overlap"):
        masks_to_labels(CROP[None], [1], max_overlap=share)
    with pytest.raises(ConfigError, match="max_overlap"):
        rles_to_labels([], [], (2, 2), max_overlap=share)


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
        ("kaggle", "1 2 3", "pairs of start and length, got 3 numbers"),
        ("kaggle", "1 x", "invalid literal .* 'x'"),
        ("kaggle", "1 2.5", "invalid literal"),
        ("kaggle", "1 99999999999999999999", "too large"),
        ("kaggle", math.nan, "expected text, got nan"),
        ("kaggle", None, "expected text, got None"),
        ("kaggle", "0 1", r"run 0 \(start -1 from 0, length 1\)"),
        ("kaggle_rows", "6 2", r"run 0 .* 6 pixels"),
        ("kaggle", "8 0", "run 0"),
        ("kaggle", "1 9223372036854775807", "run 0"),
        ("kaggle", "-9223372036854775808 1", "run 0"),
        ("kaggle", "3 -1", "run 0"),
        ("kaggle", "1 3 3 1", "run 1 .* behind"),
        ("kaggle", "5 1 1 1", "run 1 .* behind"),
        ("coco", "06x", "add up|are no number"),
        ("coco", "0", "add up to 0 pixels, the image has 6"),
        ("coco", "", "add up to 0"),
        ("coco", "07", "add up to 7"),
        ("coco", "0 6", "characters from 1 on"),
        ("coco", "0\x7f", "characters from 1 on"),
        ("coco", "0é", "characters from 1 on"),
        ("coco", b"06\x00", "characters from 2 on"),
        ("coco", "0" + "o" * 30 + "0", "characters from 1 on"),
        ("coco", "05o", "characters from 2 on"),
        ("coco", "0K;", "run 0 .* length -5"),
        ("coco", [0, 7, -1], "run 0"),
        ("coco", [-1, 7], r"start -1"),
        ("coco", [2, 3, -1, 2], "run 1"),
        ("coco", [1, 2, 4], "add up to 7"),
        ("coco", [2**62, 2**62, 2**62, 2**62, 6], "run 0"),
        ("coco", [2**63, 6], "too large"),
        ("coco", [0, 6.0], "float"),
        ("coco", [0, "6"], "str"),
        ("coco", 6, "int"),
        ("coco", None, "NoneType"),
        ("coco", {"size": [3, 2], "counts": "06"}, r"size is \[3, 2\], that of the image \[2, 3\]"),
        ("coco", {"size": [2, 3]}, "counts"),
        ("coco", {"size": 6, "counts": "06"}, "int"),
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
    with pytest.raises(ConfigError, match="form is 'yolo'; choose one of coco, kaggle, kaggle_rows"):
        rles_to_labels([], [], (2, 3), "yolo")
    with pytest.raises(ConfigError, match="form is 'row'"):
        labels_to_rles(np.zeros((2, 2), int), "row")
    with pytest.raises(ArrayError, match="2-D integer"):
        labels_to_rles(np.zeros((2, 2)))
    with pytest.raises(ArrayError, match=r"id 9 in shape \(2, 2\)"):
        labels_to_rles(np.full((2, 2), 9))
