"""Grouping with torch: the same label maps as the compiled kernels give, here on the processor."""

import numpy as np
import pytest
import torch

from cellbundle.decode.device import group_by_sink_tensor
from cellbundle.decode.flows import FLOW_SCALE, decode_flows, group_by_sink
from cellbundle.instances.labels import renumber
from cellbundle.synthetic import KINDS, generate
from cellbundle.targets.flows import labels_to_flows


def noisy(labels, seed=0, noise=1.0):
    """(3, H, W) float32 prediction."""
    rng = np.random.default_rng(seed)
    flows = FLOW_SCALE * labels_to_flows(labels) + rng.normal(0, noise, (2, *labels.shape))
    logit = np.where(labels > 0, 4, -4) + rng.normal(0, 1.5, labels.shape)
    return np.concatenate([logit[None], flows]).astype(np.float32)


def both(prediction, n_steps=200):
    flows, cells = prediction[1:], prediction[0] > 0
    tensors = torch.from_numpy(flows), torch.from_numpy(cells)
    grouped = group_by_sink_tensor(*tensors, FLOW_SCALE, n_steps)
    assert grouped.dtype == torch.int32
    return renumber(grouped.numpy())[0], group_by_sink(flows, cells, n_steps=n_steps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0, 1, 3])
def test_equal_to_the_kernels(kind, noise):
    labels = generate(kind, (150, 180), 30, diameter=22, touching=0.6, seed=noise)[1]
    np.testing.assert_array_equal(*both(noisy(labels, noise=noise)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 5), (0, 7)])
def test_equal_on_odd_shapes(shape):
    prediction = np.random.default_rng(0).normal(1, 3, (3, *shape)).astype(np.float32)
    np.testing.assert_array_equal(*both(prediction))


def test_equal_where_flows_are_not_finite_or_huge():
    prediction = noisy(generate("phase", (90, 90), 12, seed=3)[1])
    rng = np.random.default_rng(1)
    for value in (np.nan, np.inf, -np.inf, 3e38, -3e38):
        prediction[1:][rng.random((2, 90, 90)) < 0.02] = value
    ours, kernels = both(prediction, n_steps=30)
    np.testing.assert_array_equal(ours, kernels)


def test_no_cell():
    assert not both(np.full((3, 20, 20), -1, np.float32))[0].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_decode_takes_tensors(dtype):
    prediction = torch.from_numpy(noisy(generate("fluorescence", (96, 96), 9, seed=2)[1])).to(dtype).requires_grad_()
    expected = decode_flows(prediction.detach().double().numpy())
    np.testing.assert_array_equal(decode_flows(prediction), expected)


class AsOnGpu(torch.Tensor):
    """A tensor on the CPU that takes the way of one on a GPU."""

    is_cuda = True


@pytest.mark.parametrize("options", [{}, {"flow_threshold": None}, {"min_score": 0.9, "max_size_fraction": 0.02}])
def test_decode_of_a_tensor_on_a_gpu_without_one(options):
    prediction = noisy(generate("fluorescence", (120, 120), 12, seed=2)[1])
    given = torch.from_numpy(prediction).as_subclass(AsOnGpu)
    np.testing.assert_array_equal(decode_flows(given, **options), decode_flows(prediction, **options))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("flow_threshold", [None, 0.4])
def test_decode_on_a_gpu(flow_threshold):
    prediction = noisy(generate("fluorescence", (300, 300), 60, seed=2)[1])
    found = decode_flows(torch.from_numpy(prediction).cuda(), flow_threshold=flow_threshold)
    np.testing.assert_array_equal(found, decode_flows(prediction, flow_threshold=flow_threshold))
