"""A cell logit to instances: threshold, connected components and, if wanted, a watershed."""

import numpy as np
from scipy import ndimage
from scipy.special import logit

from ..errors import ConfigError
from ..instances.labels import label_components
from .flows import clean
from .prediction import check_prediction


def decode_binary(
    prediction: np.ndarray,
    *,
    threshold: float = 0.5,
    split: bool = False,
    smoothing: float = 1.0,
    min_distance: int = 5,
    min_size: int = 15,
) -> np.ndarray:
    """Instances from a cell logit.

    Cells that touch, also in a corner, are one instance, unless ``split`` cuts them where they are narrow: a watershed
    of the distance from the background, with one marker at each of its peaks.

    Args:
        prediction: (1, H, W) float, the logit.
        threshold: probability above which a pixel is cell, in (0, 1).
        split: whether to cut.
        smoothing: standard deviation of the Gaussian filter of the distance (pixels), 0 for none.
        min_distance: pixels between two peaks, at least; larger values cut less.
        min_size: smallest instance (pixels), before holes are filled; 0 keeps all.

    Returns:
        (H, W) int32 label map, ids 1..N.

    Raises:
        ArrayError: if ``prediction`` is not (1, H, W) floating point.
        ConfigError: if ``threshold`` is not between 0 and 1.
    """
    check_prediction(prediction, channels=1)
    if not 0 < threshold < 1:
        raise ConfigError(f"threshold is {threshold}, expected a probability between 0 and 1")
    cells = prediction[0] > logit(threshold)
    components, _ = label_components(cells)
    return clean(_cut(components, smoothing, min_distance) if split else components, min_size)


def _cut(components: np.ndarray, smoothing: float, min_distance: int) -> np.ndarray:
    """Cut (H, W) components at their narrow places; one that has no peak of its own stays whole."""
    from skimage.feature import peak_local_max  # noqa: PLC0415  (slow import)
    from skimage.segmentation import watershed  # noqa: PLC0415

    cells = components > 0
    # The edge of the image is no border of a cell: beyond it, a cell goes on.
    distance = ndimage.distance_transform_edt(np.pad(cells, 1, mode="edge"))[1:-1, 1:-1]
    distance = ndimage.gaussian_filter(distance, smoothing) * cells
    peaks = peak_local_max(distance, min_distance=max(1, min_distance), exclude_border=False)
    markers = np.zeros(cells.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels: np.ndarray = watershed(-distance, markers, mask=cells, connectivity=2).astype(np.int32)
    rest = cells & (labels == 0)
    labels[rest] = len(peaks) + components[rest]
    return labels
