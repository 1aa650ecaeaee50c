"""Nuclear logit and distance maps (HoVer-Net) to instances: find borders, set markers, flood, join parts."""

from typing import Any, Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import erf

from ..errors import ConfigError
from ..instances.labels import label_components, renumber
from ..kernels.geometry import boxes_and_areas
from ..kernels.hover import (
    LARGEST_STEP,
    border_places,
    correlate_rows,
    drop_large,
    foreground_steps,
    measure_drops,
)
from ..kernels.parallel import run_chunks
from ..kernels.watershed import fill_mask_holes, flood_components, spread_rows
from .prediction import check_prediction

MIN_ROWS_PER_THREAD = 128
MIN_COMPONENTS_PER_THREAD = 16
MIN_PAIRS_PER_THREAD = 4096
LARGEST_DISTANCE = 1e38  # differences of larger ones overflow
GAUSSIAN_REACH = 4.0  # standard deviations
ROOT_HALF = 0.70710678  # with the digits of MONAI, so that the weights have the same bits

BorderRule = Literal["slope", "image"]

# The post-processing of HoVer-Net, instance by instance that of MONAI.
PUBLISHED: dict[str, Any] = {
    "border_rule": "image",
    "kernel_size": 21,
    "marker_threshold": 0.4,
    "marker_radius": 2,
    "min_size": 10,
    "min_marker_size": 10,
    "smoothing": 1.0,
    "merge_drop": None,
    "keep_unmarked": False,
}


def decode_hover(
    prediction: np.ndarray,
    *,
    cell_threshold: float = 0.0,
    border_rule: BorderRule = "slope",
    kernel_size: int = 3,
    marker_threshold: float = 0.0,
    marker_radius: int = 0,
    min_size: int = 10,
    min_marker_size: int = 1,
    smoothing: float = 1.0,
    merge_drop: float | None = 0.1,
    merge_reach: int = 2,
    keep_unmarked: bool = True,
) -> np.ndarray:
    """Instances from a nuclear logit and the distances from the centres of the nuclei.

    Inside a nucleus the distances rise from -1 to 1; where they drop is a border between instances. What remains of the
    foreground without its borders are the markers, and they grow again over the foreground: a watershed from the pixels
    that are farthest from a border. Instances across whose common border the distances do not drop are parts of one
    nucleus.

    ``decode_hover(prediction, **PUBLISHED)`` is the post-processing of HoVer-Net. It looks at nuclei through a filter
    of 21 pixels and scales the slopes to 0..1 in the image, so that small nuclei vanish and the result depends on what
    else is in the image (``docs/benchmarks/hover_roundtrip.md``).

    Args:
        prediction: (3, H, W) float, channel 0 the logit, channel 1 the horizontal and channel 2 the vertical distance.
            A distance that is not finite counts as 0.
        cell_threshold: logits above this are foreground.
        border_rule: ``slope``, how far the distances drop in a pixel, seen on the foreground alone; ``image``, the
            slopes of the whole image scaled to 0..1, see ``border_strength``.
        kernel_size: of the Sobel filter (pixels), odd.
        marker_threshold: border strength from which a pixel belongs to no marker.
        marker_radius: of the disc that must fit into a marker (pixels); 0 asks for none.
        min_size: smallest 4-connected component of the foreground (pixels).
        min_marker_size: smallest marker (pixels).
        smoothing: standard deviation of the Gaussian filter before the watershed (pixels).
        merge_drop: instances stay apart if the distances drop by this much across their border, on average; None leaves
            all of them apart.
        merge_reach: how far on either side of a border its drop is looked for (pixels).
        keep_unmarked: a component of the foreground without a marker is one instance; with False it is left out. One
            without any border is an instance in any case.

    Returns:
        (H, W) int32 label map, ids 1..N in the order of the first pixels of the markers, components without any last.
        A marker that encloses another component takes it in, because holes of markers are filled.

    Raises:
        ArrayError: if ``prediction`` is not (3, H, W) floating point.
        ConfigError: if ``kernel_size`` is not an odd number from 3 on, or ``border_rule`` is not known.

    Source: Graham et al., Med. Image Anal. 2019; with ``PUBLISHED`` the steps of
        ``monai.apps.pathology.transforms.post`` (Apache-2.0), and the same instances with its softmax. MONAI refuses
        constant maps and images that are smaller than the Sobel filter, and keeps an object below the smallest size
        that fills the whole image.
    """
    check_prediction(prediction)
    cells = prediction[0] > cell_threshold
    components, n = label_components(cells, connectivity=4, min_size=min_size)
    if n == 0:
        return components
    cells = components > 0
    distances = _finite(prediction[1:])
    border, strongest = _find_borders(distances, cells, border_rule, kernel_size)
    markers = find_markers(cells & (border < np.float32(marker_threshold)), marker_radius, min_marker_size)
    weights = _gaussian_weights(smoothing)
    np.subtract(strongest, border, out=border)
    np.multiply(border, cells, out=border)
    heights = _correlate(border, weights, weights, mirrored=False)
    bits = heights.view(np.int32)  # in the same order, because no height is negative
    boxes, _ = boxes_and_areas(components, n)
    labels = np.zeros(cells.shape, np.int32)
    chunk = MIN_COMPONENTS_PER_THREAD
    run_chunks(flood_components, n, components, boxes, bits, markers, labels, min_chunk=chunk)
    if merge_drop is not None:
        labels = join_parts(labels, distances, merge_drop, merge_reach)
    if keep_unmarked:
        unmarked = cells & (labels == 0)
        if unmarked.any():
            np.add(components, labels.max(), out=labels, where=unmarked)
            labels = renumber(labels)[0]
    return labels


