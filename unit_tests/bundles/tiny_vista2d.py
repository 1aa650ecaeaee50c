"""A tiny network of vista2d, and files of its weights."""

import torch

from .contract import REPOSITORY, Bundle, bundle_modules

BUNDLE = REPOSITORY / "bundles" / "vista2d"
SMALL = Bundle.named("vista2d").small
TINY = {key.partition("#")[2]: value for key, value in SMALL.items() if key.startswith("network_def#")}
del TINY["sam_checkpoint"]  # random weights by default

(module,) = bundle_modules("vista2d", "network")


def randomise(network, seed=0):
    """Values for what starts at zero: without them, positions would not matter to any comparison."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network.eval()


def tiny(seed=0, **options):
    torch.manual_seed(seed)
    return randomise(module.VistaNetwork(**{**TINY, **options}), seed)


def sam_file(network, path):
    """A file with the keys of SAM: the encoder, and parts that this network does not have."""
    encoder = {f"image_encoder.{k}": v for k, v in network.model.image_encoder.state_dict().items()}
    others = {
        "prompt_encoder.not_a_point_embed.weight": torch.zeros(1, 256),
        "mask_decoder.iou_token.weight": torch.ones(1),
    }
    torch.save(encoder | others, path)
    return path


def vista_file(network, path, rename=lambda key: key):
    torch.save({"state_dict": {rename(k): v for k, v in network.state_dict().items()}, "epoch": 3}, path)
    return path
