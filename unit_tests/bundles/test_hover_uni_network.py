"""The network of hover_uni: sizes, images of any size, adapters, gradients, several processes."""

import os
import sys

import pytest
import torch
from torch.nn import functional as F

from cellbundle.errors import ConfigError
from cellbundle.losses.hover import HoverLoss

from .. import forked
from .contract import picture
from .tiny_hover_uni import BUNDLE, module, on_meta, tiny


def count(part, trained_only=False):
    return sum(p.numel() for p in part.parameters() if p.requires_grad or not trained_only)


# Sizes


def test_parameters_of_uni():
    network = on_meta("uni", n_classes=4)
    assert count(network.backbone) == 303_350_784
    assert count(network.feature_pyramid) == 11_475_200
    assert count(network.np_head) + count(network.hv_head) + count(network.nc_head) == 498_471
    assert count(network, trained_only=True) == 11_973_671
    network.start_lora(4)
    assert count(network.backbone, trained_only=True) == 393_216
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {
        "backbone", "feature_pyramid", "np_head", "hv_head", "nc_head",
    }  # fmt: skip


def test_parameters_of_uni2_h():
    network = on_meta("uni2_h")
    assert count(network.backbone) == 681_394_176
    assert 11e6 <= count(network, trained_only=True) <= 12.5e6
    network.start_lora(4)
    assert count(network.backbone, trained_only=True) == 589_824


@pytest.mark.parametrize(
    ("name", "embed_dim", "patch", "prefix_tokens", "grid", "blocks"),
    [
        ("uni", 1024, 16, 1, 14, (5, 11, 17, 23)),
        ("uni2_h", 1536, 14, 9, 16, (5, 11, 17, 23)),
        ("vit_large_patch16_224", 1024, 16, 1, 14, (5, 11, 17, 23)),
        ("vit_large_patch14_dinov2", 1024, 14, 1, 37, (5, 11, 17, 23)),
        ("vit_small_patch16_224", 384, 16, 1, 14, (2, 5, 8, 11)),
        ("vit_tiny_4", 96, 16, 1, 14, (0, 1, 2, 3)),
    ],
)
def test_adapter_of_every_backbone(name, embed_dim, patch, prefix_tokens, grid, blocks):
    network = on_meta(name, n_classes=3).eval()
    info = network.info
    assert (info.embed_dim, info.patch, info.prefix_tokens, info.grid, info.blocks) == (
        embed_dim, (patch, patch), prefix_tokens, (grid, grid), blocks,
    )  # fmt: skip
    image = torch.empty(2, 3, 224, 224, device="meta")
    features = network.features(image)
    side = 224 // patch
    assert [tuple(f.shape) for f in features] == [(2, embed_dim, side, side)] * 4
    assert network.feature_pyramid(features).shape == (2, 256, 8 * side, 8 * side)
    assert network(image).shape == (2, 6, 224, 224)


def test_unknown_backbone():
    with pytest.raises(ConfigError, match=r"backbone.*'resnet'.*uni, uni2_h, vit_large"):
        module.HoverUniNetwork("resnet")


# Images


@pytest.mark.parametrize("size", [(48, 64), (50, 61), (7, 100)])
def test_sides_that_the_patch_does_not_divide_are_filled_and_cut_back(size):
    network, image = tiny(n_classes=3).eval(), picture(2, 3, *size)
    by_hand = F.pad(image, (0, -size[1] % 16, 0, -size[0] % 16), mode="replicate")
    with torch.no_grad():
        assert torch.equal(network(image), network(by_hand)[..., : size[0], : size[1]])


# Phases


def test_phase_two_starts_where_phase_one_ended():
    network, image = tiny().eval(), picture(2, 3, 64, 64)
    with torch.no_grad():
        before = network(image)
        after = network.start_lora(4).eval()(image)
    assert torch.equal(before, after)


def test_merged_weights_give_the_same_answers():
    network, image = tiny().eval(), picture(2, 3, 64, 64)
    plain = list(network.state_dict())
    with torch.no_grad():
        for name, parameter in network.backbone.named_parameters():
            if name.endswith("qkv.weight"):  # new ones are so small that attention hardly matters
                parameter.normal_(std=0.3)
        network.start_lora(4).eval()
        before = network(image)
        for name, parameter in network.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.3)
        adapted = network(image)
        merged = tiny(seed=1).eval()
        merged.load_state_dict(network.merged_state_dict())
        assert list(network.merged_state_dict()) == plain
        assert (merged(image) - adapted).abs().max() <= 1e-5
        assert (adapted - before).abs().max() > 1e-3, "the adapters do something"
        assert torch.equal(network(image), adapted), "and they are still there"


DECODER = {"feature_pyramid", "np_head", "hv_head", "nc_head"}


def group_of(name):
    """Pyramid, head, adapters or backbone."""
    top = name.split(".")[0]
    return "adapters" if ".lora_" in name else top


