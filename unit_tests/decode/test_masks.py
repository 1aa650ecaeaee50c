"""Masks on boxes to detections, against torchvision."""

import time

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import roi_align

from cellbundle.decode.masks import decode_detections, paste_masks
from cellbundle.errors import ArrayError, ConfigError
from cellbundle.synthetic import generate


def random_boxes(n, shape, side, seed):
    """(N, M, M) probabilities and (N, 4) boxes x0, y0, x1, y1 in and over the edges of the image."""
    rng = np.random.default_rng(seed)
    centres, sides = rng.uniform(-0.1, 1.1, (n, 2)) * shape[::-1], rng.uniform(0.01, side, (n, 2))
    boxes = np.hstack([centres - sides / 2, centres + sides / 2]).astype(np.float32)
    boxes[::5] = boxes[::5].round()  # also of no width
    inside = (boxes[:, 2:] > 0).all(1) & (boxes[:, :2] < shape[::-1]).all(1)  # torchvision fails for others
    probabilities = rng.random((n, 28, 28)).astype(np.float32)
    return probabilities[inside], boxes[inside]


def prediction(boxes, scores, masks, shape, tile_of=None, tiles=None, labels=None):
    """What an inferer gives for one image, without the axis of the batch."""
    n = len(boxes)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor(scores, dtype=torch.float32),
        "labels": torch.tensor(labels or [1] * n),
        "masks": torch.as_tensor(masks, dtype=torch.float32),
        "tile_of": torch.tensor(tile_of or [0] * n),
        "tiles": torch.tensor(tiles or [[0, 0, *shape]]),
        "size": torch.tensor(shape),
    }


@pytest.mark.parametrize("threshold", [0.3, 0.5])
@pytest.mark.parametrize(
    ("shape", "side"), [((90, 130), 60), ((90, 130), 1.5), ((5, 7), 12), ((1, 1), 3), ((1, 200), 30), ((200, 1), 30)]
)
def test_pixels_are_those_of_torchvision(shape, side, threshold):
    masks, boxes = random_boxes(150, shape, side, seed=1)
    pasted = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), shape)
    expected = (pasted[:, 0] > threshold).numpy()
    crops, tight, kept = paste_masks(masks, boxes, shape, threshold, "torchvision")
    assert (tight.dtype, kept.dtype) == (np.int64, np.int64)
    assert kept.tolist() == np.flatnonzero(expected.any((1, 2))).tolist()
    for mask, (y0, x0, y1, x1), i in zip(crops, tight, kept, strict=True):
        whole = np.zeros(shape, bool)
        whole[y0:y1, x0:x1] = mask
        np.testing.assert_array_equal(whole, expected[i])
        assert mask.dtype == bool
        assert mask[[0, -1]].any(1).all()
        assert mask[:, [0, -1]].any(0).all()
    assert len(kept) > 20


@pytest.mark.parametrize("diameter", [6, 12, 30])
def test_the_exact_rule_brings_cells_back(diameter):
    """Targets of a perfect mask head, on perfect boxes: torchvision's rule makes small cells a third larger."""
    labels = generate("phase", (128, 160), 25, diameter=diameter, touching=0.5, seed=1)[1]
    stack = torch.from_numpy(labels == np.arange(1, labels.max() + 1)[:, None, None])
    boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)], np.float32)
    numbered = torch.cat([torch.arange(len(boxes))[:, None], torch.from_numpy(boxes)], 1)
    masks = roi_align(stack[:, None].float(), numbered, (28, 28), 1.0, aligned=True)[:, 0].numpy()
    crops, tight, kept = paste_masks(masks, boxes, labels.shape, 0.5)
    assert kept.tolist() == list(range(len(boxes)))
    for i, (mask, (y0, x0, y1, x1)) in enumerate(zip(crops, tight, strict=True), 1):
        inside = (labels[y0:y1, x0:x1] == i) & mask
        assert inside.sum() / (mask.sum() + (labels == i).sum() - inside.sum()) > 0.97


def test_the_exact_rule_by_hand():
    """Probabilities 0.2 and 0.8 on 4 columns from 1.0: 0.2 0.35 0.65 0.8 at their centres; 1.6 has one centre less."""
    mask = np.array([[[0.2, 0.8], [0.2, 0.8]]], np.float32)
    for x0, threshold, expected in ((1, 0.3, [2, 5]), (1, 0.5, [3, 5]), (1, 0.1, [1, 5]), (1.6, 0.1, [2, 5])):
        boxes = np.array([[x0, 2, 5, 4]], np.float32)
        assert paste_masks(mask, boxes, (9, 9), threshold)[1].tolist() == [[2, expected[0], 4, expected[1]]]
    assert paste_masks(mask, np.array([[1, -1, 5, 1]], np.float32), (9, 4), 0.5)[1].tolist() == [[0, 3, 1, 4]]


