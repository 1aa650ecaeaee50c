"""What only cell_unet has."""

import pytest
import torch
from torch import nn

from cellbundle.engine.network import prepare_network

from .contract import REPOSITORY, bundle_modules

WEIGHTS = REPOSITORY / "bundles" / "cell_unet" / "models" / "model.pt"


def network_class():
    (network,) = bundle_modules("cell_unet", "network")
    return network.CellUNetNetwork


def test_size_of_network_and_weights():
    network = network_class()(features=(32, 64, 96, 160, 224))
    assert sum(p.numel() for p in network.parameters()) == 2_215_820
    assert WEIGHTS.stat().st_size <= 12e6
    weights = torch.load(WEIGHTS, weights_only=True)
    assert {v.dtype for v in weights.values() if v.is_floating_point()} == {torch.float16}
    network.load_state_dict(weights)


@pytest.mark.parametrize("size", [(64, 96), (33, 70)])
def test_padding_does_not_move_the_image(size):
    """The answer at the top left does not depend on how much is padded at the bottom right."""
    torch.manual_seed(0)
    network = network_class()(features=(8, 8)).eval()
    image = torch.rand(1, 3, *size)
    with torch.no_grad():
        whole, part = network(image), network(image[..., :-1, :-1])
    assert torch.allclose(whole[..., :8, :8], part[..., :8, :8], atol=1e-6)


def test_every_batch_normalisation_is_folded_for_inference():
    torch.manual_seed(0)
    network = network_class()(features=(8, 16)).eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.running_mean, -0.1, 0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    image = torch.rand(1, 3, 33, 40)
    with torch.no_grad():
        expected = network(image)
        folded = prepare_network(network, torch.device("cpu"), fold=True)
        torch.testing.assert_close(folded(image), expected, atol=1e-5, rtol=1e-4)
    assert norms
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
