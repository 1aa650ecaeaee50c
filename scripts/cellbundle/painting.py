"""Instances in the encodings of data sets, painted into one label map.

Where instances overlap, the smaller one is on top, so that a small nucleus does not disappear under a large cell. The
id of an instance is its position + 1, whatever is on top. Beside the label map there are only runs of pixels, and one
mask at a time: 3,000 cells take a few megabytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from .errors import ArrayError
from .kernels.fill import cross_edges
from .masks import Form, masks_to_labels, rles_to_labels, runs_to_labels

Ring = NDArray[np.floating] | NDArray[np.integer]
EIGHT_NEIGHBOURS = np.ones((3, 3))


class Painted(NamedTuple):
    """A label map, and what is not in it.

    Attributes:
        labels: (H, W) int32; instance i has the id i + 1, 0 is background.
        lost: positions of the instances without a visible pixel: empty ones, and those wholly under smaller ones,
            such as one of two copies.
    """

    labels: NDArray[np.int32]
    lost: list[int]


def paint_masks(masks: Iterable[ArrayLike], shape: tuple[int, int], boxes: ArrayLike | None = None) -> Painted:
    """Paint masks; arguments and errors as for ``cellbundle.masks.masks_to_labels``."""
    counted = _Counted(masks)
    return _by_position(*masks_to_labels(counted, None, shape, boxes), counted.n)


def paint_rles(rles: Iterable[Any], shape: tuple[int, int], form: Form) -> Painted:
    """Paint run lengths; arguments and errors as for ``cellbundle.masks.rles_to_labels``."""
    counted = _Counted(rles)
    return _by_position(*rles_to_labels(counted, None, shape, form), counted.n)


def paint_runs(runs: Iterable[NDArray[np.int64]], shape: tuple[int, int]) -> Painted:
    """Paint runs of pixels; arguments and errors as for ``cellbundle.masks.runs_to_labels``."""
    counted = _Counted(runs)
    return _by_position(*runs_to_labels(counted, None, shape), counted.n)


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
    rings = [[_checked(ring) - 0.5 for ring in instance] for instance in instances]  # pixel centres at whole numbers
    boxes = np.array([_box(instance, shape) for instance in rings], np.int64).reshape(-1, 4)
    return paint_masks((_fill(*pair) for pair in zip(rings, boxes, strict=True)), shape, boxes)


def paint_contours(contours: Sequence[Ring], shape: tuple[int, int]) -> Painted:
    """Paint polygons that run through the centres of the outermost pixels, as OpenCV's ``findContours`` gives them.

    The pixels on the polygon belong to the instance, as with OpenCV's ``fillPoly``.

    Args:
        contours: for each instance, (n, 2) corners (x, y); the centre of the first pixel is (0, 0).
        shape: (H, W) of the image; what lies outside of it is cut off.

    Raises:
        ArrayError: if a contour is not an (n, 2) array of finite numbers.
    """
    corners = [np.rint(_checked(contour)) for contour in contours]
    boxes = np.array([_box([contour], shape) for contour in corners], np.int64).reshape(-1, 4)
    return paint_masks((_draw(*pair) for pair in zip(corners, boxes, strict=True)), shape, boxes)


def label_components(mask: NDArray[np.bool_], min_size: int = 1) -> NDArray[np.int32]:
    """Number the 8-connected parts of a mask, without those of fewer than ``min_size`` pixels.

    Args:
        mask: (H, W) bool.
        min_size: in pixels.

    Returns:
        (H, W) int32, ids 1..N from the top.
    """
    from scipy import ndimage  # noqa: PLC0415  (slow import, and only binary masks need it)

    labels = np.empty(mask.shape, np.int32)
    n = ndimage.label(mask, structure=EIGHT_NEIGHBOURS, output=labels)
    keep = np.bincount(labels.ravel(), minlength=n + 1) >= min_size
    keep[0] = False
    return (np.cumsum(keep) * keep).astype(np.int32)[labels]


class _Counted:
    """An iterable that knows how many it has given."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items, self.n = items, 0

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            self.n += 1
            yield item


def _by_position(labels: NDArray[np.int32], kept: NDArray[np.int64], n: int) -> Painted:
    """Ids from 1 by position instead of from the best mask down."""
    names = np.append(0, kept + 1).astype(np.int32)
    return Painted(names[labels], sorted(set(range(n)) - set(kept.tolist())))


def _checked(ring: ArrayLike) -> NDArray[np.float64]:
    """A ring as (n, 2) float64."""
    corners = np.asarray(ring, np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.isfinite(corners).all():
        raise ArrayError(f"a polygon must be (n, 2) finite numbers x and y, got shape {corners.shape}")
    return corners


def _box(rings: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> list[int]:
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
