"""The network of swin_unet: its size, its windows, and images of any size."""

import math

import numpy as np
import pytest
import torch
from timm.layers import Mlp
from timm.models.swin_transformer import SwinTransformerBlock
from torch.nn import functional as F

from cellbundle.errors import ConfigError

from .contract import bundle_modules, picture

PARTS = {
    "patch_embed": 544,
    "encoder": 703_384,
    "bottleneck": 1_584_968,
    "decoder": 745_272,
    "final_expansion": 16_448,
    "head": 33,
}

(module,) = bundle_modules("swin_unet", "network")


def small(seed=0, **options):
    torch.manual_seed(seed)
    return module.SwinUNetNetwork(**{"width": 8, "heads": 2, "window": 2, **options}).eval()


def count(part):
    return sum(p.numel() for p in part.parameters())


# Sizes


def test_parameters_of_every_part():
    with torch.device("meta"):
        network = module.SwinUNetNetwork()
    assert {name: count(part) for name, part in network.named_children()} == PARTS
    assert count(network) == sum(PARTS.values()) == 3_050_649


def test_colours_and_flows_change_the_first_and_the_last_layer_alone():
    with torch.device("meta"):
        network = module.SwinUNetNetwork(in_channels=3, out_channels=3)
    assert {name: count(part) for name, part in network.named_children()} == PARTS | {"patch_embed": 1568, "head": 99}


def test_grids_are_multiples_of_the_window():
    network, seen = module.SwinUNetNetwork().eval(), []
    for block in (m for m in network.modules() if isinstance(m, module.SwinBlock)):
        block.register_forward_pre_hook(lambda block, inputs: seen.append(tuple(inputs[0].shape[1:])))
    with torch.no_grad():
        assert network(picture(1, 3, 224, 224)).shape == (1, 1, 224, 224)
    sides = [(56, 32), (28, 64), (14, 128), (7, 256), (14, 128), (28, 64), (56, 32)]
    assert seen == [(side, side, dim) for side, dim in sides for _ in range(2)]
    blocks = [m for m in network.modules() if isinstance(m, module.SwinBlock)]
    assert [(b.window, b.shift, b.attention.num_heads) for b in blocks] == [(7, 0, 4), (7, 3, 4)] * 7


@pytest.mark.parametrize("size", [(1, 1), (7, 65), (61, 97), (64, 64), (65, 130)])
def test_other_sizes_are_filled_by_their_border_and_cut_back(size):
    network, image = small(), picture(2, 3, *size)
    filled = F.pad(image, (0, -size[1] % 64, 0, -size[0] % 64), mode="replicate")
    with torch.no_grad():
        answer = network(image)
        assert answer.shape == (2, 1, *size)
        assert torch.equal(answer, network(filled)[..., : size[0], : size[1]])


def test_the_full_network_takes_odd_sizes():
    with torch.no_grad():
        assert module.SwinUNetNetwork().eval()(picture(1, 3, 225, 97)).shape == (1, 1, 225, 97)


# Windows


