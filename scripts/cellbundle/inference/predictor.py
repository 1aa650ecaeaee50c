"""Segment arrays and files with a bundle: load it once, reuse it."""

import logging
from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from ..bundles import bundle_code, find_bundle, inference_parser
from ..device import choose_device
from ..errors import ConfigError
from ..instances import Instances
from ..io import DEFAULT_MAX_PIXELS, as_image, read_image
from ..record import OWN_WEIGHTS
from .segment import Segmentation, measured, segment
from .sizing import Diameter, Size, check_diameter

logger = logging.getLogger(__name__)

ENOUGH_MEMORY = 3 * 2**30  # bytes that are free
SMALL_TILE = 512  # largest side of a tile where less is


class Predictor:
    """A bundle ready to segment images.

    Args:
        bundle: name or folder, see ``cellbundle.bundles.find_bundle``.
        device: see ``cellbundle.device.choose_device``.
        channels: 1 to 3 channel indices; needed for images of more than three channels.
        diameter: typical diameter of the cells in pixels; the image is magnified so that the network sees the diameter
            that it knows best. ``auto`` finds it for each image where the bundle can, ``none`` keeps its scale.
        rescale: magnification on top of the bundle's own scale; not together with a number as ``diameter``.
        tile: largest side of a tile that the network sees, a multiple of 32; by default the bundle's own, or 512 where
            memory is short. Bundles whose windows have one size (no ``tile_size`` in their configuration) take none.
        stain: how images of stained tissue are read, in place of the bundle's own choice (``stain`` of its
            configuration): for cell_unet ``auto``, ``none`` or ``hematoxylin``.
        min_score: smallest score of a cell, in [0, 1], in place of the bundle's own (``min_score`` of its ``decoder``).
        weights: checkpoint in place of the bundle's own.

    Raises:
        ConfigError: for an unknown bundle or device, or values that cannot be.
        CheckpointError: if the weights are missing, damaged or another network's.
    """

    def __init__(
        self,
        bundle: str | Path = "cell_unet",
        *,
        device: str = "auto",
        channels: Sequence[int] | None = None,
        diameter: Diameter = "auto",
        rescale: float | None = None,
        tile: int | None = None,
        stain: str | None = None,
        min_score: float | None = None,
        weights: str | Path | None = None,
    ) -> None:
        self.root = find_bundle(bundle)
        self.weights = str(weights or OWN_WEIGHTS)
        self.device = choose_device(device)
        overrides: dict[str, Any] = {"device": self.device}
        if weights is not None:
            overrides["weights"] = str(weights)
        if channels is not None:
            overrides["channels"] = list(channels)
        with bundle_code(self.root):
            parser = inference_parser(self.root, overrides)
            self._parser, self._own_scale = parser, float(parser["scale"])
            self._rescale = rescale
            if "tile_size" in parser:
                parser["tile_size"] = choose_tile(self.device, parser["tile_size"]) if tile is None else [tile] * 2
            elif tile is not None:
                raise ConfigError(f"bundle {self.root.name} has windows of one size; leave tile out")
            if stain is not None:
                parser["stain"] = self._checked_stain(stain)
            if min_score is not None:
                parser["decoder#min_score"] = self._checked_score(min_score)
            self.network = parser.get_parsed_content("network").eval()
            self.decoder, self.normaliser = map(parser.get_parsed_content, ("decoder", "normaliser"))
            self.amp, self.amp_dtype = parser.get_parsed_content("amp"), parser.get_parsed_content("amp_dtype")
            self.class_names = list(parser.get_parsed_content("class_names") or ()) if "class_names" in parser else []
        self._use_diameter(diameter)
        self.tile = max(self.inferer.roi_size)

    def at_diameter(self, diameter: Diameter) -> "Predictor":
        """The same predictor for cells of another typical diameter, as ``Predictor`` takes it; nothing is loaded again.

        Raises:
            ConfigError: if the bundle knows no diameter that it likes best, or for a diameter that cannot be.
        """
        other = copy(self)
        other._use_diameter(diameter)
        return other

    def _use_diameter(self, diameter: Diameter) -> None:
        """Change the magnification, and build the inferer that follows it."""
        parser = self._parser
        self.scale = parser["scale"] = self._scale_for(diameter)
        if "inferer#diameter" in parser:
            parser["inferer#diameter"] = "auto" if diameter == "auto" and self._rescale is None else "none"
        self.size = Size(None if isinstance(diameter, str) else diameter, self.scale / self._own_scale)
        with bundle_code(self.root):
            self.inferer = parser.get_parsed_content("inferer")
        self._check_tile()

    @property
    def diameter(self) -> float | None:
        """Diameter in pixels that the bundle knows best, or None if it does not say."""
        return float(self._parser["diameter"]) if "diameter" in self._parser else None

    @property
    def looks_for_size(self) -> bool:
        """Whether the size of the cells is found for each image: wanted, and within the powers of the bundle."""
        return getattr(self.inferer, "diameter", None) == "auto"

    def _scale_for(self, diameter: Diameter) -> float:
        """Magnification in front of the network; where the size of the cells is found, at a magnification of 1."""
        diameter = check_diameter(diameter)
        if self._rescale is not None and not self._rescale > 0:
            raise ConfigError(f"rescale is {self._rescale}, expected a number above 0")
        if isinstance(diameter, str):
            return self._own_scale * (self._rescale or 1.0)
        if self._rescale is not None:
            raise ConfigError("both diameter and rescale are given; choose one")
        if self.diameter is None:
            raise ConfigError("this bundle knows no diameter that it likes best; give rescale instead")
        return self._own_scale * self.diameter / diameter

    def _checked_stain(self, stain: str) -> str:
        """``stain``, if the bundle has one to replace."""
        if "stain" not in self._parser:
            raise ConfigError(f"bundle {self.root.name} does not look at stains; leave stain out")
        return stain

    def _checked_score(self, min_score: float) -> float:
        """``min_score``, if it can be one and the bundle has one to replace."""
        if "decoder#min_score" not in self._parser:
            raise ConfigError(f"bundle {self.root.name} has no smallest score of a cell to change; leave min_score out")
        if not 0 <= min_score <= 1:
            raise ConfigError(f"min_score is {min_score}, expected a number from 0 (keep all cells) to 1")
        return min_score

    def _check_tile(self) -> None:
        tile = max(self.inferer.roi_size)
        if self.scale * self.inferer.multiple > tile:
            raise ConfigError(
                f"magnification {self.scale:g} does not fit into tiles of {tile}; give diameters in pixels, not µm"
            )

    def segment(self, image: NDArray[np.float32]) -> Segmentation:
        """Instances of one image.

        Args:
            image: (C, H, W) float32, finite, any units.

        Raises:
            ArrayError: if there are more channels than the bundle takes and none were chosen.
        """
        return self.segment_batch([image])[0]

    def segment_batch(self, images: Sequence[NDArray[np.float32]]) -> list[Segmentation]:
        """Instances of images of one shape, with one call of the network where ``takes_batches``.

        Args:
            images: each as for ``segment``.
        """
        with bundle_code(self.root):
            batch = self._batch(images).to(self.device)
            found = segment(batch, self.network, self.inferer, self.decoder, self.class_names, self.amp, self.amp_dtype)
        return found if self.looks_for_size else [one._replace(size=self.size) for one in found]

    def _batch(self, images: Sequence[NDArray[np.float32]]) -> torch.Tensor:
        """Normalised images as (N, C, H, W); a single one is not copied, because it may take most of the memory."""
        tensors = [self.normaliser({"image": torch.from_numpy(image)})["image"] for image in images]
        return torch.stack(tensors) if len(tensors) > 1 else tensors[0][None]

    @property
    def takes_batches(self) -> bool:
        """Whether images of one shape can share a call of the network; detectors take them one by one."""
        return bool(getattr(self.inferer, "takes_batches", False))

    def __call__(self, image: NDArray[np.float32], pixel_size_um: tuple[float, float] | None = None) -> Instances:
        """``segment``, with the measurements of ``instances.measure.measure``, scores and any classes in a table."""
        return measured(self.segment(image), image, pixel_size_um)


