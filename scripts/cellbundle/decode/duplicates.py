"""Objects that several tiles see, once each."""

import numpy as np
from numpy.typing import NDArray

from ..errors import ArrayError, ConfigError
from ..instances.detections import Detections, Mask, tighten

EDGE_PIXELS = 1.0  # a detection ends at the edge of its tile if there is no more than this between them,
EDGE_SHARE = 0.05  # and this share of its side: predicted boxes end a little before or behind

Boxes = NDArray[np.int64]  # (N, 4) half-open y0, x0, y1, x1


def merge_tiles(
    detections: Detections, tile_of: NDArray[np.int64], tiles: Boxes, iou: float = 0.5
) -> tuple[Detections, NDArray[np.int64]]:
    """Make one detection of those of one object in overlapping tiles.

    Two detections of different tiles are of one object if their masks agree where both tiles see: if the intersection
    over union of what lies there is ``iou`` or more, or, where a tile cuts one of them, the intersection over the
    smaller one. Classes are not compared. Detections of one tile are never compared: the network has already left out
    what it takes for duplicates.

    Of the detections of an object, the mask of one is kept: rather of one that its tile does not cut, then that of the
    best score. If its tile does cut it, it gets what the others hold outside of that tile, so that an object larger
    than the overlap is whole, and one larger than a tile too. The score and the class are those of the best score.

    Args:
        detections: of the whole image, in pixels of the image.
        tile_of: (N,) number of the tile that each comes from.
        tiles: (T, 4) half-open y0, x0, y1, x1 inside the image.
        iou: see above, above 0 and at most 1.

    Returns:
        The M objects, and (M,) int64 index of the detection whose mask each has.

    Raises:
        ArrayError: if ``tile_of`` does not give each detection one of the tiles.
        ConfigError: if ``iou`` is not above 0 and at most 1.
    """
    if not 0 < iou <= 1:
        raise ConfigError(f"the IoU of duplicates in tiles must be in (0, 1], got {iou}")
    n = len(detections)
    if tile_of.shape != (n,) or (n and not 0 <= tile_of.min() <= tile_of.max() < len(tiles)):
        got = f"got shape {tile_of.shape}" + (f", {tile_of.min()} to {tile_of.max()}" if tile_of.size else "")
        raise ArrayError(f"tile_of must give each of {n} detections one of {len(tiles)} tiles, {got}")
    if len(tiles) < 2:
        return detections, np.arange(n)
    own = tiles[tile_of]
    cut = _cut_by_tile(detections, own)
    same = _find_matches(detections, own, tile_of, cut, iou)
    free = np.ones(n, np.bool_)
    objects = []  # index of the best score, of the mask, and the mask with its box
    for i in np.argsort(cut, kind="stable").tolist():
        if not free[i]:
            continue
        members = _gather(i, same, free, cut, tile_of)
        whole = _unite(detections, members, own[i].tolist()) if cut[i] and len(members) > 1 else None
        objects.append((min(members), i, *(whole or (detections.masks[i], detections.boxes_yxyx[i]))))
    objects.sort(key=lambda found: found[0])
    best = np.array([found[0] for found in objects], np.int64)
    boxes_yxyx = np.array([found[3] for found in objects], np.int64).reshape(-1, 4)
    masks = [found[2] for found in objects]
    merged = Detections(masks, boxes_yxyx, detections.scores[best], detections.classes[best], detections.shape)
    return merged, np.array([found[1] for found in objects], np.int64)


def _cut_by_tile(detections: Detections, own: Boxes) -> NDArray[np.bool_]:
    """(N,) bool: whether a detection ends at an edge of its tile that is not one of the image."""
    low, high = detections.boxes_yxyx[:, :2], detections.boxes_yxyx[:, 2:]
    reach = EDGE_PIXELS + EDGE_SHARE * (high - low)
    before = (own[:, :2] > 0) & (low - own[:, :2] <= reach)
    behind = (own[:, 2:] < np.array(detections.shape)) & (own[:, 2:] - high <= reach)
    return np.asarray((before | behind).any(1))


