"""How far the result of a peer is from ours, in the unit of each kernel; 0 where they are equal."""

from typing import Any

import numpy as np

from cellbundle.metrics import image_scores
from cellbundle.metrics.matching import match, overlap_table
from cellbundle.metrics.scores import instance_ratios

from .peers import THRESHOLDS


def cosine_error(labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest 1 - cosine over the pixels where both have a direction."""
    both = np.any(ours != 0, 0) & np.any(theirs != 0, 0)
    if np.count_nonzero(both) < 0.99 * np.count_nonzero(labels):
        return np.inf
    return float(1 - (ours * theirs).sum(0)[both].min(initial=1.0))


def unmatched(_: Any, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Larger of 1 - AP at 0.5 and at 0.9."""
    scores = image_scores(theirs, ours, (0.5, 0.9))
    return 1 - min(scores["ap50"], scores["ap90"])


def other_instances(_: Any, ours: np.ndarray, theirs: np.ndarray) -> float:
    """How many instances two label maps do not share, at least 1 if they differ in anything but the names of them."""
    pairs = np.unique(np.stack([ours.ravel(), theirs.ravel()]), axis=1)
    if len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]:
        return 0.0
    scores = image_scores(theirs.astype(np.int64), ours, (0.5,))
    return max(1.0, scores["n_true"] - scores["iou_sum50"])


def largest_difference(_: Any, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest absolute difference."""
    return float(np.abs(ours - theirs).max(initial=0))


def other_positives(_: Any, ours: dict[str, float], theirs: list[int]) -> float:
    """Sum of the differences of the true positives."""
    return sum(abs(ours[f"tp{100 * t:.0f}"] - tp) for t, tp in zip(THRESHOLDS, theirs, strict=True))


def quality_error(maps: tuple[np.ndarray, np.ndarray], ours: dict[str, float], theirs: float) -> float:
    """Difference of PQ. An IoU of exactly 0.5 is a match for us and none for the peers: such pairs are left out."""
    overlap = overlap_table(*maps)
    above = match(overlap, np.nextafter(0.5, 1))
    if len(above) == ours["tp50"]:
        return abs(ours["pq"] - theirs)
    counts = {"n_true": ours["n_true"], "n_pred": ours["n_pred"], "tp50": len(above), "iou_sum50": above.iou.sum()}
    return abs(instance_ratios(counts)["pq"] - theirs)


def jaccard_error(_: Any, ours: dict[str, float], theirs: float) -> float:
    """Difference of AJI."""
    return abs(ours["aji"] - theirs)


def outline_error(labels: np.ndarray, ours: list[Any], theirs: list[Any]) -> float:
    """Pixels that polygons enclose too many or too few, plus parts that OpenCV finds and we miss."""
    error = np.abs([enclosed_area(polygons) for polygons in ours] - np.bincount(labels.ravel())[1:]).sum()
    for polygons, (_, hierarchy) in zip(ours, theirs, strict=True):
        has_parent = hierarchy[0][:, 3] >= 0
        error += max(0, np.count_nonzero(~has_parent) - len(polygons))
    return float(error)


def enclosed_area(polygons: list[Any]) -> float:
    """Area of polygons with holes by the shoelace formula; rings of holes run the other way round."""
    total = 0
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.holes):
            x, y = ring.astype(np.int64).T
            total += int(x @ np.roll(y, -1) - y @ np.roll(x, -1))
    return total / 2


def other_texts(_: Any, ours: list[str], theirs: list[str]) -> float:
    """Number of run lengths that are not equal byte for byte."""
    return abs(len(ours) - len(theirs)) + sum(a != b for a, b in zip(ours, theirs, strict=False))


def measurement_error(_: Any, ours: Any, theirs: dict[str, np.ndarray]) -> float:
    """Largest difference of any measurement, relative to its size where that exceeds 1.

    The orientation counts where there is a major axis: elsewhere rounding decides it in scikit-image.
    """
    major, minor = (ours[f"axis_{name}_length"].to_numpy() for name in ("major", "minor"))
    errors = []
    for name in ours:
        difference = np.abs(ours[name].to_numpy() - theirs[name])
        if name == "orientation":  # a quarter turn to the left and to the right are the same axis
            difference = np.minimum(difference, np.pi - difference)[minor < major * (1 - 1e-9)]
            errors.append(difference.max(initial=0))
        elif name == "axis_minor_length":  # of a line it is the square root of a rounding error there
            errors.append((difference / np.maximum(major, 1)).max(initial=0))
        else:
            errors.append((difference / np.maximum(np.abs(theirs[name]), 1)).max(initial=0))
    return float(max(errors))
