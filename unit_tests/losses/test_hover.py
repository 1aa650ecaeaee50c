"""The loss of HoVer-Net: values by hand, what each term sees, sums over images, errors."""

import math

import numpy as np
import pytest
import torch

from cellbundle.errors import ConfigError
from cellbundle.losses.flows import SMOOTH, dice_loss
from cellbundle.losses.hover import HoverLoss, slope_error, sobel_kernels
from cellbundle.targets.hover import labels_to_hover

LN2 = math.log(2)
LARGE = 40.0  # a logit as good as certain


def target(labels, classes=None):
    """(1, 3, H, W), or (1, 4, H, W) with a map of classes."""
    maps = [(labels > 0)[None].astype(np.float32), labels_to_hover(labels)]
    maps += [] if classes is None else [classes[None].astype(np.float32)]
    return torch.from_numpy(np.concatenate(maps))[None]


def perfect(target, n_classes=0):
    """The prediction that a target asks for."""
    parts = [LARGE * (2 * target[:, :1] - 1), target[:, 1:3]]
    if n_classes:
        hot = torch.nn.functional.one_hot(target[:, 3].long(), n_classes).movedim(-1, 1)
        parts.append(LARGE * hot.float())
    return torch.cat(parts, 1)


def two_squares():
    labels = np.zeros((12, 16), np.int32)
    labels[2:9, 1:8], labels[2:9, 8:15] = 1, 2
    return labels


def test_perfect_prediction_costs_nothing():
    labels = two_squares()
    wanted = target(labels, labels)
    loss = HoverLoss()
    assert loss(perfect(wanted, 3), wanted).item() == pytest.approx(0, abs=1e-4)
    assert set(loss.terms) == {"np_bce", "np_dice", "hv_mse", "hv_msge", "nc_ce", "nc_dice"}
    assert loss(perfect(wanted[:, :3]), wanted[:, :3]).item() == pytest.approx(0, abs=1e-4)
    assert set(loss.terms) == {"np_bce", "np_dice", "hv_mse", "hv_msge"}


def test_terms_by_hand():
    """Two pixels, one of them foreground; logits 0, distances off by 1 and 2."""
    wanted = torch.tensor([1.0, 0, 0, 0, 0, 0]).view(1, 3, 1, 2)
    prediction = torch.tensor([0.0, 0, 1, 0, 0, 2]).view(1, 3, 1, 2)
    loss = HoverLoss(np_bce_weight=10, np_dice_weight=0, hv_mse_weight=3, hv_msge_weight=0)
    assert loss(prediction, wanted).item() == pytest.approx(10 * LN2 + 3 * (1 + 4) / 4)
    assert loss.terms["np_dice"].item() == pytest.approx(1 - (2 * 0.5 + SMOOTH) / (1 + 1 + SMOOTH))
    # The horizontal filter sees the error of the pixel to the left (none); the vertical one has no row above or below.
    assert loss.terms["hv_msge"].item() == 0


def test_default_weights():
    wanted = torch.rand(2, 3, 8, 8).round()
    loss = HoverLoss()
    total = loss(torch.rand(2, 3, 8, 8), wanted)
    terms = loss.terms
    by_hand = terms["np_bce"] + terms["np_dice"] + 2 * (terms["hv_mse"] + terms["hv_msge"])
    assert total.item() == pytest.approx(by_hand.item())


def test_sobel_kernels_measure_slopes_in_their_own_direction():
    kernels = sobel_kernels()
    assert kernels.shape == (2, 1, 5, 5)
    assert torch.equal(kernels[0, 0], kernels[1, 0].T)
    assert kernels[0, 0, 2].tolist() == pytest.approx([-0.5, -1, 0, 1, 0.5])
    assert kernels[0, 0, 0, 0].item() == pytest.approx(-2 / 8)


def test_slopes_count_inside_instances_only():
    labels = two_squares()
    wanted = target(labels)
    wrong = wanted[:, 1:3].clone()
    wrong[..., 11, :] += 5  # background, more than two pixels from the cells
    assert slope_error(wrong, wanted[:, 1:3], wanted[:, 0]) == 0
    wrong[..., 5, 7] += 1
    assert slope_error(wrong, wanted[:, 1:3], wanted[:, 0]) > 0
    assert slope_error(wrong, wanted[:, 1:3], torch.zeros(1, 12, 16)) == 0


def test_slopes_do_not_mind_an_offset():
    """What lies farther than two pixels from the edge of the image, where the filter reads zeros."""
    wanted, cells = torch.rand(1, 2, 12, 16), torch.zeros(1, 12, 16)
    cells[0, 2:-2, 2:-2] = 1
    assert slope_error(wanted + 1, wanted, cells).item() == pytest.approx(0, abs=1e-9)


def test_classes_by_hand():
    """Three pixels of the classes 0, 0, 2, all logits 0: class 1 is absent and not in the mean of Dice."""
    wanted = torch.tensor([[0.0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 2]]).view(1, 4, 1, 3)
    loss = HoverLoss(class_weights=[1, 1, 6])
    loss(torch.zeros(1, 6, 1, 3), wanted)
    assert loss.terms["nc_ce"].item() == pytest.approx(math.log(3))
    dice = [1 - (2 * n / 3 + SMOOTH) / (1 + n + SMOOTH) for n in (2, 1)]
    assert loss.terms["nc_dice"].item() == pytest.approx(sum(dice) / 2)
    logits = torch.zeros(1, 6, 1, 3)
    logits[0, 5, 0, 2] = LARGE  # the rare class is right: its weight is 6 of 8
    loss(logits, wanted)
    assert loss.terms["nc_ce"].item() == pytest.approx(math.log(3) * 2 / 8)


def test_an_image_counts_as_much_alone_as_in_a_batch():
    """So gradients averaged over processes are those of one large batch, whatever the images show."""
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(4, 6, 12, 16, generator=generator)
    few, many = two_squares(), two_squares()
    few[:, 8:] = 0
    wanted = torch.cat([target(x, x) for x in (few, many, many, few)])
    loss = HoverLoss(class_weights=[0.1, 1, 5])
    parts = [loss(prediction[i : i + 2], wanted[i : i + 2]) for i in (0, 2)]
    assert loss(prediction, wanted).item() == pytest.approx(sum(parts).item() / 2, rel=1e-6)


def test_gradients_reach_all_channels():
    labels = two_squares()
    prediction = torch.randn(1, 6, 12, 16, requires_grad=True)
    HoverLoss()(prediction, target(labels, labels)).backward()
    assert torch.isfinite(prediction.grad).all()
    assert (prediction.grad.abs().amax((0, 2, 3)) > 0).all()


def test_half_precision_and_empty_images():
    wanted = torch.zeros(1, 3, 8, 8)
    loss = HoverLoss()(torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16), wanted)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert dice_loss(torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)).tolist() == [0, 0]


@pytest.mark.parametrize(("channels", "wanted"), [(3, 4), (6, 3), (4, 5)])
def test_shapes_that_do_not_fit(channels, wanted):
    with pytest.raises(ValueError, match=r"\(N, 3 \+ K, H, W\)"):
        HoverLoss()(torch.zeros(1, channels, 4, 4), torch.zeros(1, wanted, 4, 4))


def test_number_of_class_weights():
    with pytest.raises(ConfigError, match=r"2 class weights.* 3 classes"):
        HoverLoss(class_weights=[1, 2])(torch.zeros(1, 6, 4, 4), torch.zeros(1, 4, 4, 4))
