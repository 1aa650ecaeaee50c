"""Whole images at one size."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch.nn import functional as F


def resample(tensor: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bilinear resampling of (N, C, H, W) to (N, C, *size), low-passed first where it shrinks."""
    if tuple(tensor.shape[-2:]) == tuple(size):
        return tensor
    shrinks = size[0] < tensor.shape[-2] or size[1] < tensor.shape[-1]
    return F.interpolate(tensor, size=tuple(size), mode="bilinear", align_corners=False, antialias=shrinks)


class ResizeCelld(MapTransform):
    """Resize entries (C, H, W): those of floating point as ``ResizeInferer`` does, label maps by the nearest pixel.

    Args:
        keys: entries to replace by plain tensors.
        size: (h, w) of the result.
    """

    def __init__(self, keys: KeysCollection, size: Sequence[int]) -> None:
        super().__init__(keys)
        self.size = tuple(size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with resized entries of the same dtype."""
        result = dict(data)
        for key in self.key_iterator(result):
            tensor = result[key].as_tensor() if hasattr(result[key], "as_tensor") else torch.as_tensor(result[key])
            if tensor.is_floating_point():
                result[key] = resample(tensor[None], self.size)[0]
            else:  # float32 merges ids above 2**24
                sampled = F.interpolate(tensor[None].double(), size=self.size, mode="nearest-exact")
                result[key] = sampled[0].to(tensor.dtype)
        return result
