"""Images of any size with their labels: mosaics of real ones, or synthetic ones."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellbundle import synthetic
from cellbundle.errors import ConfigError
from cellbundle.instances.labels import renumber
from cellbundle.io import IMAGE_SUFFIXES, read_image, read_labels
from cellbundle.transforms import normalise_intensity, to_channels

TILE = 256  # pixels of a piece of a mosaic
MAX_TILES = 300  # enough variety for mosaics; reading more takes long
DENSITY = 400 / 1024**2  # cells a pixel that a mosaic should have
DRAWS = 32  # mosaics of which the one nearest to that density is taken
DIAMETER = 28  # of synthetic cells, pixels


class Picture(NamedTuple):
    """An image, (H, W, 3) uint8, and its labels, (H, W) int32, ids 1..N."""

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]


def real_pictures(images: Path, labels: Path, smallest: int = TILE) -> Iterator[Picture]:
    """Fluorescence images, each stretched to 0..255, that have a label map of the same stem.

    Args:
        images: folder of images.
        labels: folder of label maps.
        smallest: of the shorter side, pixels.

    Yields:
        Those whose channels are equal and whose cells are brighter than the rest, in the order of their names.

    Raises:
        ConfigError: if no label map has an image.
    """
    files = {path.stem: path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    pairs = [(files[path.stem], path) for path in sorted(labels.iterdir()) if path.stem in files]
    if not pairs:
        raise ConfigError(f"no file of {images} has the stem of one of {labels}; give the folders of one data set")
    for image_path, label_path in pairs:
        instances = renumber(read_labels(label_path))[0]
        if min(instances.shape) < smallest or not instances.any():
            continue
        image = to_channels(read_image(image_path).data)
        cells = instances > 0
        if np.ptp(image, axis=0).any() or image[0][cells].mean() <= image[0][~cells].mean():
            continue
        yield Picture(_bytes(image), instances)


def synthetic_picture(size: tuple[int, int], seed: int) -> Picture:
    """A drawn fluorescence image (H, W) with ``DENSITY`` cells a pixel."""
    n_cells = round(DENSITY * size[0] * size[1])
    image, labels = synthetic.generate("fluorescence", size, n_cells, diameter=DIAMETER, seed=seed)
    return Picture(_bytes(to_channels(image[None].astype(np.float32))), labels)


def cut_tiles(pictures: Iterator[Picture]) -> list[Picture]:
    """The first ``MAX_TILES`` whole tiles of ``TILE`` x ``TILE`` pixels that have a cell."""
    tiles = (
        Picture(image[y : y + TILE, x : x + TILE], renumber(labels[y : y + TILE, x : x + TILE])[0])
        for image, labels in pictures
        for y in range(0, labels.shape[0] - TILE + 1, TILE)
        for x in range(0, labels.shape[1] - TILE + 1, TILE)
    )
    return list(islice((tile for tile in tiles if tile.labels.any()), MAX_TILES))


def mosaic(tiles: Sequence[Picture], size: tuple[int, int]) -> Picture:
    """A picture of ``size`` (H, W) pixels of tiles; of ``DRAWS`` draws the one nearest to ``DENSITY``."""
    wanted = DENSITY * size[0] * size[1]
    drawn = (_draw(tiles, size, seed) for seed in range(DRAWS))
    return min(drawn, key=lambda picture: abs(int(picture.labels.max()) - wanted))


def write_picture(picture: Picture, path: Path) -> None:
    """Write the image as PNG."""
    Image.fromarray(picture.image).save(path)


def _draw(tiles: Sequence[Picture], size: tuple[int, int], seed: int) -> Picture:
    """A mosaic of tiles that the seed draws."""
    rows, columns = (-(-side // TILE) for side in size)
    order = np.random.default_rng(seed).choice(len(tiles), (rows, columns), replace=rows * columns > len(tiles))
    image = np.block([[[tiles[k].image] for k in row] for row in order])
    highest, lines = 0, []
    for row in order:
        line = []
        for k in row:
            line.append(np.where(tiles[k].labels > 0, tiles[k].labels + highest, 0))
            highest += int(tiles[k].labels.max())
        lines.append(line)
    labels = np.block(lines)[: size[0], : size[1]]
    return Picture(np.ascontiguousarray(image[: size[0], : size[1]]), renumber(labels)[0])


def _bytes(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(3, H, W) of any range to (H, W, 3) uint8."""
    return np.ascontiguousarray(np.rint(255 * normalise_intensity(image)).astype(np.uint8).transpose(1, 2, 0))
