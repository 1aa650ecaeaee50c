"""Large images in tiles: a plan that wastes little, and a MONAI inferer that follows it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.inferers import Inferer, sliding_window_inference
from torch.nn import functional as F

from ..errors import ConfigError
from ..flags import as_bool
from ..transforms.resize import resample


@dataclass(frozen=True)
class TilePlan:
    """How an image is cut.

    Attributes:
        tile: (h, w) of every tile, pixels.
        counts: tiles along (y, x).
        strides: pixels from one tile to the next along (y, x).
    """

    tile: tuple[int, int]
    counts: tuple[int, int]
    strides: tuple[int, int]

    @property
    def n_tiles(self) -> int:
        """Network calls for one image."""
        return self.counts[0] * self.counts[1]


def plan_tiles(
    size: Sequence[int], largest: Sequence[int], overlap: float = 0.25, multiple: int = 32, fixed: bool = False
) -> TilePlan:
    """Cut an image into the fewest tiles of one size, no larger than needed.

    An image that fits into one tile is one tile. A larger one gets tiles that are shrunk until they just cover it:
    1040 pixels with tiles of at most 1024 become two of 608, not two of 1024.

    Args:
        size: (H, W) of the image, pixels, at least 1.
        largest: (h, w) that a tile may have at most, multiples of ``multiple``.
        overlap: share of a tile that neighbours have in common at least, 0 <= overlap < 1.
        multiple: tiles are multiples of this.
        fixed: never shrink the tiles; smaller images are to be padded.

    Raises:
        ValueError: if a size is not positive, a tile is not a multiple, or the overlap is not in [0, 1).
    """
    if min(size) < 1 or not are_tiles(largest, overlap, multiple):
        raise ValueError(
            f"size must be positive, largest a multiple of {multiple}, overlap in [0, 1); "
            f"got {tuple(size)}, {tuple(largest)}, {overlap}"
        )
    tiles, counts, strides = [], [], []
    for length, side in zip(size, largest, strict=True):
        count = max(1, math.ceil((length - overlap * side) / (side - overlap * side)))
        tile = side if fixed else math.ceil(length / (count - (count - 1) * overlap) / multiple) * multiple
        stride = math.ceil((length - tile) / (count - 1)) if count > 1 else tile
        tiles.append(tile)
        counts.append(1 + max(0, math.ceil((length - tile) / stride)))  # whole pixels may need fewer
        strides.append(stride)
    return TilePlan((tiles[0], tiles[1]), (counts[0], counts[1]), (strides[0], strides[1]))


def are_tiles(largest: Sequence[int], overlap: float, multiple: int) -> bool:
    """Whether an image can be cut into tiles (h, w) of such a size and overlap; see ``plan_tiles``."""
    return min(largest) >= multiple and not any(side % multiple for side in largest) and 0 <= overlap < 1


class TiledInferer(Inferer):
    """Runs a network over images of any size: in one piece when they fit, else in blended, overlapping tiles.

    Args:
        roi_size: largest tile (h, w), pixels that the network sees.
        overlap: share of a tile that neighbours have in common at least.
        sw_batch_size: tiles for each network call.
        multiple: tiles are multiples of this.
        sigma: width of the Gaussian, as a share of the tile.
        scale: magnification at which the network sees the image; its answer is brought back to the image's pixels, tile
            by tile, so that memory does not grow with it. The time grows with its square.
        fixed: every network call has the size ``network_tile()``, as engines that are built for one size need it.

    Source: ``monai.inferers.sliding_window_inference`` does the work.
    """

    takes_batches = True  # images of one shape can share a call of the network

    def __init__(
        self,
        roi_size: Sequence[int] = (1024, 1024),
        overlap: float = 0.25,
        sw_batch_size: int = 1,
        multiple: int = 32,
        sigma: float = 0.175,
        scale: float = 1.0,
        fixed: bool = False,
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise ConfigError(f"scale is {scale}, expected a magnification above 0 (1 leaves the image as it is)")
        if not are_tiles(roi_size, overlap, multiple):
            raise ConfigError(
                f"tiles of {list(roi_size)} pixels (h, w) with an overlap of {overlap} cannot be made; expected "
                f"multiples of {multiple} (tile, tile_size or roi_size) and an overlap in [0, 1) (tile_overlap)"
            )
        self.roi_size, self.overlap, self.sw_batch_size = tuple(roi_size), overlap, sw_batch_size
        self.multiple, self.sigma, self.scale, self.fixed = multiple, sigma, scale, as_bool(fixed)

    def largest_tile(self, magnification: float = 1.0) -> list[int]:
        """Largest tile (h, w) in pixels of the image, seen at ``scale`` times ``magnification``."""
        scale = self.scale * magnification
        if scale == 1:
            return list(self.roi_size)
        return [max(1, int(side / scale / self.multiple)) * self.multiple for side in self.roi_size]

    def network_tile(self) -> list[int]:
        """Largest tile (h, w) in pixels that the network sees."""
        return magnified(self.largest_tile(), self.scale)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Predict one image or a batch of one size.

        Args:
            inputs: (N, C, H, W).
            network: maps (N, C, h, w) to (N, K, h, w).
            *args: passed to the network.
            **kwargs: passed to the network.

        Returns:
            (N, K, H, W) float32 on the device of ``inputs``.
        """
        return self.predict(inputs, network, *args, **kwargs)

    def predict(
        self,
        inputs: torch.Tensor,
        network: Callable[..., torch.Tensor],
        *args: Any,
        magnification: float = 1.0,
        **kwargs: Any,
    ) -> torch.Tensor:
        """As a call, with images that are magnified on top of ``scale``."""
        largest = self.largest_tile(magnification)
        plan = plan_tiles(inputs.shape[-2:], largest, self.overlap, self.multiple, self.fixed)

        def predict(tile: torch.Tensor) -> torch.Tensor:
            size = tile.shape[-2:]
            seen = resample(tile, self.network_tile() if self.fixed else magnified(size, self.scale * magnification))
            answer = network(seen.contiguous(memory_format=torch.channels_last), *args, **kwargs)
            answer = answer.float().contiguous()  # as the image that tiles are blended into; mixed layouts are slow
            return resample(answer, size) if seen is not tile else answer

        if plan.n_tiles == 1 and not self.fixed:
            return predict(inputs)
        # MONAI truncates tile * (1 - overlap) to the stride; half a pixel keeps rounding from losing one.
        overlap = [max(0.0, 1 - (stride + 0.5) / tile) for stride, tile in zip(plan.strides, plan.tile, strict=True)]
        blended: Any = sliding_window_inference(
            inputs,
            roi_size=plan.tile,
            sw_batch_size=self.sw_batch_size,
            predictor=predict,
            overlap=overlap,
            mode="gaussian",
            sigma_scale=self.sigma,
            padding_mode="replicate",
        )
        return blended


