"""The flow loss and the binary loss: values by hand, gradients, types, errors."""

import math

import pytest
import torch

from cellbundle.losses.flows import BinaryLoss, FlowLoss
from cellbundle.losses.hover import SMOOTH

LN2 = math.log(2)


def pixels(*values):
    """(1, 3, 1, W) from one (cell, dy, dx) for each pixel."""
    return torch.tensor(values, dtype=torch.float32).T[None, :, None]


def softplus(x):
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("prediction", "target", "expected"),
    [
        ([(0, 0, 0)], [(0, 0, 0)], LN2),
        ([(0, 0, 0)], [(1, 0, 0)], LN2),
        ([(0, 5, 0)], [(1, 1, 0)], LN2),  # flow is predicted times 5
        ([(0, 0, 0)], [(1, 1, 0)], LN2 + 0.5 * 25 / 2),
        ([(0, 3, -4)], [(1, 0.6, -0.8)], LN2),
        ([(0, 1, 2)], [(0, 0, 0)], LN2 + 0.5 * (1 + 4) / 2),
        ([(2, 0, 0)], [(1, 0, 0)], softplus(-2)),
        ([(2, 0, 0)], [(0, 0, 0)], softplus(2)),
        ([(2, 0, 0), (-1, 0, 3)], [(1, 0, 0), (1, 0, 1)], (softplus(-2) + softplus(1)) / 2 + 0.5 * 4 / 4),
    ],
)
def test_values_by_hand(prediction, target, expected):
    loss = FlowLoss()(pixels(*prediction), pixels(*target))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((0, 1), LN2), ((0.5, 0), 6.25), ((2, 3), 25 + 3 * LN2), ((0, 0), 0)],
)
def test_weights(weights, expected):
    loss = FlowLoss(*weights)(pixels((0, 0, 0)), pixels((1, 1, 0)))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_sure_and_right_prediction_costs_nothing():
    target = pixels((1, 0.6, 0.8), (0, 0, 0), (1, -1, 0))
    prediction = 5 * target
    prediction[:, 0] = 200 * target[:, 0] - 100
    assert FlowLoss()(prediction, target).item() == pytest.approx(0, abs=1e-6)


def test_gradients_by_hand():
    prediction = pixels((0, 1, 0), (2, 0, -3)).requires_grad_()
    FlowLoss()(prediction, pixels((1, 1, 0), (0, 0, 0))).backward()
    sigmoid = 1 / (1 + math.exp(-2))
    expected = pixels(((0.5 - 1) / 2, 0.5 * 2 * -4 / 4, 0), (sigmoid / 2, 0, 0.5 * 2 * -3 / 4))
    torch.testing.assert_close(prediction.grad, expected)


def test_descending_the_gradient_reaches_the_target():
    torch.manual_seed(0)
    target = torch.cat([torch.ones(2, 1, 4, 4), torch.nn.functional.normalize(torch.randn(2, 2, 4, 4), dim=1)], dim=1)
    prediction = torch.zeros_like(target, requires_grad=True)
    optimizer = torch.optim.SGD([prediction], lr=60)
    for _ in range(20):
        optimizer.zero_grad()
        FlowLoss()(prediction, target).backward()
        optimizer.step()
    torch.testing.assert_close(prediction[:, 1:].detach(), 5 * target[:, 1:], atol=1e-2, rtol=0)
    assert (prediction[:, 0] > 2).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_loss_is_float32_whatever_the_network_gives(dtype):
    prediction = pixels((0, 300, 0)).to(dtype).requires_grad_()  # 300² is too much for float16
    loss = FlowLoss()(prediction, pixels((1, 0, 0)))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(LN2 + 0.5 * 300**2 / 2, rel=1e-5)
    loss.backward()
    assert prediction.grad.dtype == dtype
    assert prediction.grad.isfinite().all()


def test_extreme_logits_stay_finite():
    prediction = pixels((1e4, 0, 0), (-1e4, 0, 0)).requires_grad_()
    loss = FlowLoss()(prediction, pixels((0, 0, 0), (1, 0, 0)))
    assert loss.item() == pytest.approx(1e4)
    loss.backward()
    assert prediction.grad[0, 0, 0].tolist() == [0.5, -0.5]


def test_memory_format_and_order_do_not_matter():
    torch.manual_seed(1)
    prediction, target = torch.randn(4, 3, 6, 8), torch.rand(4, 3, 6, 8)
    expected = FlowLoss()(prediction, target)
    order = torch.tensor([2, 0, 3, 1])
    for changed in (prediction.contiguous(memory_format=torch.channels_last), prediction.flip(3).flip(3)):
        torch.testing.assert_close(FlowLoss()(changed, target), expected)
    torch.testing.assert_close(FlowLoss()(prediction[order], target[order]), expected)


def test_nan_is_not_hidden():
    assert FlowLoss()(pixels((0, math.nan, 0)), pixels((0, 0, 0))).isnan()


@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        ((2, 3, 8, 8), (2, 3, 8, 9)),
        ((2, 3, 8, 8), (1, 3, 8, 8)),
        ((2, 3, 8, 8), (2, 1, 8, 8)),
        ((3, 8, 8), (1, 3, 8, 8)),
    ],
)
def test_different_shapes_are_refused(prediction, target):
    with pytest.raises(ValueError, match="one shape") as caught:
        FlowLoss()(torch.zeros(prediction), torch.zeros(target))
    assert str(prediction) in str(caught.value)
    assert str(target) in str(caught.value)


def binary(*values):
    """(1, 1, 1, W)."""
    return torch.tensor(values, dtype=torch.float32)[None, None, None]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (softplus(-2) + softplus(1) + LN2) / 3),
        ({"pos_weight": 2}, (2 * softplus(-2) + softplus(1) + 2 * LN2) / 3),
        ({"bce_weight": 0.5}, (softplus(-2) + softplus(1) + LN2) / 6),
    ],
)
def test_binary_cross_entropy_by_hand(options, expected):
    loss = BinaryLoss(**options)(binary(2, 1, 0), binary(1, 0, 1))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_dice_is_a_mean_over_images():
    """Two images: one with half a pixel of two hit, and one that is empty and stays so."""
    prediction = torch.stack([torch.tensor([[[0.0, -200, -200]]]), torch.full((1, 1, 3), -200.0)])
    target = torch.stack([torch.tensor([[[1.0, 1, 0]]]), torch.zeros(1, 1, 3)])
    first = 1 - (2 * 0.5 + SMOOTH) / (0.5 + 2 + SMOOTH)
    assert BinaryLoss(0, 3)(prediction, target).item() == pytest.approx(3 * first / 2, rel=1e-5)
    three = torch.cat([prediction, torch.zeros(2, 2, 1, 3)], 1)
    flow_target = torch.cat([target, torch.zeros(2, 2, 1, 3)], 1)
    assert FlowLoss(0.5, 0, 3)(three, flow_target).item() == pytest.approx(3 * first / 2, rel=1e-5)


def test_empty_and_full_masks_have_finite_gradients():
    for target in (torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)):
        prediction = torch.full((2, 1, 4, 4), 100.0, dtype=torch.bfloat16, requires_grad=True)
        loss = BinaryLoss(dice_weight=1, pos_weight=2)(prediction, target)
        assert loss.dtype == torch.float32
        loss.backward()
        assert prediction.grad.isfinite().all()


def test_a_mask_without_a_channel_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        BinaryLoss()(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))
