"""Channels and intensity: from raw units to (3, H, W) in [0, 1]."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..errors import ArrayError, ConfigError
from .monai_label import answered_errors
from .stain import STAINS, Stain, read_stain

Method = Literal["percentiles", "8bit"]
METHODS = ("percentiles", "8bit")
MAX_8BIT = 255

PERCENTILE_SAMPLES = 1 << 20  # pixels a channel that percentiles are read from; larger images are sampled on a grid


def to_channels(image: np.ndarray, channels: Sequence[int] | None = None) -> np.ndarray:
    """Bring an image to three channels.

    Args:
        image: (C, H, W) of any dtype.
        channels: which channels to take (1 to 3 indices); by default all of them.

    Returns:
        (3, H, W): one channel is seen three times (a view, not a copy), two are followed by an empty third.

    Raises:
        ArrayError: if there are more than three channels and ``channels`` does not choose.
    """
    if channels is not None:
        image = image[check_channels(channels, image.shape[0])]
    if image.shape[0] == 1:
        return np.lib.stride_tricks.as_strided(image, (3, *image.shape[1:]), (0, *image.strides[1:]))
    if image.shape[0] == 2:
        return np.concatenate([image, np.zeros_like(image[:1])])
    if image.shape[0] == 3:
        return image
    raise ArrayError(
        f"the model takes 1 to 3 channels, the image has {image.shape[0]}; choose some, for example channels=[0]"
    )


def check_channels(channels: Sequence[int], n_channels: int) -> list[int]:
    """The chosen channels as a list; ``ArrayError`` unless they are 1 to 3 indices of an image of ``n_channels``."""
    if not 1 <= len(channels) <= 3 or not all(0 <= c < n_channels for c in channels):
        raise ArrayError(f"channels must be 1 to 3 indices below {n_channels}, got {list(channels)}")
    return list(channels)


def normalise_intensity(image: np.ndarray, lower: float = 0.5, upper: float = 99.8) -> np.ndarray:
    """Stretch each channel between two percentiles and clip.

    Args:
        image: (C, H, W) float32, finite.
        lower: percentile that becomes 0.
        upper: percentile that becomes 1; above 99 because nuclei may cover less than 1 % of an image.

    Returns:
        (C, H, W) float32 in [0, 1]; a constant channel becomes 0.
    """
    if len(image) > 1 and all(np.array_equal(channel, image[0]) for channel in image[1:]):  # a grey picture in colour
        return np.repeat(normalise_intensity(image[:1], lower, upper), len(image), axis=0)
    step = max(1, int(np.ceil(np.sqrt(image[0].size / PERCENTILE_SAMPLES))))
    result = np.empty_like(image, dtype=np.float32)
    for channel, out in zip(image, result, strict=True):
        low, high = np.percentile(channel[::step, ::step], (lower, upper)) if channel.size else (0, 0)
        if high <= low:  # sparse signal: fall back to the full range before giving up
            low, high = (channel.min(), channel.max()) if channel.size else (0, 0)
        scale = 1.0 / (high - low) if high > low else 0.0
        np.clip((channel - np.float32(low)) * np.float32(scale), 0, 1, out=out)
    return result


def scale_8bit(image: np.ndarray) -> np.ndarray:
    """Divide 8-bit values by 255.

    Args:
        image: (C, H, W) float32, 0..255.

    Returns:
        (C, H, W) float32 in [0, 1].

    Raises:
        ArrayError: if there are other values.
    """
    low, high = (float(image.min()), float(image.max())) if image.size else (0.0, 0.0)
    if low < 0 or high > MAX_8BIT:
        raise ArrayError(
            f"intensities are {low:g} to {high:g}, expected 0 to {MAX_8BIT} of an 8-bit image; stretch them between "
            "percentiles instead (intensity: percentiles)"
        )
    return image / np.float32(MAX_8BIT)


class NormaliseIntensityd(MapTransform):
    """``to_channels`` and ``normalise_intensity`` for tensors (C, H, W) of a dictionary; metadata are kept.

    Args:
        keys: entries to normalise.
        lower: see ``normalise_intensity``.
        upper: likewise.
        channels: see ``to_channels``.
        stain: how colours of tissue are read before, see ``cellbundle.transforms.stain.read_stain``; only where no
            ``channels`` are chosen.
        method: ``percentiles``; ``8bit`` for ``scale_8bit``, which networks of others may have learnt with.

    Raises:
        ConfigError: for another method or stain.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        lower: float = 0.5,
        upper: float = 99.8,
        channels: Sequence[int] | None = None,
        method: Method = "percentiles",
        stain: Stain = "none",
    ) -> None:
        super().__init__(keys)
        if stain not in STAINS:
            raise ConfigError(f"stain is {stain!r}; choose one of {', '.join(STAINS)}")
        if stain == "hematoxylin" and channels is not None:
            raise ConfigError("stain and channels are both given; haematoxylin is read from red, green and blue")
        if method not in METHODS:
            raise ConfigError(f"intensity is {method!r}; choose one of {', '.join(METHODS)}")
        self.lower, self.upper, self.channels, self.method = lower, upper, channels, method
        self.stain = "none" if channels is not None else stain

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with normalised images, (3, H, W) float32 in [0, 1]."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            with answered_errors():
                scaled = torch.from_numpy(self._scaled(np.asarray(image, dtype=np.float32)))
            result[key] = type(image)(scaled, meta=image.meta) if hasattr(image, "meta") else scaled
        return result

    def _scaled(self, array: np.ndarray) -> np.ndarray:
        array = read_stain(array, self.stain)
        array = array if self.channels is None else array[check_channels(self.channels, len(array))]
        array = scale_8bit(array) if self.method == "8bit" else normalise_intensity(array, self.lower, self.upper)
        return to_channels(array)
