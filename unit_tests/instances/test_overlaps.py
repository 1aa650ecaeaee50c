"""Overlapping masks to one map: by hand, and against a plain loop."""

import math

import numpy as np
import pytest

from cellbundle.errors import ArrayError, ConfigError
from cellbundle.instances.overlaps import labels_to_rles, masks_to_labels, rles_to_labels

from .overlapping import CROP, LEFT, MIDDLE, assert_equal, drawn, plain_loop, stack


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
    monkeypatch.setattr("cellbundle.instances.overlaps.MIN_PIXELS_PER_THREAD", 1)
    for threads in ("1", "2", "7", "50"):
        monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", threads)
        assert_equal(masks_to_labels(masks, scores), plain_loop(masks, scores))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 3, 4)), [1, 2]), r"mask 0 .*\(3, 4\).*float64.*threshold"),
        ((np.zeros((3, 4), bool), [1, 2, 3]), r"\(H, W\).*\(N, H, W\).*ndarray.*\(3, 4\)"),
        (([CROP], [1]), r"\(H, W\).*\(N, H, W\).*list"),
        ((CROP[None], [1], None, [(0, 0, 2, 3)]), r"\(H, W\).*\(N, H, W\).*\(1, 2, 3\)"),
        (([CROP, CROP.T], [1, 2], (2, 3)), r"mask 1 .*\(2, 3\).*\(3, 2\).*bool"),
        (([CROP, None], [1, 2], (2, 3)), r"mask 1 .*\(\).*object"),
        (([CROP], [1], (2, 3, 1)), r"\(H, W\).*\(2, 3, 1\)"),
        (([CROP], [1], (2, -3)), r"\(H, W\).*\(2, -3\)"),
        (([CROP], [1], 6), r"\(H, W\).* 6"),
        ((CROP[None], [1, 2]), "2 scores and 1 masks"),
        ((stack(CROP, CROP), [1]), "1 scores and more masks"),
        (([CROP, CROP], [1], (2, 3), [(0, 0, 2, 3)]), "1 scores and more masks"),
        ((CROP[None], [[1]]), r"scores.*1-D.*\(1, 1\).*int64"),
        ((CROP[None], ["a"]), r"scores.*1-D.*<U1"),
        ((stack(CROP, CROP), [0.5, math.nan]), "score 1 .*NaN"),
        (([CROP], [1], (9, 9), [(0, 0, 2)]), r"boxes.*\(1, 4\).*\(1, 3\)"),
        (([CROP], [1], (9, 9), [(0.0, 0, 2, 3)]), "boxes.*integers.*float64"),
        (([CROP], [1], (9, 9), [(0, 0, 2, 3)] * 2), r"boxes.*\(1, 4\).*\(2, 4\)"),
        (([CROP], [1], (9, 9), [(0, 0, 3, 2)]), r"mask 0 .*\(3, 2\).*\(2, 3\)"),
        (([CROP], [1], (9, 9), [(2, 3, 0, 0)]), r"mask 0 .*\(-2, -3\).*\(2, 3\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ArrayError, match=message):
        masks_to_labels(*arguments)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_is_from_0_to_1(share):
    with pytest.raises(ConfigError, match=f"max_overlap.* {share};"):
        masks_to_labels(CROP[None], [1], max_overlap=share)
    with pytest.raises(ConfigError, match=f"max_overlap.* {share};"):
        rles_to_labels([], [], (2, 2), max_overlap=share)