def magnified(size: Sequence[int], scale: float) -> list[int]:
    """Whole pixels (h, w) of an image or tile at a scale."""
    return [max(1, round(side * scale)) for side in size]


class ResizeInferer(Inferer):
    """Shows a network whole images at one size and brings its answer back by the nearest pixel.

    Args:
        roi_size: (h, w) that the network sees, multiples of ``multiple``.
        multiple: see ``TiledInferer``.
        scale: 1, the only value that makes sense here.

    Raises:
        ConfigError: for another scale.
    """

    takes_batches = True

    def __init__(self, roi_size: Sequence[int] = (224, 224), multiple: int = 32, scale: float = 1.0) -> None:
        super().__init__()
        if scale != 1:
            raise ConfigError(f"scale is {scale}, but whole images are resized to {tuple(roi_size)}; leave it at 1")
        self.roi_size, self.multiple, self.scale = tuple(roi_size), multiple, scale

    def network_tile(self) -> list[int]:
        """Size (h, w) that the network sees."""
        return list(self.roi_size)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Predict one image or a batch of one size; arguments and result as in ``TiledInferer``."""
        seen = resample(inputs, self.roi_size).contiguous(memory_format=torch.channels_last)
        return F.interpolate(network(seen, *args, **kwargs).float(), size=inputs.shape[-2:], mode="nearest-exact")
