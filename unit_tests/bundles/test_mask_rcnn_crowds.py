"""mask_rcnn finds all cells of crowded images, and says where a limit left some out."""

import numpy as np
import pytest
import torch
from torch import nn

from cellbundle.inference.detection import DetectionInferer
from cellbundle.metrics import image_scores
from cellbundle.targets.boxes import instance_targets
from cellbundle.transforms import DecodeDetectionsd

from .contract import bundle_modules

(module,) = bundle_modules("mask_rcnn", "network")


def tiny(**options):
    torch.manual_seed(0)
    return module.CellMaskRCNNNetwork(backbone="test_convnext", detections_per_image=None, **options).eval()


class PerfectBoxes(nn.Module):
    """Sure of every proposal, and leaves it where it is."""

    def forward(self, pooled):
        sure = torch.tensor([-10.0, 10.0]).repeat(len(pooled), 1)
        return sure, torch.zeros(len(pooled), 8)


class FullMasks(nn.Module):
    def forward(self, pooled):
        return torch.full((len(pooled), 2, 28, 28), 10.0)


class PerfectProposals(nn.Module):
    score_thresh = 0.0

    def __init__(self, boxes):
        super().__init__()
        self.boxes = boxes

    def forward(self, images, features, targets=None):
        return [self.boxes], {}


def grid_of_squares():
    """1,024 squares of 20 pixels on 1024 x 1024, 12 pixels apart."""
    labels = np.zeros((1024, 1024), np.int32)
    for number in range(1024):
        y, x = divmod(number, 32)
        labels[32 * y + 6 : 32 * y + 26, 32 * x + 6 : 32 * x + 26] = number + 1
    return labels


def test_a_thousand_cells_are_a_thousand_detections():
    labels = grid_of_squares()
    network = tiny(proposals=4000)
    network.rpn = PerfectProposals(torch.from_numpy(instance_targets(labels)["boxes"]))
    network.roi_heads.box_predictor = PerfectBoxes()
    network.roi_heads.mask_head, network.roi_heads.mask_predictor = nn.Identity(), FullMasks()
    with torch.no_grad():
        found = DetectionInferer(roi_size=(1024, 1024))(torch.rand(1, 3, 1024, 1024), network)
    assert found["scores"].shape == (1, 1024)
    decoded = DecodeDetectionsd()({"pred": {key: value[0] for key, value in found.items()}})
    assert len(decoded["detections"]) == 1024
    assert image_scores(labels, decoded["pred"][0].numpy())["ap75"] == 1.0


class CertainAnchors(nn.Module):
    """As a trained head: every anchor near one of the cells (N, 2), y and x, is sure and moves onto it."""

    def __init__(self, centres, side):
        super().__init__()
        self.centres, self.side = torch.as_tensor(centres, dtype=torch.float32), side

    def forward(self, features):
        objectness, deltas = [], []
        for level, (stride, size) in zip(
            features, zip((4, 8, 16, 32, 64), (8, 16, 32, 64, 128), strict=True), strict=True
        ):
            y, x = (stride * torch.arange(n, dtype=torch.float32) for n in level.shape[-2:])
            place = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
            distance, nearest = torch.cdist(place, self.centres).min(1)
            sure = torch.where((distance < self.side) & (size <= 16), 5.0, -8.0)
            move = (self.centres[nearest] - place).flip(1)[:, None]
            sides = size * torch.tensor([[2**0.5, 1.0, 0.5**0.5], [0.5**0.5, 1.0, 2**0.5]]).T  # of the ratios 0.5, 1, 2
            codes = torch.cat([move / sides, (self.side / sides).log().expand(len(place), 3, 2)], 2)
            shape = level.shape[-2:]
            objectness.append(sure.view(1, 1, *shape).expand(1, 3, *shape))
            deltas.append(codes.view(*shape, 12).permute(2, 0, 1)[None])
        return objectness, deltas


def crowded(**limits):
    """What is found of 441 cells of 12 pixels on 512 x 512, whose anchors are right, each many times."""
    places = np.stack(np.meshgrid(np.arange(21), np.arange(21), indexing="ij"), -1).reshape(-1, 2) * 24 + 16
    network = tiny(**limits)
    head = CertainAnchors(places, 12.0)
    network.rpn.head.forward = head.forward
    network.roi_heads.box_predictor = PerfectBoxes()
    network.roi_heads.mask_head, network.roi_heads.mask_predictor = nn.Identity(), FullMasks()
    with torch.no_grad():
        (found,) = network(torch.rand(1, 3, 512, 512))
    return len(found["scores"])


def test_no_cell_is_lost_among_many_anchors(caplog):
    assert crowded(proposals=4000) == 441
    assert not caplog.text


@pytest.mark.parametrize("limits", [{"proposals": 100}, {"proposals": 4000, "anchors": 500}])
def test_limits_that_cut_are_said(limits, caplog):
    assert crowded(**limits) < 441
    assert f"larger network_def#{list(limits)[-1]}" in caplog.text
