"""hover_uni: a ViT that was trained on pathology images, a DPT pyramid and the three heads of HoVer-Net.

Output of the network, and what tiles are blended from: (N, 3 + K, H, W) of the input's size, before any activation.

    0            np: logit of a pixel to belong to an instance
    1, 2         hv: horizontal and vertical distance from the centre of the instance, about -1..1, not clipped
    3 .. 2 + K   nc: logits of the K classes, class 0 is the background; absent (K = 0) where labels have no classes

The activated prediction is (sigmoid(np), hv clipped to [-1, 1], softmax(nc)); decoders get what is before it.

Training targets, (N, 3, H, W) or (N, 4, H, W): foreground in {0, 1}, horizontal, vertical distance, id of the class.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from cellbundle.engine.features import FeatureCache, make_feature_cache
from cellbundle.flags import as_bool

from .backbone import BackboneInfo, build_backbone, describe, load_backbone, spec_of
from .lora import add_lora, merged_weights

PYRAMID_WIDTH = 256
HEAD_WIDTHS = (64, 32)


class ResidualUnit(nn.Module):
    """Two 3 x 3 convolutions, each after a ReLU, around a shortcut; (N, C, h, w) in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add what the convolutions find."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    """One RefineNet step of a DPT: take in a finer level, refine, enlarge, project.

    Args:
        width: channels.
        has_coarser: False for the deepest level, into which nothing coarser comes.
    """

    def __init__(self, width: int, has_coarser: bool) -> None:
        super().__init__()
        self.skip_unit = ResidualUnit(width) if has_coarser else None
        self.unit = ResidualUnit(width)
        self.project = nn.Conv2d(width, width, 1)

    def forward(self, level: torch.Tensor, coarser: torch.Tensor | None, size: torch.Size | list[int]) -> torch.Tensor:
        """Fuse.

        Args:
            level: (N, C, h, w).
            coarser: (N, C, h, w) from the level below; None for the deepest.
            size: (h', w') of the result.
        """
        x = level if coarser is None or self.skip_unit is None else coarser + self.skip_unit(level)
        # A 1 x 1 convolution and bilinear interpolation commute; in this order it has a quarter of the pixels.
        return F.interpolate(self.project(self.unit(x)), size=size, mode="bilinear")


class FeaturePyramid(nn.Module):
    """Reassembles four feature maps of one grid at 4, 2, 1 and 1/2 times its size and fuses them, as DPT does.

    Args:
        embed_dim: channels of the feature maps.
        width: channels of the pyramid.

    Source: Ranftl et al., Vision Transformers for Dense Prediction, ICCV 2021; all levels have the same width here.
    """

    def __init__(self, embed_dim: int, width: int = PYRAMID_WIDTH) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(embed_dim, width, 1) for _ in range(4))
        self.resize = nn.ModuleList(
            [
                nn.ConvTranspose2d(width, width, 4, stride=4),
                nn.ConvTranspose2d(width, width, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(width, width, 3, stride=2, padding=1),
            ]
        )
        self.fuse = nn.ModuleList(Fusion(width, has_coarser=i < 3) for i in range(4))

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Fuse from the deepest level upwards.

        Args:
            features: four (N, embed_dim, h, w), the shallowest first.

        Returns:
            (N, width, 8 h, 8 w).
        """
        levels = [resize(project(f)) for resize, project, f in zip(self.resize, self.project, features, strict=True)]
        sizes = [[2 * side for side in levels[0].shape[-2:]], *(level.shape[-2:] for level in levels[:3])]
        fused = None
        for fuse, level, size in reversed(list(zip(self.fuse, levels, sizes, strict=True))):
            fused = fuse(level, fused, size)
        return fused