@pytest.mark.parametrize(
    ("size", "shifts"), [((14, 21), (3, 3)), ((7, 28), (0, 3)), ((21, 7), (3, 0)), ((56, 56), (3, 3))]
)
def test_pixels_of_a_shifted_window_see_each_other_where_they_were_neighbours(size, shifts):
    places = np.stack(np.indices(size))
    rolled = np.roll(places, (-shifts[0], -shifts[1]), (1, 2))
    windows = rolled.reshape(2, size[0] // 7, 7, size[1] // 7, 7).transpose(1, 3, 2, 4, 0).reshape(-1, 49, 2)
    apart = np.abs(windows[:, :, None] - windows[:, None]).max(-1) >= 7
    assert apart.any()
    mask = module.shift_mask(size, shifts, 7)
    np.testing.assert_array_equal(mask.numpy(), np.where(apart, -100.0, 0.0))


def reach(block, size, place):
    """Pixels (H, W) whose answer changes with the pixel at ``place``."""
    x = picture(1, *size, 8)
    changed = x.clone()
    changed[0, place[0], place[1], 0] += 1
    with torch.no_grad():
        return (block(x) - block(changed)).abs().amax(-1)[0] > 1e-6


@pytest.mark.parametrize(
    ("shift", "place", "rows", "columns"),
    [
        (0, (0, 0), (0, 4), (0, 4)),
        (0, (5, 11), (4, 8), (8, 12)),
        (2, (0, 0), (0, 2), (0, 2)),  # what is shifted across the edge is masked
        (2, (7, 0), (6, 8), (0, 2)),
        (2, (3, 3), (2, 6), (2, 6)),
        (2, (7, 11), (6, 8), (10, 12)),
    ],
)
def test_reach_of_a_block(shift, place, rows, columns):
    torch.manual_seed(0)
    expected = torch.zeros(8, 12, dtype=torch.bool)
    expected[slice(*rows), slice(*columns)] = True
    assert torch.equal(reach(module.SwinBlock(8, 2, 4, shift, 4), (8, 12), place), expected)


def test_an_axis_of_one_window_is_not_shifted():
    torch.manual_seed(0)
    block = module.SwinBlock(8, 2, 4, 2, 4)
    assert reach(block, (4, 4), (0, 0)).all()
    expected = torch.zeros(4, 8, dtype=torch.bool)
    expected[:, 2:6] = True
    assert torch.equal(reach(block, (4, 8), (0, 3)), expected)


@pytest.mark.parametrize("shift", [0, 3])
def test_a_block_is_that_of_timm(shift):
    """Its blocks take one size of grid, and have no normalisation in the MLP by themselves."""
    torch.manual_seed(0)
    theirs = SwinTransformerBlock(16, (14, 21), num_heads=4, window_size=7, shift_size=shift)
    theirs.mlp = Mlp(16, 64, norm_layer=torch.nn.LayerNorm)
    ours = module.SwinBlock(16, 4, 7, shift, 4)
    ours.load_state_dict({key.replace("attn.", "attention."): value for key, value in theirs.state_dict().items()})
    x = picture(2, 14, 21, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_expanding_puts_the_channels_of_a_place_around_it():
    expanding = module.PatchExpanding(3, 2, 2)
    with torch.no_grad():
        x = torch.zeros(1, 2, 3, 3)
        x[0, 1, 2] = 1
        changed = expanding(x)[0].abs().amax(-1) > 0
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[2:, 4:] = True
    assert torch.equal(changed, expected)


# Input and weights


def test_one_channel_is_the_mean_of_three():
    image, network = picture(1, 3, 64, 64), small()
    grey = image.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(network(image), network(grey), atol=1e-3, rtol=0)
        torch.testing.assert_close(network(image), network(image[:, [2, 0, 1]]), atol=1e-3, rtol=0)
        coloured = small(in_channels=3)
        assert (coloured(image) - coloured(image[:, [2, 0, 1]])).abs().max() > 0.1


def test_intensities_are_centred_in_the_network():
    network, seen = small(), []
    network.patch_embed.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    image = torch.tensor([0.0, 0.5, 1.0])[None, None, None].expand(1, 3, 1, 3)
    with torch.no_grad():
        network(image)
    assert seen[0][0, 0, 0, :4].tolist() == [-1, 0, 1, 1]


def test_two_channels_are_refused():
    with pytest.raises(ConfigError, match=r"in_channels.* 2;.* 1 .* 3 "):
        small(in_channels=2)


def test_weights_start_as_in_the_source():
    """Kaiming's uniform distribution for all that is no vector, also the tables of relative positions."""
    torch.manual_seed(0)
    network = module.SwinUNetNetwork()
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            bound = math.sqrt(6 / parameter[0].numel())
            assert 0.8 * bound < parameter.abs().max() <= bound, name
    assert torch.equal(network.bottleneck[0].norm1.weight, torch.ones(256))


def test_bfloat16_is_close():
    network, image = small(), picture(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answer = network(image).float()
    assert (answer - expected).abs().mean() < 0.1 * expected.std()


def test_bfloat16_has_the_gradients_of_float32():
    """Layer normalisation in bfloat16 would lose most of those of its weights, which are sums over all pixels."""
    network, image = small().train(), picture(2, 3, 192, 192)
    target = (image[:, :1] > 0.9).float()

    def gradients(half):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = F.binary_cross_entropy_with_logits(network(image).float(), target)
        loss.backward()
        return {name: p.grad.clone() for name, p in network.named_parameters() if "final_expansion.norm" in name}

    exact, rounded = gradients(False), gradients(True)
    assert len(exact) == 2
    for name, gradient in exact.items():
        assert (rounded[name] - gradient).norm() < 0.1 * gradient.norm(), name