def _find_matches(
    detections: Detections, own: Boxes, tile_of: NDArray[np.int64], cut: NDArray[np.bool_], iou: float
) -> list[list[int]]:
    """For each detection those of other tiles that are of one object with it."""
    boxes_yxyx, corners, views = detections.boxes_yxyx, detections.boxes_yxyx.tolist(), own.tolist()
    matches: list[list[int]] = [[] for _ in corners]
    order = np.argsort(boxes_yxyx[:, 0], kind="stable")
    ends = np.searchsorted(boxes_yxyx[order, 0], boxes_yxyx[order, 2])
    for position, i in enumerate(order.tolist()):
        below = order[position + 1 : ends[position]]  # boxes whose first row is one of this box
        beside = (boxes_yxyx[below, 1] < corners[i][3]) & (boxes_yxyx[below, 3] > corners[i][1])
        for j in below[beside & (tile_of[below] != tile_of[i])].tolist():
            masks, pair = (detections.masks[i], detections.masks[j]), (corners[i], corners[j])
            if _overlap_within(masks, pair, _intersect(views[i], views[j]), bool(cut[i] or cut[j])) >= iou:
                matches[i].append(j)
                matches[j].append(i)
    return matches


def _overlap_within(
    masks: tuple[Mask, Mask], boxes_yxyx: tuple[list[int], list[int]], window: list[int], cut: bool
) -> float:
    """Intersection over union of two masks in a window, or over the smaller one if a tile cuts one of them.

    What a tile shows of a cell at its edge may be a sliver of a few pixels, whose IoU says little.
    """
    common = _intersect(_intersect(*boxes_yxyx), window)
    shared = np.count_nonzero(_part(masks[0], boxes_yxyx[0], common) & _part(masks[1], boxes_yxyx[1], common))
    if not shared:
        return 0.0
    pairs = zip(masks, boxes_yxyx, strict=True)
    areas = [np.count_nonzero(_part(mask, box, _intersect(box, window))) for mask, box in pairs]
    return shared / (min(areas) if cut else sum(areas) - shared)


def _gather(
    first: int, same: list[list[int]], free: NDArray[np.bool_], cut: NDArray[np.bool_], tile_of: NDArray[np.int64]
) -> list[int]:
    """The detections of one object that are still free, ``first`` first; they are free no more.

    What matches ``first`` belongs to it. If a tile cuts it, parts farther away match other parts: these belong to it
    too, unless they come from a tile that has a part already, because a tile sees an object once.
    """
    members = [first, *(j for j in same[first] if free[j])]
    free[members] = False
    for i in members if cut[first] else ():  # grows on the way
        for j in same[i] if cut[i] else ():
            if free[j] and tile_of[j] not in tile_of[members]:
                members.append(j)
                free[j] = False
    return members


def _unite(detections: Detections, members: list[int], tile: list[int]) -> tuple[Mask, tuple[int, int, int, int]]:
    """The mask of the first detection, and what the others hold outside of its tile."""
    boxes_yxyx = detections.boxes_yxyx[members]
    top, left = boxes_yxyx[:, :2].min(0).tolist()
    bottom, right = boxes_yxyx[:, 2:].max(0).tolist()
    whole = np.zeros((bottom - top, right - left), np.bool_)
    for i in members[1:]:
        y0, x0, y1, x1 = detections.boxes_yxyx[i] - (top, left, top, left)
        whole[y0:y1, x0:x1] |= detections.masks[i]
    y0, x0, y1, x1 = np.maximum(np.array(tile) - (top, left, top, left), 0)
    whole[y0:y1, x0:x1] = False
    y0, x0, y1, x1 = boxes_yxyx[0] - (top, left, top, left)
    whole[y0:y1, x0:x1] |= detections.masks[members[0]]
    united = tighten(whole, top, left)
    assert united is not None  # the first mask has pixels
    return united


def _intersect(box: list[int], other: list[int]) -> list[int]:
    """Common part of two half-open boxes y0, x0, y1, x1; without rows or columns if there is none."""
    y0, x0 = max(box[0], other[0]), max(box[1], other[1])
    return [y0, x0, max(y0, min(box[2], other[2])), max(x0, min(box[3], other[3]))]


def _part(mask: Mask, box: list[int], window: list[int]) -> Mask:
    """View of the part of a mask in a window that begins inside of its box or behind it."""
    return mask[window[0] - box[0] : window[2] - box[0], window[1] - box[1] : window[3] - box[1]]
