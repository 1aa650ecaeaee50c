"""Nuclear logit and distance maps (HoVer-Net) to instances: find borders, set markers, flood."""

import numpy as np
from scipy.special import erf

from ..errors import ConfigError
from ..kernels.geometry import boxes_and_areas
from ..kernels.hover import correlate_rows, drop_large
from ..kernels.parallel import run_chunks
from ..kernels.watershed import fill_mask_holes, flood_components, label_components, spread_rows
from .prediction import check_prediction

MIN_ROWS_PER_THREAD = 128
MIN_COMPONENTS_PER_THREAD = 16
LARGEST_DISTANCE = 1e38  # differences of larger ones overflow
GAUSSIAN_REACH = 4.0  # standard deviations
ROOT_HALF = 0.70710678  # with the digits of MONAI, so that the weights have the same bits


def decode_hover(
    prediction: np.ndarray,
    *,
    cell_threshold: float = 0.0,
    kernel_size: int = 21,
    marker_threshold: float = 0.4,
    marker_radius: int = 2,
    min_size: int = 10,
    min_marker_size: int = 10,
    smoothing: float = 1.0,
) -> np.ndarray:
    """Instances from a nuclear logit and the distances from the centres of the nuclei.

    Where the distances drop from 1 to -1 is a border between instances. What remains of the foreground without its
    borders are the markers, and they grow again over the foreground: a watershed from the pixels that are farthest from
    a border. Components of the foreground without a marker are left out, and those without any border are one instance
    each. A marker that encloses another component takes it in, because holes of markers are filled.

    Args:
        prediction: (3, H, W) float, channel 0 the logit, channel 1 the horizontal and channel 2 the vertical distance.
            A distance that is not finite counts as 0.
        cell_threshold: logits above this are foreground.
        kernel_size: of the Sobel filter (pixels), odd; HoVer-Net uses 21.
        marker_threshold: border strength in 0..1 from which a pixel belongs to no marker.
        marker_radius: of the disc that must fit into a marker (pixels).
        min_size: smallest 4-connected component of the foreground (pixels).
        min_marker_size: smallest marker (pixels).
        smoothing: standard deviation of the Gaussian filter before the watershed (pixels).

    Returns:
        (H, W) int32 label map, ids 1..N in the order of the first pixels of the markers.

    Raises:
        ArrayError: if ``prediction`` is not (3, H, W) floating point.
        ConfigError: if ``kernel_size`` is not an odd number from 3 on.

    Source: Graham et al., Med. Image Anal. 2019; the steps of ``monai.apps.pathology.transforms.post`` (Apache-2.0),
        and the same instances with its softmax. MONAI refuses constant maps and images that are smaller than the Sobel
        filter, and keeps an object below the smallest size that fills the whole image.
    """
    check_prediction(prediction)
    cells = np.ascontiguousarray(prediction[0] > cell_threshold)
    components, labels = np.zeros((2, *cells.shape), np.int32)
    n = label_components(cells.view(np.uint8), min_size, components)
    if n == 0:
        return labels
    cells = components > 0
    border = border_strength(prediction[1:], kernel_size)
    markers = find_markers(cells & (border < np.float32(marker_threshold)), marker_radius, min_marker_size)
    weights = _gaussian_weights(smoothing)
    np.subtract(1, border, out=border)
    np.multiply(border, cells, out=border)
    heights = _correlate(border, weights, weights, mirrored=False)
    bits = heights.view(np.int32)  # in the same order, because no height is negative
    boxes, _ = boxes_and_areas(components, n)
    chunk = MIN_COMPONENTS_PER_THREAD
    run_chunks(flood_components, n, components, boxes, bits, markers, labels, min_chunk=chunk)
    return labels


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
    for channel, down, across in ((0, smooth, difference), (1, difference, smooth)):
        with np.errstate(over="ignore"):
            values = np.array(distances[channel], np.float32, order="C")
        drop_large(values.reshape(-1), LARGEST_DISTANCE)
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
    eroded = np.empty_like(filled)
    run_chunks(spread_rows, len(mask), filled, 0, radius, eroded, min_chunk=MIN_ROWS_PER_THREAD)
    run_chunks(spread_rows, len(mask), eroded, 1, radius, filled, min_chunk=MIN_ROWS_PER_THREAD)
    markers = np.zeros(mask.shape, np.int32)
    label_components(filled, min_size, markers)
    return markers


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


def _sobel_weights(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Smoothing and differentiating weights of a Sobel filter: two (size,) float64."""
    if size < 3 or size % 2 == 0:
        raise ConfigError(f"kernel_size is {size}; give an odd number from 3 on")
    smooth, difference = np.array([1, 2, 1]) / 4, np.array([-1, 0, 1]) / 2
    wider = smooth
    for _ in range(3, size, 2):
        smooth, difference = np.convolve(smooth, wider), np.convolve(difference, wider)
    return smooth, difference


def _gaussian_weights(sigma: float) -> np.ndarray:
    """Integral of a Gaussian over every pixel, (2r + 1,) float64, computed in single precision as MONAI does."""
    reach = int(max(GAUSSIAN_REACH * sigma, 0.5) + 0.5)
    edges = np.arange(-reach, reach + 2, dtype=np.float32) - np.float32(0.5)
    with np.errstate(divide="ignore"):  # sigma 0 puts all the weight on the pixel itself
        scale = np.float32(ROOT_HALF) / np.float32(sigma)
    return np.diff(erf(edges * scale)).astype(np.float64) / 2
