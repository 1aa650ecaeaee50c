import numpy as np
import pytest
import torch
from torchvision.ops import masks_to_boxes

from cellbundle.errors import ArrayError
from cellbundle.synthetic import generate
from cellbundle.targets.boxes import instance_targets


def test_boxes_are_half_open_and_masks_lie_on_them():
    labels = np.zeros((6, 8), np.int32)
    labels[1:3, 2:5] = 7
    labels[2, 4] = 0
    labels[5, 7] = 3  # one pixel in the corner of the image
    found = instance_targets(labels)
    assert found["boxes"].tolist() == [[7, 5, 8, 6], [2, 1, 5, 3]], "in the order of the ids"
    assert found["boxes"].dtype == np.float32
    assert found["labels"].tolist() == [1, 1]
    assert found["masks"].shape == (2, 5, 5)
    assert found["masks"][1].tolist() == [[0] * 5, [0, 1, 1, 1, 0], [0, 1, 1, 0, 0], [0] * 5, [0] * 5]
    assert found["masks"][0, :3, :3].tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 1]], "the border goes on"


def test_boxes_agree_with_torchvision():
    labels = generate("phase", (96, 128), 25, diameter=16, seed=1)[1]
    stack = torch.from_numpy(labels == np.arange(1, labels.max() + 1)[:, None, None])
    expected = masks_to_boxes(stack) + torch.tensor([0, 0, 1, 1])  # theirs end on the last pixel
    assert np.array_equal(instance_targets(labels)["boxes"], expected.numpy())


def test_nothing_is_no_target():
    found = instance_targets(np.zeros((5, 4), np.int32))
    assert found["boxes"].shape == (0, 4)
    assert found["labels"].shape == (0,)
    assert found["masks"].shape[0] == 0


def test_small_instances_are_left_out():
    labels = np.array([[1, 0, 2, 2], [0, 0, 2, 0]], np.int32)
    found = instance_targets(labels, min_size=2)
    assert found["boxes"].tolist() == [[2, 0, 4, 2]]


def test_classes_follow_their_instances():
    labels = np.array([[9, 9, 0, 4]], np.int64)
    classes = np.array([[2, 2, 0, 3]], np.int64)
    assert instance_targets(labels, classes)["labels"].tolist() == [3, 2]
    assert instance_targets(labels, classes, min_size=2)["labels"].tolist() == [2]


def test_an_instance_without_class_is_refused():
    labels = np.array([[1, 1, 2]], np.int32)
    with pytest.raises(ArrayError, match=r"instance 2 .*no class"):
        instance_targets(labels, np.array([[1, 1, 0]]))
    with pytest.raises(ArrayError, match=r"classes.*integers.*\(1, 3\).*\(1, 2\)"):
        instance_targets(labels, np.array([[1, 1]]))


def test_what_is_no_label_map_is_refused():
    for labels in (np.array([[-1, 2]]), np.zeros((2, 2)), np.zeros((1, 2, 2), int)):
        with pytest.raises(ArrayError):
            instance_targets(labels)
