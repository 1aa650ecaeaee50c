"""swin_unet: a U-Net of Swin transformer blocks, compact enough for a CPU."""

import torch
from torch import nn
from torch.nn import functional as F

from cellbundle.errors import ConfigError, DependencyError

try:
    from timm.layers import Mlp
    from timm.models.swin_transformer import PatchMerging, WindowAttention, window_partition, window_reverse
except ImportError as error:
    raise DependencyError("swin_unet needs timm; pip install 'cellbundle[swin]'") from error

COLOURS = 3  # channels of the images that the bundle reads


class FullNorm(nn.LayerNorm):
    """Layer normalisation in float32, also under autocast, where a CPU would compute it in bfloat16.

    The gradient of its weights is a sum over all pixels of a batch. In bfloat16 this sum stops growing long before its
    end; for the last layer, the result may even point the wrong way.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension; (..., C) of any floating dtype to float32."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class SwinBlock(nn.Module):
    """Attention in windows, then an MLP: (N, H, W, C) -> (N, H, W, C), H and W multiples of the window.

    With a shift, the windows lie across those of the block before. Pixels that the cyclic shift brings together from
    opposite sides do not see each other. An axis that is one window long is not shifted.

    Args:
        dim: channels.
        heads: of the attention.
        window: side of a window.
        shift: pixels, 0 for none.
        mlp_ratio: width of the MLP as a multiple of ``dim``; its hidden layer is normalised.

    Source: Liu et al., Swin Transformer, ICCV 2021.
    """

    def __init__(self, dim: int, heads: int, window: int, shift: int, mlp_ratio: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = FullNorm(dim)
        self.attention = WindowAttention(dim, heads, window_size=window)
        self.norm2 = FullNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim, norm_layer=FullNorm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``y + mlp(y)`` with ``y = x + attention(x)``."""
        x = x + self._attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        height, width, dim = x.shape[1:]
        shifts = tuple(self.shift if side > self.window else 0 for side in (height, width))
        shifted = any(shifts)
        if shifted:
            x = torch.roll(x, (-shifts[0], -shifts[1]), (1, 2))
        size = (self.window, self.window)
        windows = window_partition(x, size).flatten(1, 2)
        mask = shift_mask((height, width), shifts, self.window, x.device) if shifted else None
        answers = self.attention(windows, mask).view(-1, *size, dim)
        x = window_reverse(answers, size, height, width)
        return torch.roll(x, shifts, (1, 2)) if shifted else x


def shift_mask(
    size: tuple[int, int], shifts: tuple[int, ...], window: int, device: torch.device | None = None
) -> torch.Tensor:
    """What the pixels of a window must not see after a cyclic shift.

    Args:
        size: (H, W) of the grid, multiples of ``window``.
        shifts: along (y, x).
        window: side of a window.
        device: of the result.

    Returns:
        (windows, window², window²) float32: 0 between pixels that were neighbours before the shift, else -100.
    """
    wrapped = [torch.arange(side, device=device) >= side - shift for side, shift in zip(size, shifts, strict=True)]
    part = (2 * wrapped[0][:, None] + wrapped[1][None]).float()
    ids = window_partition(part[None, :, :, None], (window, window)).flatten(1)
    return (ids[:, None] != ids[:, :, None]).float() * -100.0


