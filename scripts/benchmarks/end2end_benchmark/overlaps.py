"""How many windows an overlap costs, and what it does to the instances."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from cellbundle.inference.tiling import TiledInferer, plan_tiles
from cellbundle.metrics import image_scores

from .inputs import Picture, write_picture
from .paths import OVERLAP, OVERLAPS, WINDOW, Bundle, Variant, windows_of


class OverlapRow(NamedTuple):
    """What was seen of one overlap.

    Attributes:
        overlap: share of a window.
        n_windows: of each size.
        f1: at IoU 0.5 against the instances at overlap 0.625, mean over the images.
        lowest: of these.
        ap: AP at IoU 0.5 against the labels, mean over the images.
    """

    overlap: float
    n_windows: tuple[int, ...]
    f1: float
    lowest: float
    ap: float


def compare_overlaps(
    bundle: Bundle, pictures: Sequence[Picture], sizes: Sequence[tuple[int, int]], folder: Path
) -> list[OverlapRow]:
    """Segment pictures in windows of 256 x 256 pixels at every overlap.

    Args:
        bundle: with weights; without them, the scores are NaN.
        pictures: to segment.
        sizes: (H, W) of the images whose windows are counted.
        folder: for the image file.
    """
    inferer: TiledInferer = bundle.parser.get_parsed_content("inferer")
    names = bundle.parser.get()
    fused = {"fused_attention": True} if "fused_attention" in names else {}
    paths = [bundle.path(Variant(f"{overlap:g}", windows_of(inferer, overlap) | fused)) for overlap in OVERLAPS]
    agreement: dict[float, list[float]] = {overlap: [] for overlap in OVERLAPS}
    precision: dict[float, list[float]] = {overlap: [] for overlap in OVERLAPS}
    for picture in tqdm(pictures if bundle.weights else [], "overlaps"):
        write_picture(picture, folder / "overlap.png")
        item = paths[0].transform(paths[0].read(folder / "overlap.png"))
        found: dict[float, np.ndarray] = {}
        for overlap, path in zip(OVERLAPS, paths, strict=True):
            prediction = path.infer(item["input"], path.network)
            found[overlap] = np.asarray(path.decode(item | {"pred": prediction})["pred"][0])
            agreement[overlap].append(image_scores(found[OVERLAP], found[overlap], (0.5,))["f150"])
            precision[overlap].append(image_scores(picture.labels, found[overlap], (0.5,))["ap50"])
    return [
        OverlapRow(
            overlap,
            tuple(plan_tiles(size, (WINDOW, WINDOW), overlap, 1, fixed=True).n_tiles for size in sizes),
            fmean(agreement[overlap] or [np.nan]),
            min(agreement[overlap], default=np.nan),
            fmean(precision[overlap] or [np.nan]),
        )
        for overlap in OVERLAPS
    ]