class Head(nn.Sequential):
    """Two 3 x 3 convolutions with batch normalisation and a 1 x 1 convolution to ``n_outputs`` channels."""

    def __init__(self, width: int, n_outputs: int) -> None:
        layers: list[nn.Module] = []
        for out in HEAD_WIDTHS:
            layers += [nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            width = out
        super().__init__(*layers, nn.Conv2d(width, n_outputs, 1))


class HoverUniNetwork(nn.Module):
    """See the module's docstring for the output.

    Args:
        backbone: name of the ViT, one of ``scripts.backbone.BACKBONES``.
        backbone_weights: checkpoint of the ViT alone, in timm's layout; None leaves random values.
        n_classes: K, with the background; 0 builds no class head.
        freeze_backbone: the ViT is not trained and stays in evaluation mode, and needs no memory for gradients.
        lora_rank: rank of the adapters on the qkv projections, through which alone the ViT learns; 0 has none.
        pyramid_width: channels of the pyramid; the published sizes have 256.
        train_norm: False keeps the batch normalisation of the heads in evaluation mode.
    """

    def __init__(
        self,
        backbone: str = "vit_large_patch16_224",
        backbone_weights: str | None = None,
        n_classes: int = 0,
        freeze_backbone: bool = True,
        lora_rank: int = 0,
        pyramid_width: int = PYRAMID_WIDTH,
        train_norm: bool = True,
    ) -> None:
        super().__init__()
        self.backbone_name, self.train_norm = backbone, as_bool(train_norm)
        self.backbone = build_backbone(backbone)
        self.info: BackboneInfo = describe(self.backbone)
        self.feature_pyramid = FeaturePyramid(self.info.embed_dim, pyramid_width)
        self.np_head = Head(pyramid_width, 1)
        self.hv_head = Head(pyramid_width, 2)
        self.nc_head = Head(pyramid_width, n_classes) if n_classes else None
        for name, values in zip(("mean", "std"), spec_of(backbone).normalisation, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.feature_cache: FeatureCache | None = None
        self.load_backbone(backbone_weights)
        self.backbone.requires_grad_(not as_bool(freeze_backbone))
        self.lora_rank = 0
        if lora_rank:
            self.start_lora(lora_rank)

    def load_backbone(self, path: str | None) -> "HoverUniNetwork":
        """Load the weights of the backbone alone; None leaves them as they are. Return the network."""
        if path is not None:
            load_backbone(self.backbone, self.backbone_name, path)
        return self

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Predict.

        Args:
            image: (N, 3, H, W) in [0, 1]; sides that the patch does not divide are filled up with copies of the border.

        Returns:
            (N, 3 + K, H, W).
        """
        height, width = image.shape[-2:]
        patch_h, patch_w = self.info.patch
        fill = (0, -width % patch_w, 0, -height % patch_h)
        padded = F.pad(image, fill, mode="replicate") if any(fill) else image
        features = self.feature_pyramid(self.features(padded))
        heads = [head(features) for head in (self.np_head, self.hv_head, self.nc_head) if head is not None]
        # Interpolated after the last convolution instead of before it: the same values, for fewer channels.
        output = F.interpolate(torch.cat(heads, 1), size=padded.shape[-2:], mode="bilinear")
        return output[..., :height, :width]

    def features(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps (N, embed_dim, h / patch, w / patch) of four blocks; ``image`` (N, 3, h, w) in [0, 1]."""
        if self._backbone_learns():
            return self._encode(image)
        with torch.no_grad():
            return self._encode(image) if self.feature_cache is None else self.feature_cache(image, self._encode)

    def _encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        image = (image - self.mean) / self.std
        return self.backbone.forward_intermediates(
            image, indices=list(self.info.blocks), norm=True, intermediates_only=True
        )

    def _backbone_learns(self) -> bool:
        return any(p.requires_grad for p in self.backbone.parameters())

    def train(self, mode: bool = True) -> "HoverUniNetwork":
        """As usual, but a frozen backbone and batch normalisation that is not trained stay in evaluation mode."""
        super().train(mode)
        if not self._backbone_learns():
            self.backbone.eval()
        if not self.train_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def start_lora(self, rank: int) -> "HoverUniNetwork":
        """Freeze the backbone but for new adapters of this rank, which change nothing yet; returns the network."""
        self.lora_rank = rank
        self.feature_cache = None
        add_lora(self.backbone, rank)
        return self

    def start_phase(
        self, phase: int, lora_rank: int, feature_cache: str | None, variants: int | None, precision: str
    ) -> "HoverUniNetwork":
        """What a phase of training changes after weights were loaded: adapters in phase 2, a cache in phase 1.

        Args:
            phase: 1 or 2; 0 changes nothing.
            lora_rank: rank of the adapters.
            feature_cache: see ``cellbundle.engine.features.make_feature_cache``, as the following two.
            variants: number of different augmentations of an image.
            precision: in which features are computed.

        Returns:
            The network.
        """
        if phase == 1:
            self.feature_cache = make_feature_cache(feature_cache, self.backbone, variants, precision)
        return self.start_lora(lora_rank) if phase == 2 else self

    def merged_state_dict(self) -> dict[str, torch.Tensor]:
        """State dict of the same network without adapters, which are added to the weights that they adapt."""
        return merged_weights(self) if self.lora_rank else self.state_dict()

    def explain_weights(self, weights: Mapping[str, torch.Tensor]) -> str | None:
        """Why a checkpoint of the whole network may not fit."""
        width = weights.get("backbone.cls_token")
        if width is None:
            return (
                "this is not a checkpoint of hover_uni; weights of the backbone alone are given as --backbone_weights"
            )
        depth = len({key.split(".")[2] for key in weights if key.startswith("backbone.blocks.")})
        head = weights.get("nc_head.6.weight")
        return (
            f"the file has a backbone of {depth} blocks of {width.shape[-1]} channels and "
            f"{0 if head is None else len(head)} classes, here {self.backbone_name} has {self.info.depth} blocks of "
            f"{self.info.embed_dim} and there are {self.nc_head[-1].out_channels if self.nc_head else 0} classes; "
            "give the --backbone and --n_classes that it was trained with"
        )


def parameter_groups(
    network: HoverUniNetwork, decoder_rate: float, backbone_rate: float, weight_decay: float
) -> list[dict[str, object]]:
    """Groups for an optimiser: pyramid and heads, and what of the backbone learns (adapters), if anything does.

    Args:
        network: after ``start_lora``, if it is wanted.
        decoder_rate: learning rate of pyramid and heads.
        backbone_rate: learning rate of the adapters, or of a backbone that is not frozen.
        weight_decay: of all.
    """
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    backbone = [p for name, p in named if name.startswith("backbone.")]
    decoder = [p for name, p in named if not name.startswith("backbone.")]
    groups = [
        {"params": decoder, "lr": decoder_rate, "weight_decay": weight_decay},
        {"params": backbone, "lr": backbone_rate, "weight_decay": weight_decay},
    ]
    return [group for group in groups if group["params"]]
