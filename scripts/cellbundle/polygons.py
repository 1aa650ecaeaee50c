"""Outlines of instances as polygons that hold exactly their pixels."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .kernels.parallel import run_chunks
from .kernels.polygons import find_corners, group_corners, join_edges, trace_outlines
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
