"""Outlines of instances as polygons that hold exactly their pixels."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.parallel import run_chunks
from ..kernels.polygons import find_corners, group_corners, join_edges, trace_outlines
from .labels import check_numbered

MIN_INSTANCES_PER_THREAD = 64
MIN_ROWS_PER_THREAD = 256


class Polygon(NamedTuple):
    """One 4-connected part of an instance.

    A ring is (n, 2) int32 pixel corners (x, y), pixel (0, 0) having the corners 0 and 1; the last corner joins the
    first, which is not repeated, and no three in a row are in line. The signed area is positive for the exterior and
    negative for holes, as in RFC 7946. Rings touch each other, at most, in single corners.
    """

    exterior: NDArray[np.int32]
    holes: list[NDArray[np.int32]]


def outlines(labels: NDArray[np.integer]) -> list[list[Polygon]]:
    """Outlines of every instance along the edges of its pixels.

    Args:
        labels: (H, W) integers, ids 1..N, 0 background.

    Returns:
        For each id 1..N its 4-connected parts, from the top; an id without pixels has none. The area of the polygons
        is the number of pixels.

    Raises:
        ArrayError: if ``labels`` is not a map of non-negative integers, or the largest id exceeds the pixel count.
    """
    n = check_numbered(labels)
    labels = np.ascontiguousarray(labels, np.int32)
    height, width = labels.shape
    found = np.concatenate(run_chunks(find_corners, height + 1, labels, min_chunk=MIN_ROWS_PER_THREAD))
    join_edges(found, width)
    corners, offsets = group_corners(found, n)
    marks = np.full((len(corners), 2), -1, np.int32)
    points = np.empty((len(corners), 2), np.int32)
    loops = np.empty((len(corners) // 4, 4), np.int32)
    n_loops = np.zeros(n, np.int32)
    arrays = (labels, corners, offsets, marks, points, loops, n_loops)
    run_chunks(trace_outlines, n, *arrays, min_chunk=MIN_INSTANCES_PER_THREAD)
    return _assemble(points, loops, offsets[:-1] // 4, n_loops)


def contours(labels: NDArray[np.integer]) -> list[list[NDArray[np.int32]]]:
    """Outlines of every instance through the centres of its outermost pixels, as OpenCV's ``findContours`` has them.

    Holes are not in them: ``cellbundle.instances.painting.paint_contours`` gives back each part, with its holes filled.

    Args:
        labels: (H, W) integers, ids 1..N, 0 background.

    Returns:
        For each id 1..N its 4-connected parts, the one of most pixels first: (n, 2) int32 pixels (x, y), without
        those in the middle of a straight line. A part of one pixel has one, and a line of pixels has its two ends.

    Raises:
        ArrayError: as for ``outlines``.
    """
    return [[_contour(part.exterior) for part in sorted(parts, key=_area, reverse=True)] for parts in outlines(labels)]


def _area(polygon: Polygon) -> int:
    """Pixels of a part."""
    return sum(_signed_area(ring) for ring in (polygon.exterior, *polygon.holes))


def _signed_area(ring: NDArray[np.int32]) -> int:
    """Area of a ring by the trapezoid formula; negative for a hole."""
    x, y = ring.T.astype(np.int64)
    return int(((x - _next(x)) * y).sum())


def _contour(ring: NDArray[np.int32]) -> NDArray[np.int32]:
    """The pixels on the inner side of an exterior ring, of each of its edges the first and the last one."""
    step = np.sign(_next(ring) - ring)
    # The pixel is on the right: below the corner on the way right, left of it on the way down, and so on.
    inside = np.minimum(0, np.column_stack([step[:, 0] - step[:, 1], step[:, 0] + step[:, 1]]))
    ends = np.stack([ring + inside, _next(ring) - step + inside], axis=1).reshape(-1, 2)
    pixels = ends[(ends != _next(ends)).any(axis=1)]
    if not len(pixels):
        return ends[:1]
    towards = np.sign(_next(pixels) - pixels)
    return pixels[(towards != np.concatenate([towards[-1:], towards[:-1]])).any(axis=1)]


def _next(values: NDArray) -> NDArray:
    """What follows on each one in a ring."""
    return np.concatenate([values[1:], values[:1]])


def _assemble(points: NDArray, loops: NDArray, firsts: NDArray, n_loops: NDArray) -> list[list[Polygon]]:
    """Group the loops of ``trace_outlines`` to polygons."""
    before = np.cumsum(n_loops) - n_loops
    rows = loops[np.arange(n_loops.sum()) + np.repeat(firsts - before, n_loops)].tolist()
    result = []
    for first, count in zip(before.tolist(), n_loops.tolist(), strict=True):
        own = rows[first : first + count]
        polygons = [Polygon(points[start : start + size], []) for start, size, _, hole in own if not hole]
        if len(polygons) < count:
            for start, size, part, hole in own:
                if hole:
                    polygons[part].holes.append(points[start : start + size])
        result.append(polygons)
    return result