def _find_borders(
    distances: np.ndarray, cells: np.ndarray, rule: BorderRule, kernel_size: int
) -> tuple[np.ndarray, float]:
    """Strength of the borders by a rule, (H, W) float32, and its upper bound."""
    if rule == "slope":
        return border_drop(distances, cells, kernel_size), LARGEST_STEP
    if rule == "image":
        return border_strength(distances, kernel_size), 1.0
    raise ConfigError(f"border_rule is {rule!r}; give 'slope' or 'image'")


def border_drop(distances: np.ndarray, cells: np.ndarray, kernel_size: int) -> np.ndarray:
    """How far the distances drop in one pixel, on the foreground alone.

    The Sobel filter is the difference of neighbouring pixels, smoothed. Here it takes only differences between pixels
    of the foreground, and divides by the weights of these: the background, where distances are 0 by definition, makes
    no borders, and a nucleus smaller than the filter is seen as well as a large one.

    Args:
        distances: (2, H, W) float32, finite, horizontal and vertical.
        cells: (H, W) bool, the foreground.
        kernel_size: of the Sobel filter (pixels), odd.

    Returns:
        (H, W) float32 in [-2, 2], the larger of both directions; negative where distances rise, as inside of a nucleus;
        -2 where no neighbour is foreground.

    Source: normalised convolution, Knutsson and Westin, CVPR 1993.
    """
    smooth, _ = _sobel_weights(kernel_size)
    along = np.concatenate([[0], _binomial(kernel_size - 2)])  # steps lead to a pixel from the one before
    drop = np.full(cells.shape, -LARGEST_STEP, np.float32)
    steps, known = np.empty((2, *cells.shape), np.float32)
    for values, axis in ((distances[0], 1), (distances[1], 0)):
        run_chunks(foreground_steps, len(cells), values, cells, axis, steps, known, min_chunk=MIN_ROWS_PER_THREAD)
        down, across = (smooth, along) if axis == 1 else (along, smooth)
        rise, weight = (_correlate(image, down, across, mirrored=False) for image in (steps, known))
        np.divide(rise, weight, out=rise, where=weight > 0)
        np.maximum(drop, -rise, out=drop, where=weight > 0)
    return np.clip(drop, -LARGEST_STEP, LARGEST_STEP, out=drop)


def border_strength(distances: np.ndarray, kernel_size: int) -> np.ndarray:
    """How steeply the distances drop: 1 where the most in the image, 0 where they rise the most.

    Args:
        distances: (2, H, W) float, horizontal and vertical. A map that is the same everywhere has no borders.
        kernel_size: of the Sobel filter (pixels), odd.

    Returns:
        (H, W) float32 in [0, 1], the larger of both directions.
    """
    smooth, difference = _sobel_weights(kernel_size)
    border = np.zeros(distances.shape[1:], np.float32)
    for values, down, across in zip(_finite(distances), (smooth, difference), (difference, smooth), strict=True):
        if not _scale(values):
            continue
        rise = _correlate(values, down, across, mirrored=True)
        if _scale(rise):
            np.subtract(1, rise, out=rise)
            np.maximum(border, rise, out=border)
    return border


