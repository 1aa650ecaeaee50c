"""One outline for an instance with holes and several parts, for formats that have room for one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...instances.polygons import Polygon

MARGIN = 0.1  # pixels from the edge of an instance to its outline; more than the six digits of a file lose


def one_outline(parts: Sequence[Polygon]) -> NDArray[np.float64]:
    """Join the rings of an instance to one outline that stays ``MARGIN`` within its pixels.

    Args:
        parts: of one instance, at least one, as ``cellbundle.instances.polygons.outlines`` gives them.

    Returns:
        (n, 2) corners (x, y), n >= 4; the outer corner of the first pixel is (0, 0), the last corner joins the first.
        From ring to ring there are paths there and back, from the nearest point to the nearest point.
    """
    tracks = [_track(ring) for part in parts for ring in (part.exterior, *part.holes)]
    points = np.concatenate([track[0] for track in tracks])
    is_corner = np.concatenate([track[1] for track in tracks])
    if len(tracks) == 1:
        return points[is_corner]
    ends = np.cumsum([len(track[0]) for track in tracks])
    tour = _join(points, np.searchsorted(ends, np.arange(len(points)), side="right"), is_corner)
    return points[tour][is_corner[tour]]


def _track(ring: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A ring moved into the instance, with a point for each pixel beside it: (n, 2), and which of them are corners.

    Corners that point into the instance are cut off by a diagonal: where two holes touch in a corner, the pixel across
    from it is outside.
    """
    along = np.concatenate([ring[1:], ring[:1]]) - ring
    step = np.sign(along)
    inwards = np.column_stack([-step[:, 1], step[:, 0]])  # the instance is on the right
    convex = (np.concatenate([step[1:], step[:1]]) == inwards).all(axis=1)  # at the end of each edge
    lengths = np.abs(along).sum(axis=1)
    edge = np.repeat(np.arange(len(ring)), lengths + 1)
    place = np.arange(len(edge)) - np.repeat(np.cumsum(lengths + 1) - lengths - 1, lengths + 1)
    last = place == lengths[edge]
    back = np.where(last, -1, 1)[:, None]
    points = ring[edge] + step[edge] * place[:, None] + MARGIN * (inwards[edge] + back * step[edge])
    single = ~(last & convex[edge])  # else the next edge starts there
    return points[single], ((place == 0) | last)[single]


def _join(points: NDArray[np.float64], ring_of: NDArray[np.int64], is_corner: NDArray[np.bool_]) -> list[int]:
    """The order in which one outline visits the points of all rings; where it leaves a ring becomes a corner.

    Always the nearest ring is joined to what is there, so that no path leads across a third one.
    """
    from scipy.spatial import KDTree  # noqa: PLC0415  (slow import, and few instances need it)

    distance = np.full(len(points), np.inf)
    nearest = np.zeros(len(points), np.int64)
    left = np.ones(len(points), np.bool_)
    tour: list[int] = []
    first = 0
    while True:
        ring = np.flatnonzero(ring_of == ring_of[first])
        around = np.roll(ring, ring[0] - first).tolist()
        if tour:
            start = int(nearest[first])
            is_corner[[first, start]] = True
            at = tour.index(start)
            tour[at:at] = [start, *around, first]
        else:
            tour = around
        left[ring], distance[ring] = False, np.inf
        if not left.any():
            return tour
        low, high = points[ring].min(axis=0), points[ring].max(axis=0)
        to_box = np.linalg.norm(points - np.clip(points, low, high), axis=1)
        others = np.flatnonzero(left & (to_box < distance))
        found, index = KDTree(points[ring]).query(points[others])
        closer = found < distance[others]
        distance[others[closer]], nearest[others[closer]] = found[closer], ring[index[closer]]
        first = int(distance.argmin())
