"""Mosaics of label maps, and what is made of them for each kernel."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from cellbundle import synthetic
from cellbundle.decode.flows import FLOW_SCALE
from cellbundle.instances.labels import renumber
from cellbundle.io import read_labels
from cellbundle.kernels.geometry import boxes_and_areas
from cellbundle.targets.flows import labels_to_flows
from cellbundle.targets.hover import labels_to_hover

TILE = 256  # pixels
CROWD_SIZE = (520, 704)  # of an image of LIVECell
GROWTH = 4  # pixels


class Masks(NamedTuple):
    """N overlapping masks: (h, w) bool crops, (N, 4) boxes, (N,) scores, and as (N, H, W) bool."""

    crops: list[np.ndarray]
    boxes: np.ndarray
    scores: np.ndarray
    stack: np.ndarray


def label_maps(folder: Path | None) -> Iterator[np.ndarray]:
    """All label maps of a folder, or synthetic ones."""
    if folder is None:
        for seed in range(32):
            yield synthetic.generate("fluorescence", (2 * TILE, 2 * TILE), 80, diameter=30, seed=seed)[1]
    else:
        yield from (renumber(read_labels(path))[0] for path in sorted(folder.iterdir()))


def cut_tiles(maps: Iterator[np.ndarray]) -> list[np.ndarray]:
    """All whole 256x256 tiles of label maps, (256, 256) int32."""
    return [
        renumber(labels[y : y + TILE, x : x + TILE])[0]
        for labels in maps
        for y in range(0, labels.shape[0] - TILE + 1, TILE)
        for x in range(0, labels.shape[1] - TILE + 1, TILE)
    ]


def mosaic(tiles: list[np.ndarray], size: int) -> np.ndarray:
    """(size, size) int32 label map, ids 1..N, of tiles in an order that the seed 0 draws."""
    across = -(-size // TILE)
    repeats = -(-(across**2) // len(tiles))
    order = np.random.default_rng(0).permutation(np.tile(np.arange(len(tiles)), repeats))
    labels = np.zeros((across * TILE, across * TILE), np.int32)
    highest = 0
    for place, number in enumerate(order[: across**2]):
        y, x = TILE * (place // across), TILE * (place % across)
        tile = tiles[number]
        labels[y : y + TILE, x : x + TILE] = np.where(tile > 0, tile + highest, 0)
        highest += int(tile.max(initial=0))
    return renumber(labels[:size, :size])[0]


def repeat(labels: np.ndarray, times: int) -> np.ndarray:
    """A label map (H, W) int32, ids 1..N, times x times beside itself, every instance with an id of its own."""
    n = int(labels.max(initial=0))
    shifts = n * np.arange(times**2, dtype=np.int32).reshape(times, 1, times, 1)
    copies = np.broadcast_to(labels[None, :, None, :], (times, len(labels), times, len(labels)))
    return np.where(copies > 0, copies + shifts, 0).reshape(times * len(labels), -1)


def same(labels: np.ndarray) -> np.ndarray:
    """The label map itself."""
    return labels


def with_flaws(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A label map and a prediction of it: some instances missed, some merged, outlines off by a pixel, false ones."""
    rng = np.random.default_rng(labels.size)
    n = int(labels.max(initial=0))
    names = np.arange(n + 1)
    names[1:][rng.random(n) < 0.05] = 0
    merged = np.flatnonzero(rng.random(n) < 0.03) + 1
    names[merged] = names[np.maximum(merged - 1, 1)]
    eroded = ndimage.minimum_filter(labels, 3) == ndimage.maximum_filter(labels, 3)
    thinner = rng.random(n + 1) < 0.5
    predicted = np.where(thinner[labels] & ~eroded, 0, names[labels])
    specks = (rng.random(labels.shape) < 1e-4) & (predicted == 0)
    predicted[specks] = n + 1 + np.arange(np.count_nonzero(specks))
    return labels, renumber(predicted)[0]


def noisy_flows(labels: np.ndarray) -> np.ndarray:
    """What a good network would answer: (3, H, W) float32 cell logit and flows times 5, with noise."""
    rng = np.random.default_rng(labels.size)
    flows = FLOW_SCALE * labels_to_flows(labels, across_borders=True) + rng.normal(0, 1, (2, *labels.shape))
    logit = np.where(labels > 0, 4.0, -4.0) + rng.normal(0, 1.5, labels.shape)
    return np.concatenate([logit[None], flows]).astype(np.float32)


def noisy_hover(labels: np.ndarray) -> np.ndarray:
    """What a good network would answer: (3, H, W) float32 nucleus logit, horizontal and vertical map, with noise."""
    rng = np.random.default_rng(labels.size)
    maps = labels_to_hover(labels) + rng.normal(0, 0.03, (2, *labels.shape))
    logit = np.where(labels > 0, 4.0, -4.0) + rng.normal(0, 0.5, labels.shape)
    return np.concatenate([logit[None], maps]).astype(np.float32)


def with_image(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A label map and a (1, H, W) image in double precision, in which scikit-image sums."""
    return labels, np.random.default_rng(labels.size).normal(100, 30, (1, *labels.shape))


def crowd(n: int) -> Callable[[np.ndarray], Masks]:
    """Makes n overlapping masks of the instances of a label map: grown by ``GROWTH`` pixels, put anywhere."""

    def draw(labels: np.ndarray) -> Masks:
        """The masks, as ``crowd`` says."""
        rng = np.random.default_rng(n)
        height, width = CROWD_SIZE
        boxes, _ = boxes_and_areas(labels, int(labels.max(initial=0)))
        fitting = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] + 2 * GROWTH < CROWD_SIZE).all(1))
        masks, places = [], []
        for i in rng.choice(fitting, n):
            y0, x0, y1, x1 = boxes[i]
            crop = ndimage.binary_dilation(np.pad(labels[y0:y1, x0:x1] == i + 1, GROWTH), iterations=GROWTH)
            y, x = rng.integers(0, height - crop.shape[0]), rng.integers(0, width - crop.shape[1])
            masks.append(crop)
            places.append((y, x, y + crop.shape[0], x + crop.shape[1]))
        stack = np.zeros((n, height, width), bool)
        for mask, full, (y0, x0, y1, x1) in zip(masks, stack, places, strict=True):
            full[y0:y1, x0:x1] = mask
        return Masks(masks, np.array(places), rng.random(n), stack)

    return draw
