"""The vision transformers that hover_uni can stand on, through one adapter, and where their weights come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cellbundle.engine.network import assign_weights, logger, read_weights
from cellbundle.errors import CheckpointError, ConfigError, DependencyError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
N_LEVELS = 4
HUB, RANDOM = "hub", "random"
OPEN_DEFAULT = "vit_large_patch16_224"


@dataclass(frozen=True)
class BackboneSpec:
    """What distinguishes one ViT from another.

    Attributes:
        architecture: timm's name.
        options: of ``timm.create_model``, besides ``num_classes=0`` and ``dynamic_img_size=True``.
        normalisation: mean and standard deviation of the images that it was trained on, in [0, 1].
        repository: of its weights on the Hugging Face hub; None has none.
        file: name of the weights there.
        gated: whether their owner has to give access first.
        licence: of the weights.
    """

    architecture: str
    options: dict[str, Any] = field(default_factory=dict)
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    repository: str | None = None
    file: str = "model.safetensors"
    gated: bool = False
    licence: str = "Apache-2.0"


@dataclass(frozen=True)
class BackboneInfo:
    """What the rest of the network has to know of a ViT.

    Attributes:
        embed_dim: channels of a token.
        patch: (h, w) pixels of a token.
        prefix_tokens: class and register tokens, which have no place in the image.
        grid: (h, w) tokens of the image size that its position embedding was made for.
        depth: number of blocks.
        blocks: the four whose outputs are used.
    """

    embed_dim: int
    patch: tuple[int, int]
    prefix_tokens: int
    grid: tuple[int, int]
    depth: int
    blocks: tuple[int, ...]


def _uni2_options() -> dict[str, Any]:
    from timm.layers import SwiGLUPacked  # noqa: PLC0415  (timm takes a second to import)

    return {
        "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "init_values": 1e-5, "embed_dim": 1536,
        "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU,
        "reg_tokens": 8,
    }  # fmt: skip


UNI_LICENCE = "CC BY-NC-ND 4.0, with the conditions of its owner"
BACKBONES = {
    "uni": BackboneSpec(
        "vit_large_patch16_224", {"img_size": 224, "patch_size": 16, "init_values": 1e-5},
        repository="MahmoodLab/UNI", file="pytorch_model.bin", gated=True, licence=UNI_LICENCE,
    ),
    "uni2_h": BackboneSpec(
        "vit_giant_patch14_224",
        repository="MahmoodLab/UNI2-h", file="pytorch_model.bin", gated=True, licence=UNI_LICENCE,
    ),
    "vit_large_patch16_224": BackboneSpec(
        "vit_large_patch16_224", normalisation=HALF, repository="timm/vit_large_patch16_224.augreg_in21k_ft_in1k",
    ),
    "vit_large_patch14_dinov2": BackboneSpec(
        "vit_large_patch14_dinov2", repository="timm/vit_large_patch14_dinov2.lvd142m",
    ),
    "vit_small_patch16_224": BackboneSpec(
        "vit_small_patch16_224", normalisation=HALF, repository="timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
    ),
    "vit_tiny_4": BackboneSpec(
        "vit_tiny_patch16_224", {"embed_dim": 96, "depth": 4, "num_heads": 4, "init_values": 0.1}, licence="no weights",
    ),
}  # fmt: skip


def spec_of(name: str) -> BackboneSpec:
    """Look a backbone up by its name; ``ConfigError`` names those there are."""
    if name not in BACKBONES:
        raise ConfigError(f"backbone is {name!r}; choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def build_backbone(name: str) -> nn.Module:
    """A ViT of timm with random weights; its keys are those of the published files.

    Raises:
        ConfigError: for an unknown name.
        DependencyError: if timm is not installed.
    """
    spec = spec_of(name)
    try:
        import timm  # noqa: PLC0415  (optional)
    except ImportError as error:
        raise DependencyError("timm is not installed; pip install 'cellbundle[hover]'") from error
    options = _uni2_options() if name == "uni2_h" else spec.options
    return timm.create_model(spec.architecture, num_classes=0, dynamic_img_size=True, **options)


def describe(backbone: nn.Module) -> BackboneInfo:
    """What the rest of the network has to know of a ViT of timm.

    Raises:
        ConfigError: if it has fewer blocks than the pyramid has levels.
    """
    depth = len(backbone.blocks)
    if depth < N_LEVELS:
        raise ConfigError(f"the backbone has {depth} blocks, expected at least {N_LEVELS}")
    return BackboneInfo(
        backbone.embed_dim,
        tuple(backbone.patch_embed.patch_size),
        backbone.num_prefix_tokens,
        tuple(backbone.patch_embed.grid_size),
        depth,
        tuple(depth * (i + 1) // N_LEVELS - 1 for i in range(N_LEVELS)),
    )


def find_backbone_weights(name: str, given: str | None, folder: str, wanted: bool = True) -> str | None:
    """File that the backbone starts from.

    Args:
        name: of the backbone.
        given: a file; ``hub`` for the Hugging Face hub, with the user's own token for gated ones; ``random``; None for
            ``<name>.bin`` or ``<name>.safetensors`` in ``folder``.
        folder: of the bundle's checkpoints.
        wanted: False where a checkpoint of the whole network follows, so that no such file is needed.

    Returns:
        The file; None for random weights.

    Raises:
        CheckpointError: if there is no file, or the hub does not give it; the message says how to get one.
    """
    spec = spec_of(name)
    if not wanted or given == RANDOM or (given is None and spec.repository is None):
        return None
    if given == HUB:
        return download(name)
    candidates = [Path(given)] if given else [Path(folder) / f"{name}{suffix}" for suffix in (".bin", ".safetensors")]
    for path in candidates:
        if path.is_file():
            return str(path)
    looked = given or f"{name}.bin or {name}.safetensors in {folder}"
    raise CheckpointError(f"no weights of the backbone {name}: {looked} does not exist; {how_to_get(name)}")


def how_to_get(name: str) -> str:
    """What to do to have the weights of a backbone, in one sentence."""
    spec = spec_of(name)
    if spec.repository is None:
        return "it has no published weights; give --backbone_weights random"
    page = f"https://huggingface.co/{spec.repository}"
    if not spec.gated:
        return (
            f"give --backbone_weights hub to download them ({page}, {spec.licence}), a file, or random to train "
            "without them"
        )
    return (
        f"they are gated ({spec.licence}): ask for access at {page}, then give the file {spec.file} as "
        f"--backbone_weights, or hub after `hf auth login`; or take an open backbone: --backbone {OPEN_DEFAULT}"
    )


def download(name: str) -> str:
    """Weights from the Hugging Face hub, kept in its cache; returns the file.

    Raises:
        CheckpointError: if there are none, or the hub refuses or cannot be reached.
    """
    spec = spec_of(name)
    if spec.repository is None:
        raise CheckpointError(f"the hub has no weights of {name}: {how_to_get(name)}")
    try:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415  (optional)

        return str(hf_hub_download(spec.repository, spec.file))
    except ImportError as error:
        raise DependencyError("huggingface_hub is not installed; pip install 'cellbundle[hover]'") from error
    except Exception as error:  # what it raises when refused, missing or unreachable has no common base
        raise CheckpointError(
            f"{spec.repository} did not give {spec.file} ({type(error).__name__}); {how_to_get(name)}"
        ) from error


def load_backbone(backbone: nn.Module, name: str, path: str | Path) -> None:
    """Load the weights of a ViT strictly. The classifier of open ones, which features do not need, is left out.

    Raises:
        CheckpointError: if the file is another backbone's, or damaged.
    """
    weights = read_backbone(path)
    if not spec_of(name).gated:
        weights = {key: value for key, value in weights.items() if not key.startswith("head.")}
    assign_weights(backbone, weights, path, lambda found: explain(name, found))
    logger.info("backbone %s from %s", name, path)


def read_backbone(path: str | Path) -> dict[str, torch.Tensor]:
    """State dict of a ``.safetensors`` file, or of one of PyTorch."""
    if Path(path).suffix != ".safetensors":
        return read_weights(path)
    from safetensors import SafetensorError  # noqa: PLC0415  (comes with timm)
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({error}); it may be truncated") from error


def explain(name: str, weights: Mapping[str, torch.Tensor]) -> str:
    """Which backbone a file that does not fit probably belongs to."""
    if "backbone.cls_token" in weights:
        return "this is a whole hover_uni network: give it as --pretrained_ckpt_path"
    if "cls_token" not in weights or "patch_embed.proj.weight" not in weights:
        return "the file holds no vision transformer in timm's layout"
    found = (weights["cls_token"].shape[-1], *weights["patch_embed.proj.weight"].shape[-2:])
    scaled = "blocks.0.ls1.gamma" in weights
    fits = [other for other in BACKBONES if _shape_of(other) == (*found, scaled)]
    meant = f": give --backbone {fits[0]} for it" if fits else ""
    return (
        f"the file has {found[0]} channels and patches of {found[1]} x {found[2]}{meant}; for {name}, "
        f"{how_to_get(name)}"
    )


def _shape_of(name: str) -> tuple[int, int, int, bool]:
    with torch.device("meta"):
        backbone = build_backbone(name)
    info = describe(backbone)
    return info.embed_dim, *info.patch, "blocks.0.ls1.gamma" in backbone.state_dict()
