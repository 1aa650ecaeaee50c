"""Paths from an image file to a label file: a bundle's own, and the reference of MONAI's and cellpose's parts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, EnsureTyped, ScaleIntensityd, ScaleIntensityRangePercentilesd
from PIL import Image
from torch import nn

from cellbundle.bundles import find_bundle, inference_parser
from cellbundle.decode.flows import drop_uncertain
from cellbundle.device import autocast, autocast_dtype
from cellbundle.errors import ConfigError
from cellbundle.inference.tiling import TiledInferer
from cellbundle.transforms import DecodeFlowsd
from cellbundle.transforms.resize import resample

WINDOW = 256  # pixels
OVERLAP = 0.625  # of the reference
OVERLAPS = (OVERLAP, 0.5, 0.25, 0.1)
BATCH = 4  # windows a network call for bundles that ask for one
DEVIATION = 0.1  # of random weights that start as zeros: where all are zero, an error in using them is not seen

Network = Callable[[torch.Tensor], torch.Tensor]
Item = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: what it is called there.
        options: values of ``inference.json`` by id.
        is_reference: MONAI's and cellpose's parts around the network.
        compiled: the network goes through ``torch.compile``.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    is_reference: bool = False
    compiled: bool = False


class BundlePath:
    """What users get: the preprocessing, inferer, decoder and saver of a bundle's ``inference.json``.

    Args:
        variant: as in the table.
        parser: of ``inference.json`` with the options of the variant.
        network: on the device, ready to run.
    """

    def __init__(self, variant: Variant, parser: ConfigParser, network: Network) -> None:
        self.variant, self.network = variant, network
        self.device: torch.device = parser.get_parsed_content("device")
        self.amp, self.amp_dtype = parser.get_parsed_content("amp"), parser.get_parsed_content("amp_dtype")
        self.loader, *self.preprocessing = parser.get_parsed_content("preprocessing")
        self.normaliser = parser.get_parsed_content("normaliser")
        self.inferer: TiledInferer = parser.get_parsed_content("inferer")
        self.decoder: DecodeFlowsd = parser.get_parsed_content("decoder")
        self.saver = parser.get_parsed_content("saver")
        self.batch = self.inferer.sw_batch_size

    @property
    def precision(self) -> torch.dtype | None:
        """What the network computes in, None for float32."""
        return autocast_dtype(self.device, self.amp_dtype) if self.amp else None

    def read(self, path: Path) -> Item:
        """The image (C, H, W) float32 in raw units under ``image``."""
        return self.loader({"image": str(path)})

    def transform(self, item: Item) -> Item:
        """Adds (1, 3, H, W) float32 in [0, 1] on the device under ``input``."""
        item = Compose(self.preprocessing)(item)
        return item | {"input": item["image"].as_tensor()[None].to(self.device)}

    def infer(self, image: torch.Tensor, network: Network) -> torch.Tensor:
        """(1, 3, H, W) to the prediction (3, H, W); ``network`` stands for the path's own."""
        with torch.inference_mode(), autocast(self.device, self.amp, self.amp_dtype):
            return self._blend(image, network)[0]

    def decode(self, item: Item) -> Item:
        """Replaces ``pred`` by label map (1, H, W) int32."""
        return self.decoder(item)

    def write(self, item: Item) -> None:
        """Writes the label map."""
        self.saver(item)

    def answer(self, windows: torch.Tensor) -> torch.Tensor:
        """What the path's network says of windows (N, 3, 256, 256), in pixels of an image."""
        size = windows.shape[-2:]
        with torch.inference_mode(), autocast(self.device, self.amp, self.amp_dtype):
            seen = resample(windows, [round(side * self.inferer.scale) for side in size])
            return self.network(seen.contiguous(memory_format=torch.channels_last))

    def _blend(self, image: torch.Tensor, network: Network) -> torch.Tensor:
        return self.inferer(image, network)


class ReferencePath(BundlePath):
    """The parts of the official VISTA2D bundle as they are installed: Pillow, MONAI, cellpose and tifffile.

    Percentiles, magnification and thresholds are those of the bundle that it is compared with.
    """

    def __init__(self, variant: Variant, parser: ConfigParser, network: Network) -> None:
        super().__init__(variant, parser, network)
        self.folder, self.batch = Path(parser.get_parsed_content("output_dir")), 1
        self.preprocessing = [
            EnsureTyped(keys="image", dtype=torch.float32),
            ScaleIntensityd(keys="image", minv=0, maxv=1, channel_wise=True),
            ScaleIntensityRangePercentilesd(
                keys="image",
                lower=self.normaliser.lower,
                upper=self.normaliser.upper,
                b_min=0,
                b_max=1,
                clip=True,
                channel_wise=True,
            ),
        ]
        self.windows = SlidingWindowInferer(
            roi_size=(WINDOW, WINDOW), sw_batch_size=1, overlap=OVERLAP, mode="gaussian", cache_roi_weight_map=True
        )

    def read(self, path: Path) -> Item:
        """The image (C, H, W) in raw units, and its path."""
        pixels = np.asarray(Image.open(path))
        pixels = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else np.repeat(pixels[None], 3, 0)
        return {"image": pixels, "path": path}

    def decode(self, item: Item) -> Item:
        """Replaces ``pred`` by label map (1, H, W)."""
        from cellpose.dynamics import compute_masks  # noqa: PLC0415  (a peer, which only benchmarks and tests need)

        prediction = item["pred"].float().cpu().numpy()
        options = self.decoder.options
        labels = compute_masks(
            prediction[1:],
            prediction[0],
            niter=options["n_steps"],
            cellprob_threshold=options["cell_threshold"],
            flow_threshold=options["flow_threshold"],
            min_size=options["min_size"],
            max_size_fraction=1.0,
            device=self.device,
        )
        if min_score := options.get("min_score"):  # the official bundle has none
            labels = drop_uncertain(np.asarray(labels, np.int32), prediction[0], min_score)
        return item | {"pred": np.asarray(labels)[None]}

    def write(self, item: Item) -> None:
        """Writes the label map, uint8 where that is wide enough."""
        labels = item["pred"][0]
        labels = labels.astype(np.uint8) if labels.max(initial=0) <= np.iinfo(np.uint8).max else labels
        tifffile.imwrite(self.folder / f"{item['path'].stem}.tif", labels)

    def _blend(self, image: torch.Tensor, network: Network) -> torch.Tensor:
        seen = [round(WINDOW * self.inferer.scale)] * 2

        def predict(window: torch.Tensor) -> torch.Tensor:
            return resample(network(resample(window, seen)).float(), window.shape[-2:])

        return self.windows(image, predict)


