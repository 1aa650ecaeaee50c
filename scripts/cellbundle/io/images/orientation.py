"""EXIF orientations: how photographs are to be turned, and whether labels were drawn on the turned picture."""

import numpy as np
from numpy.typing import NDArray

UPRIGHT, FIRST_TRANSPOSED, LAST = 1, 5, 8  # values; from 5 on, height and width change places
TAG = 274  # of TIFF and EXIF
MIN_CONTRAST = 0.2  # in standard deviations of the image
CLEARER = 2.0  # times the contrast of the other orientation


def known_orientation(value: object) -> int:
    """Return an orientation of 1 to 8; 1 for any other value."""
    return value if isinstance(value, int) and UPRIGHT <= value <= LAST else UPRIGHT


def turn(array: NDArray, orientation: int) -> NDArray:
    """Turn an image as its EXIF orientation says.

    Args:
        array: (..., H, W).
        orientation: 1 to 8; other values are taken as 1, which leaves the image as it is.

    Returns:
        (..., H, W), or (..., W, H) for 5 to 8; a view.

    Source: EXIF 2.32, tag 274.
    """
    if FIRST_TRANSPOSED <= orientation <= LAST:
        array = np.swapaxes(array, -1, -2)
    if orientation in (2, 3, 6, 7):
        array = array[..., ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[..., ::-1, :]
    return array


def remark_on_orientation(stored: NDArray, labels: NDArray, orientation: int, *, applied: bool) -> str | None:
    """Say that labels fit a photograph better in the other orientation than in the one that is used.

    Args:
        stored: (C, H, W) image as it lies in the file.
        labels: (H, W) label map, of the size of the image that is used.
        orientation: of EXIF.
        applied: whether the turned image is used, not the stored one.

    Returns:
        A sentence; None if the image in use fits, or nothing can be said.
    """
    if turn(stored[0], orientation).shape != stored[0].shape or orientation == UPRIGHT or not labels.any():
        return None
    contrasts = {False: _contrast(stored, labels), True: _contrast(turn(stored, orientation), labels)}
    used, other = contrasts[applied], contrasts[not applied]
    if other < MIN_CONTRAST or other < CLEARER * used:
        return None
    names = {False: "as stored", True: f"turned by EXIF orientation {orientation}"}
    return (
        f"labels fit the image {names[not applied]} (contrast {other:.2f}), not {names[applied]} ({used:.2f}); use "
        f"exif={'ignore' if applied else 'apply'}"
    )


def _contrast(image: NDArray, labels: NDArray) -> float:
    """Largest difference of the means inside and outside of instances among the channels, in standard deviations."""
    inside = labels > 0
    if inside.all():
        return 0.0
    differences = [abs(float(channel[inside].mean() - channel[~inside].mean())) for channel in image]
    spreads = [float(channel.std()) for channel in image]
    return max((d / s for d, s in zip(differences, spreads, strict=True) if s > 0), default=0.0)