def predict(
    image: NDArray | str | Path,
    bundle: str | Path = "cell_unet",
    *,
    axes: str | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    **options: Any,
) -> Instances:
    """Segment one image. The bundle is loaded once and kept for the next call with the same options.

    Args:
        image: (H, W), (H, W, C) or (C, H, W) array of any real dtype, or the path of an image file.
        bundle: name or folder of a bundle.
        axes: one letter for each dimension, such as "CYX", where the array or the file leaves it open.
        max_pixels: largest image file to decode.
        **options: of ``Predictor``.

    Returns:
        Labels (H, W) int32, 0 background, 1..N instances, and a table with one row an instance.

    Raises:
        ImageReadError: if the file cannot be read, or the axes are unclear.
        ArrayError: if the array is not an image.
        ConfigError: for an unknown bundle or option.
    """
    if isinstance(image, str | Path):
        loaded = read_image(image, axes=axes, max_pixels=max_pixels)
        data, pixel_size = loaded.data, loaded.pixel_size_um
    else:
        data, pixel_size = as_image(image, axes), None
    frozen = tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in options.items()))
    return _predictor(str(bundle), frozen)(data, pixel_size)


def choose_tile(device: torch.device, largest: Sequence[int]) -> list[int]:
    """A bundle's ``largest`` tile (h, w), in pixels that the network sees, or a smaller one where memory is short."""
    return [min(side, SMALL_TILE) for side in largest] if memory_is_short(device) else list(largest)


def memory_is_short(device: torch.device) -> bool:
    """Whether less memory of a device is free than large tiles need."""
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    return free < ENOUGH_MEMORY


@lru_cache(maxsize=2)
def _predictor(bundle: str, options: tuple[tuple[str, Any], ...]) -> Predictor:
    return Predictor(bundle, **dict(options))
