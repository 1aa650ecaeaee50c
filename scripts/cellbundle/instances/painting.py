"""Instances in the encodings of data sets, painted into one label map.

Where instances overlap, the smaller one is on top, so that a small nucleus does not disappear under a large cell. The
id of an instance is its position + 1, whatever is on top. Beside the label map there are only runs of pixels, and one
mask at a time: 3,000 cells take a few megabytes.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from ..errors import ArrayError
from ..kernels.fill import cross_edges
from .overlaps import masks_to_labels, runs_to_labels
from .rle import Form, is_by_columns, rles_to_runs

Ring = NDArray[np.floating] | NDArray[np.integer]
Item = TypeVar("Item")
TOLERANCE = 1.0  # pixels; outlines leave the image a little by rounding
SMALLEST_IMAGE = 8  # pixels; in a smaller one, outlines may all lie in the first pixel


@dataclass(frozen=True, eq=False)
class Painted:
    """A label map, and what is not in it. Instances are named by their positions.

    Attributes:
        labels: (H, W) int32; instance i has the id i + 1, 0 is background.
        n: number of instances.
        empty: instances that have no pixel: empty masks, and outlines smaller than one.
        copies: instances with the pixels of others, which are in the label map, or are lost as well.
        covered: instances wholly under smaller ones.
        outside: instances whose outlines lie outside of the image.
        cut: instances whose outlines leave the image by more than a pixel; the part inside is in the label map.
        extent: smallest and largest coordinates (x0, y0, x1, y1) of all outlines; None without outlines.
    """

    labels: NDArray[np.int32]
    n: int
    empty: list[int]
    copies: list[int]
    covered: list[int]
    outside: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    extent: tuple[float, float, float, float] | None = None

    @property
    def lost(self) -> list[int]:
        """Instances without a visible pixel."""
        return sorted([*self.empty, *self.copies, *self.covered, *self.outside])

    def remarks(self, noun: str = "instances") -> list[str]:
        """Sentences about instances that are not in the label map as they were given."""
        sentences = {
            f"outlines lie outside the image ({self._where()})": self.outside,
            f"outlines leave the image ({self._where()}) and are cut off at its edge": self.cut,
            f"{noun} are copies of others": self.copies,
            f"{noun} have no pixel of their own: smaller ones cover them": self.covered,
            f"{noun} have no pixel: they are empty, or smaller than one": self.empty,
        }
        return [f"{len(some)} of {self.n} {sentence}" for sentence, some in sentences.items() if some]

    def framed(self, extents: ArrayLike) -> "Painted":
        """The same, with what the outlines tell about the frame of the image.

        Args:
            extents: (N, 4) smallest and largest coordinates (x0, y0, x1, y1) of each instance, the outer corner of the
                first pixel being (0, 0); NaN where it has no outline.
        """
        boxes_xyxy = np.asarray(extents, np.float64).reshape(-1, 4)
        drawn = ~np.isnan(boxes_xyxy).any(axis=1)
        if not drawn.any():
            return self
        size = np.array(self.labels.shape[::-1])
        away = drawn & ((boxes_xyxy[:, 2:] <= 0) | (boxes_xyxy[:, :2] >= size)).any(axis=1)
        leaves = drawn & ((boxes_xyxy[:, :2] < -TOLERANCE) | (boxes_xyxy[:, 2:] > size + TOLERANCE)).any(axis=1)
        outside = sorted(set(np.flatnonzero(away).tolist()) & set(self.lost))
        (x0, y0), (x1, y1) = boxes_xyxy[drawn, :2].min(axis=0).tolist(), boxes_xyxy[drawn, 2:].max(axis=0).tolist()
        return replace(
            self,
            empty=[i for i in self.empty if i not in outside],
            copies=[i for i in self.copies if i not in outside],
            covered=[i for i in self.covered if i not in outside],
            outside=outside,
            cut=sorted(set(np.flatnonzero(leaves).tolist()) - set(outside)),
            extent=(x0, y0, x1, y1),
        )

    def check_frame(self) -> None:
        """Raise ``ArrayError`` if the outlines are those of another frame: all outside of the image, or all in a pixel.

        Fractions of the sides, which some formats have, all lie in the first pixel.
        """
        height, width = self.labels.shape
        if self.extent is None:
            return
        if len(self.outside) == self.n:
            raise ArrayError(
                f"{self.n} of {self.n} outlines lie outside the image ({self._where()}); are these coordinates of a "
                "slide, or of another image?"
            )
        x0, y0, x1, y1 = self.extent
        in_first_pixel = min(x0, y0) >= 0 and max(x1, y1) <= 1
        if in_first_pixel and max(height, width) >= SMALLEST_IMAGE and self.extent != (0, 0, 1, 1):
            raise ArrayError(
                f"all outlines lie in the first pixel ({self._where()}), as if their coordinates were fractions of the "
                f"image; multiply x by {width} and y by {height}"
            )

    def _where(self) -> str:
        """Extent of the outlines, and size of the image."""
        height, width = self.labels.shape
        x0, y0, x1, y1 = (f"{value:.6g}" for value in self.extent or (0, 0, 0, 0))
        return f"x {x0} to {x1}, y {y0} to {y1}; the image is {width} x {height}"


def paint_masks(masks: Iterable[ArrayLike], shape: tuple[int, int], boxes_yxyx: ArrayLike | None = None) -> Painted:
    """Paint masks; arguments and errors as for ``cellbundle.instances.overlaps.masks_to_labels``."""
    listed = _Listed(map(np.asarray, masks), _of_mask)
    labels, kept = masks_to_labels(listed, None, shape, boxes_yxyx)
    places = itertools.repeat(()) if boxes_yxyx is None else map(tuple, np.asarray(boxes_yxyx).tolist())
    contents = [one if one is None else (one, place) for one, place in zip(listed.contents, places, strict=False)]
    return _by_position(labels, kept, contents)


def paint_rles(rles: Iterable[Any], shape: tuple[int, int], form: Form) -> Painted:
    """Paint RLE; arguments and errors as for ``cellbundle.instances.overlaps.rles_to_labels``."""
    return paint_runs(rles_to_runs(rles, form, *shape), shape, by_columns=is_by_columns(form))


def paint_runs(runs: Iterable[NDArray[np.int64]], shape: tuple[int, int], *, by_columns: bool = False) -> Painted:
    """Paint runs of pixels; arguments and errors as for ``cellbundle.instances.overlaps.runs_to_labels``."""
    listed = _Listed(runs, _of_runs)
    return _by_position(*runs_to_labels(listed, None, shape, by_columns=by_columns), listed.contents)


def paint_rings(instances: Sequence[Sequence[Ring]], shape: tuple[int, int]) -> Painted:
    """Paint polygons that run along the edges of pixels, as QuPath and ImageJ have them.

    A pixel belongs to an instance if its centre lies in an odd number of its rings: holes and several parts need no
    marking. A centre on an edge is in if the instance is on its right, or below a horizontal edge, so that instances
    with a common edge share no pixel, and one of 10 x 10 has 100 wherever it lies.

    Args:
        instances: for each, rings of (n, 2) corners (x, y); the outer corner of the first pixel is (0, 0).
        shape: (H, W) of the image; what lies outside of it is cut off.

    Raises:
        ArrayError: if a ring is not an (n, 2) array of finite numbers.
    """
    checked = [[_checked(ring) for ring in instance] for instance in instances]
    rings = [[ring - 0.5 for ring in instance] for instance in checked]  # pixel centres at whole numbers
    boxes_yxyx = np.array([_box_yxyx(instance, shape) for instance in rings], np.int64).reshape(-1, 4)
    painted = paint_masks((_fill(*pair) for pair in zip(rings, boxes_yxyx, strict=True)), shape, boxes_yxyx)
    return painted.framed([extent(instance) for instance in checked])


def paint_contours(contours: Sequence[Ring], shape: tuple[int, int]) -> Painted:
    """Paint polygons that run through the centres of the outermost pixels, as OpenCV's ``findContours`` gives them.

    The pixels on the polygon belong to the instance, as with OpenCV's ``fillPoly``.

    Args:
        contours: for each instance, (n, 2) corners (x, y); the centre of the first pixel is (0, 0).
        shape: (H, W) of the image; what lies outside of it is cut off.

    Raises:
        ArrayError: if a contour is not an (n, 2) array of finite numbers.
    """
    checked = [_checked(contour) for contour in contours]
    corners = [np.rint(contour) for contour in checked]
    boxes_yxyx = np.array([_box_yxyx([contour], shape) for contour in corners], np.int64).reshape(-1, 4)
    painted = paint_masks((_draw(*pair) for pair in zip(corners, boxes_yxyx, strict=True)), shape, boxes_yxyx)
    return painted.framed([extent([contour]) for contour in checked])


def extent(rings: Sequence[Ring]) -> tuple[float, float, float, float]:
    """Smallest and largest coordinates (x0, y0, x1, y1) of (n, 2) rings; NaN without corners."""
    corners = np.concatenate([np.empty((0, 2)), *rings])
    if not len(corners):
        return (np.nan, np.nan, np.nan, np.nan)
    (x0, y0), (x1, y1) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return x0, y0, x1, y1


class _Listed(Generic[Item]):
    """An iterable that remembers of each item that it has given a hash of its content, None of one without pixels."""

    def __init__(self, items: Iterable[Item], content: Callable[[Item], int | None]) -> None:
        self.items, self.content = items, content
        self.contents: list[int | None] = []

    def __iter__(self) -> Iterator[Item]:
        for item in self.items:
            self.contents.append(self.content(item))
            yield item


def _of_mask(mask: NDArray) -> int | None:
    return hash(mask.tobytes()) if mask.any() else None


def _of_runs(runs: NDArray[np.int64]) -> int | None:
    return hash(runs.tobytes()) if len(runs) else None


def _by_position(labels: NDArray[np.int32], kept: NDArray[np.int64], contents: Sequence[Hashable | None]) -> Painted:
    """Ids from 1 by position instead of from the best mask down, and why the others have no pixel."""
    names = np.append(0, kept + 1).astype(np.int32)
    counts = Counter(contents)
    lost = sorted(set(range(len(contents))) - set(kept.tolist()))
    empty = [i for i in lost if contents[i] is None]
    copies = [i for i in lost if contents[i] is not None and counts[contents[i]] > 1]
    covered = [i for i in lost if counts[contents[i]] == 1 and contents[i] is not None]
    return Painted(names[labels], len(contents), empty, copies, covered)


def _checked(ring: ArrayLike) -> NDArray[np.float64]:
    """A ring as (n, 2) float64."""
    corners = np.asarray(ring, np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.isfinite(corners).all():
        raise ArrayError(f"a polygon must be (n, 2) finite numbers x and y, got shape {corners.shape}")
    return corners


def _box_yxyx(rings: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> list[int]:
    """Half-open (y0, x0, y1, x1) of the pixels in the image that rings may hold."""
    corners = np.concatenate([np.empty((0, 2)), *rings])
    if not len(corners):
        return [0, 0, 0, 0]
    limits = (shape[1], shape[0])
    (x0, y0), (x1, y1) = (np.clip(c, 0, limits) for c in (np.floor(corners.min(0)), np.ceil(corners.max(0)) + 1))
    return [int(y0), int(x0), int(y1), int(x1)]


def _fill(rings: Sequence[NDArray[np.float64]], box: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The part in the box of the pixels whose centres lie in an odd number of rings."""
    y0, x0, y1, x1 = box.tolist()
    crossed = np.zeros((y1 - y0, x1 - x0), np.bool_)
    for ring in rings if crossed.size else ():
        cross_edges(ring - (x0, y0), crossed)
    inside: NDArray[np.bool_] = np.logical_xor.accumulate(crossed, axis=1)
    return inside


def _draw(contour: NDArray[np.float64], box: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The part in the box of the pixels in and on a contour."""
    y0, x0, y1, x1 = box.tolist()
    picture = Image.new("L", (x1 - x0, y1 - y0))
    corners = (contour - (x0, y0)).ravel().tolist()
    pen = ImageDraw.Draw(picture)
    pen.point(corners, fill=1)  # of a contour of one corner, polygon draws nothing
    if len(contour) > 1:
        pen.polygon(corners, fill=1, outline=1)
    return np.asarray(picture)
