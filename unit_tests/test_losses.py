"""The flow loss: values by hand, gradients, types, errors."""

import math

import pytest
import torch

from cellbundle.losses import FlowLoss

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
    with pytest.raises(ValueError, match="must have one shape") as caught:
        FlowLoss()(torch.zeros(prediction), torch.zeros(target))
    assert str(prediction) in str(caught.value)
    assert str(target) in str(caught.value)
