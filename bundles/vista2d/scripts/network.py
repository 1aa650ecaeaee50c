"""vista2d: SAM's image encoder with a small decoder, as MONAI's ``CellSamWrapper``, in less memory and time."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from monai.networks.nets.cell_sam_wrapper import CellSamWrapper
from torch import nn
from torch.nn import functional as F

from cellbundle.engine.network import assign_weights, logger, read_weights
from cellbundle.errors import ConfigError, DependencyError
from cellbundle.flags import as_bool

try:
    from segment_anything.modeling import ImageEncoderViT
    from segment_anything.modeling.image_encoder import Attention, get_rel_pos
except ImportError as error:
    raise DependencyError("vista2d needs segment-anything; pip install 'cellbundle[vista2d]'") from error

PATCH_SIZE = 16  # pixels of the enlarged window that become one token
FEATURES = 256  # channels that the encoder hands to the decoder
BLOCK = 1 << 20  # attention weights that are in memory at a time on a CPU, so that they stay in its caches
SAM_PREFIX, VISTA_PREFIX = "image_encoder.", "model.image_encoder."  # of the encoder's keys in the two kinds of files
SAM_FILE = "sam_vit_b_01ec64.pth"


class FusedAttention(Attention):
    """segment_anything's attention with its parameters, without a matrix over all pairs of tokens.

    The logit of query i at (y, x) and key j at (y', x') is ``scale * q_i · k_j + rows[i, y'] + columns[i, x']``.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend; (B, H, W, C) in and out."""
        batch, height, width, channels = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.flatten(1, 2).unbind(0)
        places = q.unflatten(1, (height, width))
        rows = torch.einsum("mhwc,hkc->mhwk", places, get_rel_pos(height, height, self.rel_pos_h))
        columns = torch.einsum("mhwc,wkc->mhwk", places, get_rel_pos(width, width, self.rel_pos_w))
        in_blocks = q.is_cpu and not torch.is_grad_enabled() and not _is_traced()
        attend = attend_in_blocks if in_blocks else attend_fused
        answer = attend(q * self.scale, k, v, rows, columns)
        answer = answer.reshape(batch, self.num_heads, height, width, -1).permute(0, 2, 3, 1, 4)
        return self.proj(answer.reshape(batch, height, width, channels))


def attend_fused(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """Attention with a decomposed relative-position bias in one call of PyTorch's fused kernels.

    The bias becomes a part of the dot product: ``[q | rows | columns] · [k | one-hot y' | one-hot x']``. All three
    inputs are padded to one multiple of 8 channels, which flash attention asks for.

    Args:
        q: (M, H * W, D), scaled; M counts images and heads.
        k: (M, H * W, D).
        v: (M, H * W, D).
        rows: (M, H, W, H), bias of each query for each row of keys.
        columns: (M, H, W, W), bias of each query for each column of keys.

    Returns:
        (M, H * W, D).
    """
    height, width = rows.shape[1:3]
    depth = q.shape[2]
    y = torch.eye(height, dtype=k.dtype, device=k.device)[:, None].expand(-1, width, -1)
    x = torch.eye(width, dtype=k.dtype, device=k.device)[None].expand(height, -1, -1)
    places = torch.cat([y, x], dim=-1).flatten(0, 1).expand(len(k), -1, -1)
    extra = height + width
    fill = -(depth + extra) % 8
    queries = F.pad(torch.cat([q, rows.flatten(1, 2), columns.flatten(1, 2)], dim=-1), (0, fill))
    keys = F.pad(torch.cat([k, places], dim=-1), (0, fill))
    values = F.pad(v, (0, extra + fill))
    return F.scaled_dot_product_attention(queries[None], keys[None], values[None], scale=1.0)[0, ..., :depth]


def attend_in_blocks(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """The same as ``attend_fused``, some heads or some rows of queries at a time; faster on a CPU, without gradients.

    The fused kernels of a CPU take 2 to 3 times as long, because the bias triples the channels of keys and values.
    """
    height, width = rows.shape[1:3]
    n = height * width
    k, answer = k.transpose(1, 2), torch.empty_like(v)
    n_heads = max(1, BLOCK // n**2)
    n_rows = max(1, min(height, BLOCK // (n_heads * width * n)))
    for head in range(0, len(q), n_heads):
        heads = slice(head, head + n_heads)
        for top in range(0, height, n_rows):
            tokens, lines = slice(top * width, (top + n_rows) * width), slice(top, top + n_rows)
            logits = q[heads, tokens] @ k[heads]
            grid = logits.view(len(logits), -1, width, height, width)
            grid += rows[heads, lines, :, :, None]
            grid += columns[heads, lines, :, None, :]
            answer[heads, tokens] = logits.softmax(-1) @ v[heads]
    return answer


def _is_traced() -> bool:
    """Whether a compiler or an exporter records the operations: it would unroll loops."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


