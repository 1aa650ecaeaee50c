"""Label maps of irregular cells, drawn one by one, each inside its own small window."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..instances.labels import label_components

LabelArray = NDArray[np.int32]

N_ANGLES = 128  # directions in which an outline is stored
ANGLES = np.linspace(0, 2 * np.pi, N_ANGLES, endpoint=False)
WAVES = np.arange(2, 7)  # Fourier orders that deform an ellipse; order 1 would only move it
SIZE_SPREAD = (0.75, 1.25)  # diameters, relative to the wanted one
GAP = 3.0  # pixels of background around a cell that touches nothing
CLOSENESS = 0.9  # distance of touching cells, relative to the sum of their radii
CLUMP_SIZE = 3  # cells that hang together
MIN_VISIBLE = 0.5  # share of a cell that its neighbours and the image border have to leave
MAX_TRIES = 100  # positions tried for one cell


@dataclass(frozen=True)
class Shape:
    """Outlines of one kind of cell.

    Args:
        aspect: smallest ratio of short to long axis, 0..1.
        waviness: amplitude of the Fourier waves, relative to the radius.
    """

    aspect: float
    waviness: float


@dataclass(frozen=True)
class _Cell:
    """Centre (y, x) and outline, (N_ANGLES,) distances from the centre, all in pixels."""

    centre: tuple[float, float]
    outline: NDArray[np.float64]

    @property
    def area(self) -> float:
        return math.pi * float(np.mean(self.outline**2))


def draw_labels(
    rng: np.random.Generator, shape: Shape, size: tuple[int, int], *, n_cells: int, diameter: float, touching: float
) -> LabelArray:
    """Draw cells with a gap around them first, then cells put against some of these.

    Args:
        rng: source of all random numbers.
        shape: what the outlines look like.
        size: (H, W) in pixels.
        n_cells: at most so many cells; fewer when no room is found.
        diameter: mean diameter of a disc of the same area, in pixels.
        touching: share of the cells that touch a neighbour, 0..1; about that when the field is crowded.

    Returns:
        (H, W) int32, 0 background, ids 1..N, each one 4-connected component.
    """
    n_touching = round(touching * n_cells)
    n_attached = n_touching - math.ceil(n_touching / CLUMP_SIZE)
    drawn = _Field(rng, shape, diameter, np.zeros(size, dtype=np.int32))
    for _ in range(n_cells - n_attached):
        if not drawn.add():
            break
    clump = drawn.cells[: n_touching - n_attached]
    for i in range(n_attached if clump else 0):
        if drawn.add(anchor=clump[i % len(clump)]):
            clump.append(drawn.cells[-1])
    return drawn.labels


@dataclass
class _Field:
    """A label map that cells are added to."""

    rng: np.random.Generator
    shape: Shape
    diameter: float
    labels: LabelArray
    cells: list[_Cell] = field(default_factory=list)

    def add(self, anchor: _Cell | None = None) -> bool:
        """Draw a cell, against ``anchor`` if one is given, else free; False when no room is found."""
        for _ in range(MAX_TRIES):
            outline = _outline(self.rng, self.shape, self.diameter)
            cell = _Cell(self._anywhere() if anchor is None else self._beside(anchor, outline), outline)
            if _stamp(self.labels, cell, len(self.cells) + 1, attached=anchor is not None):
                self.cells.append(cell)
                return True
        return False

    def _anywhere(self) -> tuple[float, float]:
        height, width = self.labels.shape
        return self.rng.uniform(0, height), self.rng.uniform(0, width)

    def _beside(self, anchor: _Cell, outline: NDArray[np.float64]) -> tuple[float, float]:
        """Centre from which ``outline`` slightly overlaps ``anchor``, in a random direction."""
        step = int(self.rng.integers(N_ANGLES))
        reach = CLOSENESS * (anchor.outline[step] + outline[step - N_ANGLES // 2])
        return anchor.centre[0] + reach * np.sin(ANGLES[step]), anchor.centre[1] + reach * np.cos(ANGLES[step])


def _outline(rng: np.random.Generator, shape: Shape, diameter: float) -> NDArray[np.float64]:
    """Random ellipse with Fourier waves: (N_ANGLES,) distances from the centre, in pixels."""
    turned = ANGLES - rng.uniform(0, np.pi)
    ellipse = 1 / np.hypot(np.cos(turned), np.sin(turned) / rng.uniform(shape.aspect, 1))
    heights = rng.normal(0, 2 * shape.waviness / WAVES)
    waves = heights @ np.cos(np.outer(WAVES, ANGLES) + rng.uniform(0, 2 * np.pi, (len(WAVES), 1)))
    outline: NDArray[np.float64] = ellipse * np.clip(1 + waves, 0.4, 1.6)
    outline *= diameter / 2 * rng.uniform(*SIZE_SPREAD) / np.sqrt(np.mean(outline**2))
    return outline


def _stamp(labels: LabelArray, cell: _Cell, new_id: int, *, attached: bool) -> bool:
    """Draw ``cell`` on free background; False, with nothing drawn, when it does not fit."""
    reach = cell.outline.max() + GAP + 1
    window = tuple(
        slice(max(0, int(c - reach)), max(0, min(n, int(c + reach) + 1)))
        for c, n in zip(cell.centre, labels.shape, strict=True)
    )
    view = labels[window]
    y, x = np.ogrid[window]
    y, x = y + 0.5 - cell.centre[0], x + 0.5 - cell.centre[1]
    direction = np.rint(np.arctan2(y, x) * (N_ANGLES / (2 * np.pi))).astype(int) % N_ANGLES
    beyond = np.hypot(y, x) - cell.outline[direction]
    if not attached and view[beyond <= GAP].any():
        return False
    parts, n_parts = label_components((beyond <= 0) & (view == 0), connectivity=4)
    if n_parts == 0:
        return False
    mask = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    if mask.sum() < MIN_VISIBLE * cell.area or (attached and not view[ndimage.binary_dilation(mask)].any()):
        return False
    view[mask] = new_id
    return True
