"""Microscopy-like images with exact labels, drawn from a seed, for demos and tests."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from ..errors import ConfigError
from ..io import atomic_path, write_labels
from .layout import LabelArray, draw_labels
from .render import KINDS, render_image

MIN_DIAMETER = 4.0  # pixels
N_FOLDS = 4


def generate(
    kind: str,
    size: tuple[int, int] = (256, 256),
    n_cells: int = 40,
    *,
    diameter: float = 24,
    touching: float = 0.3,
    seed: int = 0,
) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], LabelArray]:
    """Draw one image and its exact labels.

    Args:
        kind: ``fluorescence`` (nuclear stain), ``phase`` (phase contrast with halo) or ``he`` (H&E histology).
        size: (H, W) in pixels.
        n_cells: at most so many cells; fewer when the field is full.
        diameter: mean diameter of a disc of the same area, in pixels.
        touching: share of the cells that share a boundary with a neighbour, 0..1; the others keep a gap.
        seed: 0 or more; the same arguments give the same arrays.

    Returns:
        The image, (H, W) uint16 for fluorescence, (H, W) uint8 for phase, (H, W, 3) uint8 RGB for H&E; and the labels,
        (H, W) int32, 0 background, ids 1..N, each one 4-connected component.

    Raises:
        ConfigError: if an argument is outside its range.
    """
    _check(kind, size, n_cells, diameter, touching)
    rng = np.random.default_rng(seed)
    labels = draw_labels(rng, KINDS[kind].shape, size, n_cells=n_cells, diameter=diameter, touching=touching)
    return render_image(rng, KINDS[kind], labels, diameter), labels


def write_dataset(
    folder: str | Path,
    n_training: int = 8,
    n_testing: int = 4,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    size: tuple[int, int] = (256, 256),
    seed: int = 0,
) -> Path:
    """Write a small data set: ``images/`` (PNG, 16-bit as TIFF), ``labels/`` (TIFF) and ``datalist.json``.

    The kinds take turns; density, cell size and clumping vary from image to image. Every image is a ``group`` of its
    own, and the training images go to folds 0..3 in turn.

    Returns:
        The path of the datalist; the paths in it are relative to ``folder``.

    Raises:
        ConfigError: if a kind is not known or the size is not positive.
    """
    if not kinds:
        raise ConfigError(f"kinds is empty; give some of {', '.join(KINDS)}")
    folder = Path(folder)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    entries = []
    for i in range(n_training + n_testing):
        kind, diameter = kinds[i % len(kinds)], rng.uniform(18, 30)
        n_cells = round(rng.uniform(0.15, 0.4) * _room(size, diameter))
        touching, image_seed = rng.uniform(0.2, 0.6), int(rng.integers(2**32))
        pair = generate(kind, size, n_cells, diameter=diameter, touching=touching, seed=image_seed)
        entries.append(_write_pair(folder, f"{i:03d}_{kind}", *pair))
    training = [entry | {"fold": i % N_FOLDS} for i, entry in enumerate(entries[:n_training])]
    datalist = folder / "datalist.json"
    with atomic_path(datalist) as temporary:
        temporary.write_text(json.dumps({"training": training, "testing": entries[n_training:]}, indent=1) + "\n")
    return datalist


def _write_pair(folder: Path, stem: str, image: NDArray, labels: LabelArray) -> dict[str, str | int]:
    """Write an image and its labels; returns their datalist entry."""
    image_name, label_name = f"images/{stem}.{'png' if image.dtype == np.uint8 else 'tif'}", f"labels/{stem}.tif"
    with atomic_path(folder / image_name) as temporary:
        if image.dtype == np.uint8:
            Image.fromarray(image).save(temporary)
        else:
            tifffile.imwrite(temporary, image, compression="zlib")
    write_labels(folder / label_name, labels)
    return {"image": image_name, "label": label_name, "group": stem}


def _room(size: tuple[int, int], diameter: float) -> float:
    """How many cells would cover the whole image."""
    return math.prod(size) / (math.pi / 4 * diameter**2)


def _check(kind: str, size: tuple[int, int], n_cells: int, diameter: float, touching: float) -> None:
    if kind not in KINDS:
        raise ConfigError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"size is {size}; give (height, width) in pixels, both at least 1")
    if not diameter >= MIN_DIAMETER:
        raise ConfigError(f"diameter is {diameter}; give at least {MIN_DIAMETER} pixels")
    if not 0 <= touching <= 1:
        raise ConfigError(f"touching is {touching}; give a share between 0 and 1")
    most = math.ceil(_room(size, diameter))
    if not 0 <= n_cells <= most:
        raise ConfigError(f"n_cells is {n_cells}; {size} pixels hold 0 to {most} cells of diameter {diameter}")
