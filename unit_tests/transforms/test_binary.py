"""Targets and decoding of a single logit, and whole images at one size, as transforms."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.special import expit

from cellbundle.inference.tiling import ResizeInferer
from cellbundle.transforms import BinaryTargetsd, DecodeBinaryd, DecodeFlowsd, ResizeCelld


def test_targets_are_the_foreground():
    labels = torch.tensor([[[0, 3, 3], [7, 0, 2**24 + 1]]], dtype=torch.int32)
    for given in (labels, MetaTensor(labels)):
        target = BinaryTargetsd()({"label": given, "image": 1})["label"]
        assert type(target) is torch.Tensor
        assert target.dtype == torch.float32
        assert target.tolist() == [[[0, 1, 1], [1, 0, 1]]]


@pytest.mark.parametrize("wrap", [torch.from_numpy, lambda a: MetaTensor(torch.from_numpy(a)).bfloat16()])
def test_decoding_adds_scores_and_the_mask(wrap):
    prediction = np.array([[[2.0, 2.0, -1.0, 0.5, -2.0]]], np.float32)
    result = DecodeBinaryd(min_size=2)({"pred": wrap(prediction), "label": "kept"})
    assert result["pred"].dtype == torch.int32
    assert result["pred"].tolist() == [[[1, 1, 0, 0, 0]]]
    assert result["scores"].tolist() == pytest.approx([expit(2)])
    assert result["binary"].tolist() == [[[True, True, False, True, False]]], "also what is too small for an instance"
    assert result["label"] == "kept"


def test_the_mask_is_at_one_half_whatever_the_threshold():
    result = DecodeBinaryd(threshold=0.9, min_size=0)({"pred": torch.tensor([[[0.1, 5.0]]])})
    assert result["pred"].tolist() == [[[0, 1]]]
    assert result["binary"].tolist() == [[[True, True]]]
    assert "binary" not in DecodeBinaryd(binary_key=None)({"pred": torch.zeros(1, 2, 2)})


def test_flows_have_a_mask_where_wanted():
    prediction = torch.zeros(3, 4, 4)
    prediction[0, 1] = torch.tensor([-1, 0, 0.1, 9])
    assert "binary" not in DecodeFlowsd()({"pred": prediction})
    mask = DecodeFlowsd(binary_key="binary", cell_threshold=5)({"pred": prediction})["binary"]
    assert mask.shape == (1, 4, 4)
    assert mask[0, 1].tolist() == [False, False, True, True]


def test_resizing_keeps_ids_and_types():
    labels = torch.tensor([[[0, 2**24, 2**24 + 1], [7, 0, 5]]], dtype=torch.int32)
    image = torch.rand(3, 2, 3, generator=torch.Generator().manual_seed(0))
    result = ResizeCelld(["image", "label"], (4, 6))({"image": MetaTensor(image), "label": labels})
    assert result["label"].dtype == torch.int32
    assert torch.equal(result["label"], labels.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert type(result["image"]) is torch.Tensor
    assert result["image"].shape == (3, 4, 6)
    assert result["image"].mean() == pytest.approx(image.mean().item(), abs=0.05)


def test_training_sees_what_inference_sees():
    image = torch.rand(3, 70, 50, generator=torch.Generator().manual_seed(1))
    seen = []
    ResizeInferer((32, 64))(image[None], lambda tile: seen.append(tile.clone()) or tile)
    torch.testing.assert_close(ResizeCelld("image", (32, 64))({"image": image})["image"], seen[0][0])