class VistaNetwork(CellSamWrapper):
    """MONAI's ``CellSamWrapper`` with the same state dict, built without any file, of any size.

    A window (N, 3, h, w) is enlarged to (N, 3, R, R); the encoder makes (N, 256, R/16, R/16) of it, the decoder
    (N, 3, R/4, R/4), which is brought back to (N, 3, h, w): channel 0 the cell logit, channels 1 and 2 the flow (dy,
    dx) times 5. The defaults are those of SAM ViT-B and of the weights that NVIDIA published: 89,970,051 parameters.

    Args:
        network_resize_roi: (R, R), pixels that a window is enlarged to; multiples of 16.
        sam_checkpoint: file of SAM ViT-B that the encoder starts from; None for random weights.
        fused_attention: False for segment_anything's own attention: the same result, but all logits are in memory.
        embed_dim: channels of a token.
        depth: transformer blocks.
        num_heads: attention heads.
        global_attn_indexes: blocks that see the whole window; the others see squares.
        window_size: side of these squares in tokens.

    Raises:
        ConfigError: if these numbers do not fit together.
        CheckpointError: if ``sam_checkpoint`` is not a SAM file of this size.

    Source: Kirillov et al., ICCV 2023 (SAM); MONAI ``CellSamWrapper`` (Apache-2.0), segment_anything (Apache-2.0).
    """

    def __init__(
        self,
        network_resize_roi: Sequence[int] = (1024, 1024),
        sam_checkpoint: str | None = None,
        fused_attention: bool = True,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        global_attn_indexes: Sequence[int] = (2, 5, 8, 11),
        window_size: int = 14,
    ) -> None:
        side = network_resize_roi[0]
        if tuple(network_resize_roi) != (side, side) or side < PATCH_SIZE or side % PATCH_SIZE:
            raise ConfigError(
                f"network_resize_roi is {network_resize_roi}, expected a square of a multiple of {PATCH_SIZE}"
            )
        if embed_dim % num_heads or not all(0 <= index < depth for index in global_attn_indexes):
            raise ConfigError(
                f"embed_dim {embed_dim} must be a multiple of num_heads {num_heads}, and global_attn_indexes "
                f"{list(global_attn_indexes)} must be below depth {depth}"
            )
        with torch.device("meta"):  # the base class builds ViT-B whatever the size wanted here
            super().__init__(network_resize_roi=(side, side), checkpoint=None)
        self.model.image_encoder = ImageEncoderViT(
            img_size=side,
            patch_size=PATCH_SIZE,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            out_chans=FEATURES,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=window_size,
            global_attn_indexes=tuple(global_attn_indexes),
        )
        self.model.mask_decoder.to_empty(device=torch.get_default_device())
        for layer in self.model.mask_decoder:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        if as_bool(fused_attention):
            for block in self.model.image_encoder.blocks:
                block.attn.__class__ = FusedAttention  # same parameters, another forward
        if sam_checkpoint is not None:
            self.load_sam(sam_checkpoint)

    def load_sam(self, path: str) -> None:
        """Give the encoder the weights of a SAM file (flat, keys ``image_encoder.*`` and others, which are ignored).

        Raises:
            CheckpointError: if it is damaged, or holds no encoder of this size.
        """
        weights = read_weights(path)
        encoder = {k.removeprefix(SAM_PREFIX): v for k, v in weights.items() if k.startswith(SAM_PREFIX)}
        assign_weights(
            self.model.image_encoder,
            encoder or weights,
            path,
            lambda _: self.explain_weights(weights, wanted=SAM_PREFIX),
        )
        logger.info("encoder from %s", path)

    def explain_weights(self, weights: Mapping[str, torch.Tensor], wanted: str = VISTA_PREFIX) -> str:
        """What a state dict that does not fit probably is, and which file was meant.

        Args:
            weights: the state dict.
            wanted: prefix of the encoder's keys in the kind of file that was expected.
        """
        meant = SAM_FILE if wanted == SAM_PREFIX else "model.pt of VISTA2D"
        found = next((p for p in (SAM_PREFIX, VISTA_PREFIX) if any(k.startswith(p) for k in weights)), None)
        if found != wanted:
            kind = {
                None: "the file holds neither SAM nor VISTA2D",
                SAM_PREFIX: "this is a SAM file, for training from scratch: give it as --sam_checkpoint",
                VISTA_PREFIX: "this is a whole VISTA2D network: give it as --pretrained_ckpt_path",
            }[found]
            return f"{kind}; {meant} was probably meant"
        own = self.state_dict()
        shapes = {VISTA_PREFIX + k.removeprefix(found): v.shape for k, v in weights.items() if k.startswith(found)}
        if all(key in own and own[key].shape == shape for key, shape in shapes.items()):
            return f"what is there fits, so the file may be incomplete; get {meant} again"
        there, here = encoder_size(weights, found), encoder_size(own, VISTA_PREFIX)
        return (
            f"the encoder in the file has {there}, this one {here}; {meant} was probably meant, or the network's size: "
            "give --config_file configs/small.yaml for weights trained with it, else configs/hyper_parameters.yaml"
        )


def encoder_size(weights: Mapping[str, torch.Tensor], prefix: str) -> str:
    """Width, depth and grid of an encoder in words, from its state dict."""
    blocks = {k.removeprefix(f"{prefix}blocks.").split(".")[0] for k in weights if k.startswith(f"{prefix}blocks.")}
    place = weights.get(f"{prefix}pos_embed")
    shape = (
        "unknown width"
        if place is None
        else f"{place.shape[-1]} channels on a grid of {place.shape[1]} x {place.shape[2]}"
    )
    return f"{len(blocks)} blocks of {shape}"
