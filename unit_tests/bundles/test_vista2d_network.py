"""The network of vista2d is the published one, and its kinds of attention agree; so do the intensities that it sees."""

import json
import subprocess
import sys

import pytest
import torch
from monai.networks.nets.cell_sam_wrapper import CellSamWrapper
from monai.transforms import Compose, ScaleIntensityd, ScaleIntensityRangePercentilesd
from torch.utils._python_dispatch import TorchDispatchMode

from cellbundle.engine.network import load_weights
from cellbundle.errors import ConfigError
from cellbundle.transforms import NormaliseIntensityd

from .contract import picture
from .tiny_vista2d import BUNDLE, TINY, module, randomise, tiny

N_PARAMETERS = 89_970_051  # of MONAI's CellSamWrapper, and of the weights that NVIDIA published


def test_state_dict_is_that_of_the_published_network():
    with torch.device("meta"):
        ours, theirs = module.VistaNetwork(), CellSamWrapper(checkpoint=None)
    assert isinstance(ours, CellSamWrapper)
    expected = {key: (value.shape, value.dtype) for key, value in theirs.state_dict().items()}
    assert {key: (value.shape, value.dtype) for key, value in ours.state_dict().items()} == expected
    assert len(expected) == 190
    assert sum(p.numel() for p in ours.parameters()) == N_PARAMETERS


@pytest.mark.slow
def test_published_checkpoint_gives_the_published_output(tmp_path):
    torch.manual_seed(0)
    theirs = randomise(CellSamWrapper(checkpoint=None))
    torch.save({"state_dict": theirs.state_dict(), "epoch": 199, "best_metric": 0.7}, tmp_path / "model.pt")
    ours = module.VistaNetwork().eval()
    load_weights(ours, tmp_path / "model.pt")
    image = picture(1, 3, 256, 256)
    with torch.inference_mode():
        expected = theirs(image)
        assert (ours(image) - expected).abs().max() <= 1e-5
    assert expected.std() > 0.01


SIZES = [
    {},
    {"network_resize_roi": [80, 80], "window_size": 4},  # a grid of 5, windows of 4: filled up to 8
    {"network_resize_roi": [160, 160], "window_size": 14, "global_attn_indexes": []},  # windows larger than the grid
    {"network_resize_roi": [96, 96], "window_size": 2, "global_attn_indexes": [0, 1], "num_heads": 4},
    {"embed_dim": 26, "num_heads": 2},  # channels that are no multiple of 8
]


@pytest.mark.parametrize("block", [module.BLOCK, 500, 1])
@pytest.mark.parametrize("size", SIZES)
def test_attention_in_blocks_is_plain_attention(size, block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    ours, theirs = tiny(**size), tiny(**size, fused_attention=False)
    image = picture(2, 3, 70, 50)
    with torch.no_grad():
        expected = theirs(image)
        torch.testing.assert_close(ours(image), expected, atol=1e-5, rtol=0)
        assert (tiny(**size, seed=1)(image) - expected).abs().max() > 0.01, "positions matter"


@pytest.mark.parametrize("size", SIZES)
def test_fused_attention_and_its_gradients_are_those_of_plain_attention(size):
    ours, theirs = tiny(**size), tiny(**size, fused_attention=False)
    outputs = [network(picture(2, 3, 70, 50)) for network in (ours, theirs)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=0)
    for output in outputs:
        output.square().mean().backward()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("grad", [False, True])
def test_bfloat16(grad):
    network, image = tiny(), picture(1, 3, 64, 64)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype=torch.bfloat16):
        result = network(image).float()
    with torch.no_grad():
        expected = network(image)
    assert torch.isfinite(result).all()
    assert (result - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_exporters_see_one_fused_call_a_block():
    network, image = tiny(), picture(1, 3, 64, 64)
    with torch.no_grad():
        traced = torch.jit.trace(network, image)
        torch.testing.assert_close(traced(image), network(image), atol=1e-5, rtol=0)
    assert str(traced.inlined_graph).count("aten::scaled_dot_product_attention") == TINY["depth"]


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operation returns."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor):
                self.n = max(self.n, value.numel())
        return result


@pytest.mark.parametrize("grad", [False, True])
def test_no_tensor_holds_all_pairs_of_tokens(grad, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 1 << 14)
    pairs, sizes = 2 * 24**4, []  # heads x tokens x tokens
    for fused in (True, False):
        attention = tiny(fused_attention=fused, network_resize_roi=[384, 384]).model.image_encoder.blocks[1].attn
        with torch.set_grad_enabled(grad), Largest() as largest:
            attention(picture(1, 24, 24, 16))
        sizes.append(largest.n)
    assert sizes[0] < pairs / 8
    assert sizes[1] == pairs


MEMORY = """
import importlib.util, sys
from pathlib import Path
import torch
spec = importlib.util.spec_from_file_location("network", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
network = module.VistaNetwork(depth=3, global_attn_indexes=(2,)).eval()
with torch.inference_mode():
    network(torch.rand(4, 3, 256, 256))
status = Path("/proc/self/status").read_text()  # ru_maxrss starts at the size of the process that started this one
print(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_peak_memory_of_four_windows_is_below_half_of_plain_attention():
    """Plain attention holds logits and weights, 12 heads of 4096 x 4096 in float32 each, for four windows at once."""
    plain = 2 * 4 * 12 * 4096**2 * 4
    command = [sys.executable, "-c", MEMORY, str(BUNDLE / "scripts" / "network.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) * 1024 < plain / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network_resize_roi": [64, 80]}, r"network_resize_roi.*\[64, 80\].*square.*multiple of 16"),
        ({"network_resize_roi": [40, 40]}, r"network_resize_roi.*\[40, 40\].*square.*multiple of 16"),
        ({"num_heads": 3}, "embed_dim 16.*num_heads 3"),
        ({"global_attn_indexes": [2]}, r"global_attn_indexes \[2\].*depth 2"),
    ],
)
def test_sizes_that_do_not_fit_together(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


# The input


@pytest.mark.filterwarnings("ignore:Divide by zero")
@pytest.mark.parametrize("kind", ["ramp", "noise", "sparse", "constant"])
def test_intensities_are_those_that_the_published_weights_saw(kind):
    """``ScaleIntensityd`` twice changes nothing, so once is enough to compare with."""
    noise = picture(3, 60, 70).square() * 3000 - 100
    image = {
        "ramp": torch.arange(3 * 60 * 70.0).reshape(3, 60, 70),
        "noise": noise,
        "sparse": torch.where(noise > 2890, noise, torch.tensor(-100.0)),  # less than 1 % of the pixels
        "constant": torch.full((3, 60, 70), 7.0),
    }[kind]
    config = json.loads((BUNDLE / "configs" / "inference.json").read_text())["normaliser"]
    ours = NormaliseIntensityd(lower=config["lower"], upper=config["upper"])({"image": image})["image"]
    published = Compose(
        [
            ScaleIntensityd("image", minv=0, maxv=1, channel_wise=True),
            ScaleIntensityRangePercentilesd("image", 1, 99, 0, 1, clip=True, channel_wise=True),
        ]
    )
    torch.testing.assert_close(ours, torch.as_tensor(published({"image": image})["image"]), atol=2e-6, rtol=0)
    assert ours.max() == (kind != "constant")
