"""Random transforms that MONAI does not have in the form that cells need."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch.nn import functional as F

from ..flags import as_bool
from ..instances.measure import diameters


def sample_affine(tensor: torch.Tensor, matrix: np.ndarray, size: Sequence[int], mode: str) -> torch.Tensor:
    """Sample a (C, H, W) tensor where an affine map sends each output pixel; mirrored outside.

    Args:
        tensor: (C, H, W), any dtype.
        matrix: (2, 3), output offset from the centre (y, x, 1) in pixels to input position (y, x) in pixels.
        size: (h, w) of the output.
        mode: "bilinear" or "nearest".

    Returns:
        (C, h, w) of the same dtype.
    """
    height, width = tensor.shape[-2:]
    ys = torch.arange(size[0], dtype=torch.float32) - (size[0] - 1) / 2
    xs = torch.arange(size[1], dtype=torch.float32) - (size[1] - 1) / 2
    a = torch.from_numpy(matrix.astype(np.float32))
    y = a[0, 0] * ys[:, None] + a[0, 1] * xs[None] + a[0, 2]
    x = a[1, 0] * ys[:, None] + a[1, 1] * xs[None] + a[1, 2]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)[None]
    dtype = torch.float32 if tensor.is_floating_point() else torch.float64  # float32 merges ids above 2**24
    sampled = F.grid_sample(
        tensor[None].to(dtype), grid.to(dtype), mode=mode, padding_mode="reflection", align_corners=False
    )
    return sampled[0].to(tensor.dtype)


class RandCropAffined(RandomizableTransform, MapTransform):
    """A random crop, rotated, zoomed and mirrored in one resampling: pixels blur once, only the crop is computed.

    MONAI's ``RandAffined`` draws one zoom an axis and turns around the image's centre; cells need equal zoom and any
    place.

    Args:
        keys: entries (C, H, W) to transform together.
        size: (h, w) of the crop.
        zoom: range of the magnification, drawn log-uniformly.
        stretch: largest relative difference between the zooms of the two axes.
        rotate: probability of a rotation by any angle; otherwise a multiple of 90 degrees.
        modes: "bilinear" or "nearest" for each key.
        diameters: range of the median cell diameter of an image, in pixels of the crop, that narrows ``zoom``; None
            does not. The last key is the label map.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: Sequence[int],
        zoom: tuple[float, float] = (0.75, 1.33),
        stretch: float = 0.1,
        rotate: float = 0.5,
        modes: Sequence[str] = ("bilinear", "nearest"),
        diameters: tuple[float, float] | None = None,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=1.0)
        if len(modes) != len(self.keys):
            raise ValueError(f"one mode for each key is needed, got {len(modes)} modes for {len(self.keys)} keys")
        self.size, self.zoom, self.stretch, self.rotate, self.modes = tuple(size), zoom, stretch, rotate, tuple(modes)
        self.diameters = diameters

    def draw(self, shape: Sequence[int], diameter: float | None = None) -> np.ndarray:
        """Draw the (2, 3) matrix of ``sample_affine`` for an input of (H, W) pixels with cells of a diameter."""
        limits = np.asarray(self.zoom, float)
        if self.diameters is not None and diameter is not None:
            limits = np.clip(limits, *(np.asarray(self.diameters) / diameter))
        zoom = np.exp(self.R.uniform(*np.log(limits)))
        stretch = np.exp(self.R.uniform(-self.stretch, self.stretch) / 2)
        quarter = self.R.randint(4) * np.pi / 2
        angle = self.R.uniform(0, 2 * np.pi) if self.R.rand() < self.rotate else quarter
        mirror = self.R.choice([-1.0, 1.0])
        cos, sin = np.cos(angle), np.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror * stretch / zoom, 1 / (stretch * zoom)])
        reach = np.abs(linear) @ (np.asarray(self.size) / 2)
        low, high = reach - 0.5, np.asarray(shape) - reach - 0.5
        middle = (np.asarray(shape) - 1) / 2
        place = self.R.uniform(size=2)
        centre = np.where(high > low, low + place * (high - low), middle)
        return np.concatenate([linear, centre[:, None]], axis=1)

    def diameter_of(self, labels: torch.Tensor) -> float | None:
        """Median diameter of the cells of a label map in pixels, if it is asked for and there are any."""
        if self.diameters is None or not labels.any():
            return None
        return float(np.median(diameters(np.asarray(labels))))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with crops (C, h, w) as plain tensors."""
        result = dict(data)
        matrix = self.draw(result[self.keys[0]].shape[-2:], self.diameter_of(result[self.keys[-1]]))
        for key, mode in zip(self.keys, self.modes, strict=True):
            tensor = result[key]
            result[key] = sample_affine(
                tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor, matrix, self.size, mode
            )
        return result


class RandSignedAffined(RandomizableTransform, MapTransform):
    """Randomly rotate, move and shear around the centre of the image, which keeps its size; mirrored outside.

    Each amount is drawn from a range and gets a sign of its own, so that no direction is preferred.

    Args:
        keys: entries (C, H, W) to transform together.
        prob: probability of a change.
        angle: range of the rotation, degrees.
        translate: range of the way along each axis, as a share of its length.
        shear: range of the shear along x, degrees.
        signed: False leaves all amounts positive.
        pixels: ``translate`` is in pixels.
        modes: "bilinear" or "nearest" for each key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.25,
        angle: tuple[float, float] = (0.0, 30.0),
        translate: tuple[float, float] = (0.05, 0.1),
        shear: tuple[float, float] = (5.0, 10.0),
        signed: bool = True,
        pixels: bool = False,
        modes: Sequence[str] = ("bilinear", "nearest"),
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=prob)
        if len(modes) != len(self.keys):
            raise ValueError(f"one mode for each key is needed, got {len(modes)} modes for {len(self.keys)} keys")
        self.angle, self.translate, self.shear = angle, translate, shear
        self.signed, self.pixels, self.modes = as_bool(signed), as_bool(pixels), tuple(modes)

    def draw(self, shape: Sequence[int]) -> tuple[float, float, np.ndarray]:
        """Draw angle (degrees, counter-clockwise), shear (degrees) and translation (y, x) in pixels for (H, W)."""
        lows, highs = np.transpose([self.angle, self.shear, self.translate, self.translate])
        amounts = self.R.uniform(lows, highs) * (self.R.choice([-1.0, 1.0], size=4) if self.signed else 1.0)
        length = np.ones(2) if self.pixels else np.asarray(shape, float)
        return float(amounts[0]), float(amounts[1]), amounts[2:] * length

    def matrix(self, shape: Sequence[int]) -> np.ndarray:
        """The (2, 3) matrix of ``sample_affine`` for what ``draw`` gives for (H, W) pixels."""
        angle, shear, move = self.draw(shape)
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        turned = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, 0.0], [np.tan(np.radians(shear)), 1.0]])
        back = np.linalg.inv(turned)  # where an output pixel comes from
        return np.concatenate([back, ((np.asarray(shape) - 1) / 2 - back @ move)[:, None]], axis=1)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data``, where changed with plain tensors."""
        result = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return result
        shape = result[self.keys[0]].shape[-2:]
        matrix = self.matrix(shape)
        for key, mode in zip(self.keys, self.modes, strict=True):
            tensor = result[key]
            plain = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
            result[key] = sample_affine(plain, matrix, shape, mode)
        return result


class RandChannelsd(RandomizableTransform, MapTransform):
    """Randomly permute channels, invert, and turn to grey: one model for dark-on-bright and bright-on-dark images.

    Args:
        keys: image entries (3, H, W) in [0, 1].
        permute: probability of a channel permutation.
        invert: probability of ``1 - image``.
        grey: probability of three copies of the mean channel.
    """

    def __init__(
        self, keys: KeysCollection = "image", permute: float = 0.2, invert: float = 0.2, grey: float = 0.1
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=1.0)
        self.permute, self.invert, self.grey = permute, invert, grey

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with changed images, still in [0, 1]."""
        result = dict(data)
        draws, order = self.R.uniform(size=3), self.R.permutation(3)
        for key in self.key_iterator(result):
            image = result[key]
            if draws[0] < self.permute:
                image = image[order.tolist()]
            if draws[1] < self.invert:
                image = 1 - image
            if draws[2] < self.grey:
                image = image.mean(0, keepdim=True).expand_as(image).clone()
            result[key] = image
        return result