@pytest.mark.parametrize(
    ("options", "lora", "learning"),
    [
        ({}, False, DECODER),
        ({}, True, DECODER | {"adapters"}),
        ({"freeze_backbone": False}, False, DECODER | {"backbone"}),
        ({"freeze_backbone": False}, True, DECODER | {"adapters"}),
    ],
)
def test_gradients_flow_where_they_should_and_nowhere_else(options, lora, learning):
    network = tiny(n_classes=3, **options)
    if lora:
        network.start_lora(4)
    network.train()
    assert network.backbone.training == (lora or not options.get("freeze_backbone", True))
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    groups = module.parameter_groups(network, decoder_rate=0.1, backbone_rate=0.1, weight_decay=0.0)
    optimizer = torch.optim.SGD(groups)
    target = torch.cat([picture(2, 3, 64, 64, seed=1).round(), torch.full((2, 1, 64, 64), 2.0)], 1)
    for _ in range(2):  # in the first step only lora_B changes, as it is 0
        optimizer.zero_grad()
        HoverLoss()(network(picture(2, 3, 64, 64)), target).backward()
        optimizer.step()
    optimised = {id(p) for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        expected = group_of(name) in learning
        assert parameter.requires_grad == expected, name
        assert (id(parameter) in optimised) == expected, name
        assert (parameter.grad is not None) == expected, name
        assert torch.equal(parameter, before[name]) == (not expected or not parameter.grad.any()), name
        assert not expected or torch.isfinite(parameter.grad).all(), name
    moved = {group_of(name) for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == learning
    still = [n for n, p in network.named_parameters() if group_of(n) in learning and torch.equal(p, before[n])]
    assert still == [], "everything that may learn does"


def test_learning_rates_of_the_groups():
    network = tiny().start_lora(4)
    decoder, adapters = module.parameter_groups(network, 1e-4, 1e-5, 0.01)
    assert (decoder["lr"], adapters["lr"], adapters["weight_decay"]) == (1e-4, 1e-5, 0.01)
    assert sum(p.numel() for p in adapters["params"]) == count(network.backbone, trained_only=True)
    assert len(module.parameter_groups(tiny(), 1e-4, 1e-5, 0.01)) == 1


def test_normalisation_that_is_not_trained():
    network = tiny(train_norm=False).train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    network(picture(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    assert tiny().train().np_head[1].training


PROGRAM = """
import sys
import torch
sys.path.insert(0, {bundle!r})
from cellbundle.distributed import finalise, initialise, rank, world_size
from cellbundle.engine.network import training_network
from cellbundle.losses.hover import HoverLoss
from scripts.network import HoverUniNetwork, parameter_groups

initialise("cpu")
torch.manual_seed(0)
network = HoverUniNetwork("vit_tiny_4", pyramid_width=8, n_classes=3, train_norm=False)
if {lora}:
    network.start_lora(4)
trained, loss = training_network(network, torch.device("cpu")), HoverLoss(class_weights=[0.1, 1, 3])
optimizer = torch.optim.SGD(parameter_groups(network, 0.05, 0.05, 0.0), momentum=0.9)
random = torch.Generator().manual_seed(1)
for _ in range(20):
    image = torch.rand(4, 3, 48, 48, generator=random)
    cells = (torch.rand(4, 1, 48, 48, generator=random) < torch.tensor([0.1, 0.9, 0.5, 0.0]).view(4, 1, 1, 1)).float()
    classes = cells * torch.randint(1, 3, (4, 1, 48, 48), generator=random)
    target = torch.cat([cells, cells * (torch.rand(4, 2, 48, 48, generator=random) * 2 - 1), classes], 1)
    mine = slice(rank() * 4 // world_size(), (rank() + 1) * 4 // world_size())
    trained.train()
    optimizer.zero_grad()
    loss(trained(image[mine]), target[mine]).backward()
    optimizer.step()
if rank() == 0:
    torch.save(network.state_dict(), {path!r})
finalise()
"""


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
def test_two_processes_equal_one_with_the_double_batch(lora, tmp_path):
    """In float32, with batch normalisation as it is: its statistics in training are those of one process."""
    results = []
    for processes in (1, 2):
        path = str(tmp_path / f"{len(results)}.pt")
        (tmp_path / "program.py").write_text(PROGRAM.format(bundle=str(BUNDLE), lora=lora, path=path))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = forked.run([sys.executable, str(tmp_path / "program.py")], tmp_path, environment, processes=processes)
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(torch.load(path, weights_only=True))
    one, two = results
    assert max((one[key] - two[key]).abs().max().item() for key in one if one[key].is_floating_point()) <= 1e-5
    start = tiny(n_classes=3, train_norm=False).state_dict()
    assert (one["hv_head.0.weight"] - start["hv_head.0.weight"]).abs().max() > 1e-3, "there was something to learn"