def find_markers(mask: np.ndarray, radius: int, min_size: int) -> np.ndarray:
    """Fill the holes of a mask, open it with a disc, and number what is left.

    Args:
        mask: (H, W) bool, C-contiguous; changed in place.
        radius: of the disc, in pixels.
        min_size: smallest marker, in pixels.

    Returns:
        (H, W) int32, ids 1..N. As a disc that fits into a hole also fits half over its edge, all of them share pixels
        with the mask that was given.
    """
    filled = mask.view(np.uint8)
    fill_mask_holes(filled)
    if radius > 0:
        eroded = np.empty_like(filled)
        run_chunks(spread_rows, len(mask), filled, 0, radius, eroded, min_chunk=MIN_ROWS_PER_THREAD)
        run_chunks(spread_rows, len(mask), eroded, 1, radius, filled, min_chunk=MIN_ROWS_PER_THREAD)
    return label_components(mask, connectivity=4, min_size=min_size)[0]


def join_parts(labels: np.ndarray, distances: np.ndarray, drop: float, reach: int) -> np.ndarray:
    """Join instances that share a border across which the distances drop too little, on average over the border.

    Noise and folds make markers of their own, but only two nuclei have a drop all along their border.

    Args:
        labels: (H, W) int32, ids 1..N; ids may be absent.
        distances: (2, H, W) float32, finite, horizontal and vertical.
        drop: from which instances stay apart; a perfect border drops from 1 to -1.
        reach: pixels on either side of the border among which the highest and the lowest distance are taken.

    Returns:
        (H, W) int32, ids 1..M in the order of the lowest ids of the joined.
    """
    n = int(labels.max(initial=0))
    pairs, drops = [], []
    for values, axis in ((distances[0], 1), (distances[1], 0)):
        places = border_places(labels, axis)
        found = np.empty(len(places))
        chunk = MIN_PAIRS_PER_THREAD
        run_chunks(measure_drops, len(places), places, axis, labels, values, reach, found, min_chunk=chunk)
        pairs.append(labels.reshape(-1)[np.stack([places, places + (1 if axis == 1 else labels.shape[1])])])
        drops.append(found)
    low, high = np.sort(np.concatenate(pairs, axis=1), axis=0).astype(np.int64)
    keys, index = np.unique(low * (n + 1) + high, return_inverse=True)
    means = np.bincount(index, np.concatenate(drops), len(keys)) / np.bincount(index, minlength=len(keys))
    joined = keys[means < drop]
    if not len(joined):
        return labels
    links = coo_array((np.ones(len(joined)), (joined // (n + 1), joined % (n + 1))), shape=(n + 1, n + 1))
    return renumber(connected_components(links, directed=False)[1].astype(np.int32)[labels])[0]


def _finite(distances: np.ndarray) -> np.ndarray:
    """A copy, (2, H, W) float32, C-contiguous, with 0 for what is not finite or too large to be subtracted."""
    with np.errstate(over="ignore"):
        values = np.array(distances, np.float32, order="C")
    drop_large(values.reshape(-1), LARGEST_DISTANCE)
    return values


def _scale(values: np.ndarray) -> bool:
    """Scale ``values`` (H, W) float32 to 0..1 in place, and return False where there is nothing to scale."""
    low, high = values.min(), values.max()
    if not low < high:
        return False
    values -= low
    values /= high - low
    return True


def _correlate(image: np.ndarray, down: np.ndarray, across: np.ndarray, *, mirrored: bool) -> np.ndarray:
    """``correlate_rows`` over all rows; (H, W) float32 in and out."""
    out = np.empty_like(image)
    run_chunks(correlate_rows, len(image), image, down, across, mirrored, out, min_chunk=MIN_ROWS_PER_THREAD)
    return out


def _binomial(n: int) -> np.ndarray:
    """The n-th row of Pascal's triangle divided by its sum, (n + 1,) float64: a Sobel filter along its smooth side."""
    weights = np.ones(1)
    for _ in range(n):
        weights = np.convolve(weights, (0.5, 0.5))
    return weights


def _sobel_weights(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Smoothing and differentiating weights of a Sobel filter: two (size,) float64."""
    if size < 3 or size % 2 == 0:
        raise ConfigError(f"kernel_size is {size}; give an odd number from 3 on")
    return _binomial(size - 1), np.convolve((-0.5, 0, 0.5), _binomial(size - 3))


def _gaussian_weights(sigma: float) -> np.ndarray:
    """Integral of a Gaussian over every pixel, (2r + 1,) float64, computed in single precision as MONAI does."""
    reach = int(max(GAUSSIAN_REACH * sigma, 0.5) + 0.5)
    edges = np.arange(-reach, reach + 2, dtype=np.float32) - np.float32(0.5)
    with np.errstate(divide="ignore"):  # sigma 0 puts all the weight on the pixel itself
        scale = np.float32(ROOT_HALF) / np.float32(sigma)
    return np.diff(erf(edges * scale)).astype(np.float64) / 2
