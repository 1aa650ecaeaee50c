"""A tiny network of hover_uni, and large ones without values."""

import torch

from .contract import REPOSITORY, bundle_modules

BUNDLE = REPOSITORY / "bundles" / "hover_uni"

module, backbones = bundle_modules("hover_uni", "network", "backbone")


def on_meta(backbone, **options):
    with torch.device("meta"):
        return module.HoverUniNetwork(backbone, **options)


def tiny(seed=0, **options):
    torch.manual_seed(seed)
    return module.HoverUniNetwork("vit_tiny_4", pyramid_width=8, **options)
