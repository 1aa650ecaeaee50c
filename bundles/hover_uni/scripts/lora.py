"""Low-rank adapters on the attention of a ViT, with peft, and their way back into plain weights."""

from typing import Any

import torch
from torch import nn

from cellbundle.errors import DependencyError

TARGETS = r"blocks\.\d+\.attn\.qkv"  # the name alone would match other layers in some backbones
ADAPTER = "default"  # peft's name for the only adapter


def add_lora(backbone: nn.Module, rank: int) -> None:
    """Put adapters on the qkv projections; they start as the identity, and all else is frozen.

    Args:
        backbone: a ViT of timm, changed in place.
        rank: of the adapters; the update has the scale 1.

    Raises:
        DependencyError: if peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415  (optional, slow to import)
    except ImportError as error:
        raise DependencyError("peft is not installed; pip install 'cellbundle[hover]'") from error
    backbone.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS, lora_dropout=0.0, bias="none")
    inject_adapter_in_model(config, backbone)


def merged_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """State dict with the keys that a network has without adapters; the network keeps its own."""
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415

    weights = {
        key.replace(".base_layer.", "."): value for key, value in network.state_dict().items() if ".lora_" not in key
    }
    layers: dict[str, Any] = {name: m for name, m in network.named_modules() if isinstance(m, LoraLayer)}
    with torch.no_grad():
        for name, layer in layers.items():
            key = f"{name}.weight"
            weights[key] = weights[key] + layer.get_delta_weight(ADAPTER)
    return weights