class Bundle:
    """A bundle from which paths are built; those with the same attention share one network, all the same weights.

    Args:
        name: name or folder.
        device: where to compute.
        weights: checkpoint; by default the bundle's own, and random weights if it has none.
        folder: where label files go.
        configs: files whose values replace those of ``inference.json`` that have the same id.

    Raises:
        ConfigError: if there is no such bundle, or it does not predict flows.
    """

    def __init__(
        self,
        name: str | Path,
        device: torch.device,
        weights: Path | None,
        folder: Path,
        configs: tuple[Path, ...] = (),
    ) -> None:
        self.root, self.device = find_bundle(name), device
        own = self.root / "models" / "model.pt"
        self.weights = weights or (own if own.is_file() else None)
        self.options: dict[str, Any] = {
            "device": device,
            "weights": None if self.weights is None else str(self.weights),
            "output_dir": str(folder),
        }
        known = inference_parser(self.root, self.options).get()
        for config in configs:
            values: Mapping[str, Any] = ConfigParser.load_config_file(config)
            self.options |= {key: value for key, value in values.items() if key.split("#")[0] in known}
        self.parser = inference_parser(self.root, self.options)
        decoder = known["decoder"].get("_target_", "") if isinstance(known.get("decoder"), dict) else ""
        if not decoder.endswith("DecodeFlowsd"):
            raise ConfigError(
                f"bundle {self.root.name} does not predict flows; the reference path can decode nothing else"
            )
        self.networks: dict[Any, nn.Module] = {}
        self.state: dict[str, torch.Tensor] | None = None

    def path(self, variant: Variant) -> BundlePath:
        """The path of a variant."""
        parser = inference_parser(self.root, self.options | variant.options)
        key = (variant.options.get("fused_attention"), variant.compiled)
        if key not in self.networks:
            self.networks[key] = self._network(parser, variant.compiled)
        kind = ReferencePath if variant.is_reference else BundlePath
        return kind(variant, parser, self.networks[key])

    def _network(self, parser: ConfigParser, compiled: bool) -> nn.Module:
        torch.manual_seed(0)
        network: nn.Module = parser.get_parsed_content("network").eval()
        if self.state is None:
            self.state = dict(network.state_dict())
            if self.weights is None:
                for value in self.state.values():
                    if value.is_floating_point() and value.ndim > 1 and not value.any():
                        value.normal_(0, DEVIATION)
        network.load_state_dict(self.state, assign=True)
        return torch.compile(network) if compiled else network

    def variants(self, compiled: bool = False) -> list[Variant]:
        """The reference, what makes a path faster one after the other, and the bundle as it is configured."""
        has = self.parser.get()
        inferer: TiledInferer = self.parser.get_parsed_content("inferer")
        batch = inferer.sw_batch_size if inferer.sw_batch_size > 1 else BATCH
        plain = {"fused_attention": False} if "fused_attention" in has else {}
        fused = {"fused_attention": True} if "fused_attention" in has else {}
        full, mixed = {"amp": False}, {"amp": True, "amp_dtype": "auto"}
        dtype = autocast_dtype(self.device, "auto")
        name = str(dtype).removeprefix("torch.")
        ours = windows_of(inferer, OVERLAP) | {"inferer#sw_batch_size": 1} | fused
        rows = [
            Variant("reference path", plain | full, is_reference=True),
            Variant("our path, fused attention" if fused else "our path", ours | full),
        ]
        ours |= {"inferer#sw_batch_size": batch}
        rows.append(Variant(f"+ {batch} windows a call", ours | full))
        if dtype is not None:
            rows.insert(1, Variant(f"reference path, {name}", plain | mixed, is_reference=True))
            rows.append(Variant(f"+ {name}", ours | mixed))
        best = ours | (full if dtype is None else mixed)
        rows += [Variant(f"+ overlap {overlap:g}", best | {"inferer#overlap": overlap}) for overlap in OVERLAPS[1:]]
        if compiled:
            rows.append(Variant(f"+ overlap {OVERLAPS[-1]:g}, torch.compile", rows[-1].options, compiled=True))
        own = {key: has[key] for key in fused}
        return [*rows, Variant("the bundle's defaults", own)]


def windows_of(inferer: TiledInferer, overlap: float) -> dict[str, Any]:
    """Options that make an inferer see windows of 256 x 256 pixels of the image."""
    side = round(WINDOW * inferer.scale)
    return {"inferer#roi_size": [side, side], "inferer#overlap": overlap, "inferer#fixed": True}