@pytest.mark.parametrize(("rule", "expected"), [("torchvision", [0, 0, 7, 7]), ("exact", [1, 1, 6, 6])])
def test_boxes_away_from_the_image_and_blank_masks_are_left_out(rule, expected):
    boxes = np.array([[-9, -9, -4, -4], [50, 2, 60, 9], [3, 3, 3, 3], [0, 0, 5, 5], [1, 1, 6, 6]], np.float32)
    masks = np.ones((5, 28, 28), np.float32)
    masks[2:4] = 0.5  # not above the threshold
    crops, tight, kept = paste_masks(masks, boxes, (20, 30), 0.5, rule)
    assert kept.tolist() == [4]
    assert tight.tolist() == [expected]
    assert crops[0].all()


@pytest.mark.parametrize("rule", ["torchvision", "exact"])
def test_a_thousand_masks_take_little_time(rule):
    """0.05 s on one core; a stack of all would have a billion pixels."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 980, (1000, 2))
    boxes = np.hstack([corners, corners + rng.uniform(10, 40, (1000, 2))]).astype(np.float32)
    masks = np.ones((1000, 28, 28), np.float32)
    started = time.process_time()
    crops, _, _ = paste_masks(masks, boxes, (1024, 1024), 0.5, rule)
    assert len(crops) == 1000
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(("masks", "boxes"), [((2, 28), (2, 4)), ((2, 28, 28), (3, 4)), ((2, 28, 28), (2, 5))])
def test_shapes_that_do_not_fit(masks, boxes):
    with pytest.raises(ArrayError, match=r"\(N, M, M\).*boxes \(N, 4\).*\(2, 28"):
        paste_masks(np.zeros(masks, np.float32), np.zeros(boxes, np.float32), (9, 9), 0.5)


def test_poor_detections_are_left_out_and_the_best_comes_first():
    boxes = [[2, 2, 8, 8], [12, 2, 18, 8], [22, 2, 28, 8], [2, 12, 8, 18]]
    masks = np.ones((4, 28, 28))
    found = decode_detections(
        prediction(boxes, [0.04, 0.3, float("nan"), 0.9], masks, (20, 30), labels=[1, 2, 3, 4]), lowest_score=0.05
    )
    assert found.scores.tolist() == pytest.approx([0.9, 0.3])
    assert found.classes.tolist() == [4, 2]
    assert found.boxes_yxyx[:, :2].tolist() == [[12, 2], [2, 12]]
    assert found.shape == (20, 30)


def test_blank_masks_do_not_mix_up_the_tiles():
    """The first of three detections has no pixel; the other two are one object at the border of two tiles."""
    boxes = [[1, 1, 5, 5], [30, 10, 40, 20], [31, 12, 45, 22]]
    masks = np.stack([np.zeros((28, 28)), np.ones((28, 28)), np.ones((28, 28))])
    given = prediction(boxes, [0.9, 0.8, 0.7], masks, (40, 70), [0, 0, 1], [[0, 0, 40, 40], [0, 20, 40, 70]])
    found = decode_detections(given)
    assert len(found) == 1
    assert found.boxes_yxyx[0, [1, 3]].tolist() == [31, 45]  # the mask of the tile that sees it whole,
    assert found.scores.tolist() == pytest.approx([0.8])  # and the best score
    assert len(decode_detections(given, tile_iou=0.95)) == 2  # neither holds the other


@pytest.mark.parametrize("shape", [(1, 1), (30, 40)])
def test_nothing_found(shape):
    found = decode_detections(prediction([], [], np.zeros((0, 28, 28)), shape))
    assert len(found) == 0
    assert found.shape == shape


def test_arrays_serve_as_well_as_tensors():
    given = prediction([[2, 2, 8, 8]], [0.9], np.ones((1, 28, 28)), (20, 30))
    arrays = {key: value.numpy() for key, value in given.items()}
    assert decode_detections(arrays).boxes_yxyx.tolist() == decode_detections(given).boxes_yxyx.tolist()


def test_what_is_no_prediction():
    with pytest.raises(ArrayError, match=r"dictionary.*boxes, .* Tensor"):
        decode_detections(torch.zeros(3, 4, 4))
    given = prediction([[2, 2, 8, 8]], [0.9], np.ones((1, 28, 28)), (20, 30))
    with pytest.raises(ArrayError, match=r"got boxes$"):
        decode_detections({"boxes": given["boxes"]})
    with pytest.raises(ConfigError, match=r"paste_rule.*'wide'.*exact, torchvision"):
        decode_detections(given, paste_rule="wide")
    with pytest.raises(ArrayError, match=r"one length.*\[1, 2, 1, 1, 1\]"):
        decode_detections(given | {"scores": torch.ones(2)})
