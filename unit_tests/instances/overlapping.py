"""Masks that overlap, and a plain loop that makes one map of them."""

import numpy as np

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