class PatchExpanding(nn.Module):
    """A linear layer whose channels become pixels: (N, H, W, C) -> (N, factor * H, factor * W, width).

    Args:
        dim: channels of the input.
        width: channels of the output.
        factor: how much larger the grid becomes.

    Source: Cao et al., Swin-Unet, ECCV workshops 2022.
    """

    def __init__(self, dim: int, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(dim, factor * factor * width, bias=False)
        self.norm = FullNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Expand and normalise."""
        n, height, width, _ = x.shape
        x = self.expand(x).view(n, height, width, self.factor, self.factor, -1)
        x = x.transpose(2, 3).reshape(n, self.factor * height, self.factor * width, -1)
        return self.norm(x)


class Encoding(nn.Module):
    """Blocks at one resolution, then half of it with twice the channels."""

    def __init__(self, dim: int, blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks
        self.merge = PatchMerging(dim, norm_layer=FullNorm)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, H, W, C) to the skip (N, H, W, C) and (N, H/2, W/2, 2C)."""
        skip = self.blocks(x)
        return skip, self.merge(skip)


class Decoding(nn.Module):
    """Twice the resolution with half the channels, the skip joined, then blocks."""

    def __init__(self, dim: int, blocks: nn.Module) -> None:
        super().__init__()
        self.expand = PatchExpanding(2 * dim, dim, 2)
        self.join = nn.Linear(2 * dim, dim)
        self.blocks = blocks

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """(N, H/2, W/2, 2C) and the skip (N, H, W, C) to (N, H, W, C)."""
        return self.blocks(self.join(torch.cat([self.expand(x), skip], dim=-1)))


class SwinUNetNetwork(nn.Module):
    """Swin-UNet between a patch embedding of 4 x 4 pixels and a fourfold patch expansion.

    For an input (N, 3, 224, 224) and the default options the grids are 56 x 56 x 32, 28 x 28 x 64, 14 x 14 x 128 and
    7 x 7 x 256, each a multiple of the window, and back to 56 x 56 x 32; the output is (N, K, 224, 224). Other sizes
    are padded inside to multiples of 224 by their border, so that windows are always full, and cropped back.

    Args:
        in_channels: 1 sees the mean of the three channels, 3 sees colours.
        out_channels: 1 for a cell logit, 3 for a cell logit and two flows (dy, dx) times 5.
        width: channels at a quarter of the resolution; each halving doubles them.
        depth: number of halvings after the patch embedding.
        blocks: of every stage; each second one has shifted windows.
        heads: of every attention.
        window: side of a window; 7 fits images of 224.
        patch: side of a patch.
        mlp_ratio: width of the MLPs.

    Raises:
        ConfigError: for another number of input channels.

    Source: Liu et al., ICCV 2021; Cao et al., Swin-Unet, ECCV workshops 2022.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 32,
        depth: int = 3,
        blocks: int = 2,
        heads: int = 4,
        window: int = 7,
        patch: int = 4,
        mlp_ratio: int = 4,
    ) -> None:
        super().__init__()
        if in_channels not in (1, COLOURS):
            raise ConfigError(f"in_channels is {in_channels}; choose 1 (grey) or {COLOURS} (colour)")
        self.in_channels, self.multiple = in_channels, patch * 2**depth * window

        def stage(dim: int) -> nn.Module:
            shifts = (window // 2 if i % 2 else 0 for i in range(blocks))
            return nn.Sequential(*(SwinBlock(dim, heads, window, shift, mlp_ratio) for shift in shifts))

        dims = [width * 2**level for level in range(depth)]
        self.patch_embed = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.encoder = nn.ModuleList(Encoding(dim, stage(dim)) for dim in dims)
        self.bottleneck = stage(width * 2**depth)
        self.decoder = nn.ModuleList(Decoding(dim, stage(dim)) for dim in reversed(dims))
        self.final_expansion = PatchExpanding(width, width, patch)
        self.head = nn.Conv2d(width, out_channels, 1)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_uniform_(parameter)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Predict the cell logit and, with three output channels, flows.

        Args:
            image: (N, 3, H, W) float in [0, 1], of any size.

        Returns:
            (N, K, H, W).
        """
        height, width = image.shape[-2:]
        if self.in_channels == 1:
            image = image.mean(dim=1, keepdim=True)
        x = (image - 0.5) / 0.5
        pad = (0, -width % self.multiple, 0, -height % self.multiple)
        x = self.patch_embed(F.pad(x, pad, mode="replicate") if any(pad) else x).permute(0, 2, 3, 1)
        skips = []
        for encoding in self.encoder:
            skip, x = encoding(x)
            skips.append(skip)
        x = self.bottleneck(x)
        for decoding, skip in zip(self.decoder, reversed(skips), strict=True):
            x = decoding(x, skip)
        x = self.final_expansion(x).permute(0, 3, 1, 2)
        return self.head(x)[..., :height, :width]
