"""Colours of stained tissue: bring an image to those of a reference. Optional; off unless a method is given."""

from collections.abc import Hashable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..errors import ArrayError, ConfigError

StainMethod = Literal["macenko", "reinhard"]

# Absorbances (R, G, B) of haematoxylin and eosin, and their 99th percentiles in a well-stained slide.
REFERENCE_STAINS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
REFERENCE_AMOUNTS = np.array([1.9705, 1.0308])
# Mean and standard deviation in the colour space of Reinhard, of an H&E slide of TCGA; of images in 0..255.
REFERENCE_MEANS = np.array([8.63234435, -0.11501964, 0.03868433])
REFERENCE_DEVIATIONS = np.array([0.57506023, 0.10403329, 0.01364062])

WHITE = 255.0
TRANSPARENT = 0.15  # absorbance up to which a pixel is unstained
EDGE = 1.0  # percent of the stained pixels beyond each of the two stains
HIGH = 99.0  # percentile that stands for the largest amount of a stain
MIN_STAINED = 100  # pixels from which stains can be told apart
MIN_ANGLE = 0.02  # radians between two stains; grey images have one

RGB_TO_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
LMS_TO_LAB = np.diag(1 / np.sqrt([3, 6, 2])) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])


def normalise_macenko(image: np.ndarray, white: float = WHITE) -> np.ndarray:
    """Separate two stains and show the same amounts of them in the colours of the reference.

    Args:
        image: (3, H, W) red, green, blue in [0, white].
        white: value of unstained glass.

    Returns:
        (3, H, W) float32 in [0, white]. An image in which fewer than ``MIN_STAINED`` pixels are stained or two stains
        cannot be told apart, as in a grey one, is returned as it is.

    Raises:
        ArrayError: if ``image`` is not (3, H, W).

    Source: Macenko et al., ISBI 2009; reference values of github.com/mitkovetta/staining-normalization.
    """
    absorbances = _absorbances(image, white)
    stains = find_stains(absorbances)
    if stains is None:
        return np.asarray(image, np.float32)
    amounts = np.linalg.lstsq(stains.T, absorbances, rcond=None)[0]
    largest = np.percentile(amounts, HIGH, axis=1)
    if not (largest > 0).all():
        return np.asarray(image, np.float32)
    amounts *= (REFERENCE_AMOUNTS / largest)[:, None]
    colours = white * np.exp(-(REFERENCE_STAINS.T @ amounts))
    return np.clip(colours, 0, white).reshape(image.shape).astype(np.float32)


def find_stains(absorbances: np.ndarray) -> np.ndarray | None:
    """Absorbances of haematoxylin and eosin in an image.

    They are the edges of the wedge in which the absorbances of stained pixels lie.

    Args:
        absorbances: (3, N) float64, of the pixels in red, green, blue.

    Returns:
        (2, 3) float64 of length 1, haematoxylin first, which absorbs more red; None where there are no two stains.
    """
    stained = absorbances[:, (absorbances > TRANSPARENT).all(0)]
    if stained.shape[1] < MIN_STAINED:
        return None
    plane = np.linalg.eigh(np.cov(stained))[1][:, 1:]
    plane *= np.where(plane.sum(0) < 0, -1, 1)  # so that the wedge does not lie across the jump of the angle
    angles = np.arctan2(*(plane.T @ stained)[::-1])
    low, high = np.percentile(angles, (EDGE, 100 - EDGE))
    if high - low < MIN_ANGLE:
        return None
    stains = np.array([[np.cos(low), np.sin(low)], [np.cos(high), np.sin(high)]]) @ plane.T
    return stains if stains[0, 0] > stains[1, 0] else stains[::-1]


def normalise_reinhard(image: np.ndarray, white: float = WHITE) -> np.ndarray:
    """Give an image the mean and the spread of the reference in a colour space of independent axes.

    Args:
        image: (3, H, W) red, green, blue in [0, white].
        white: value of unstained glass.

    Returns:
        (3, H, W) float32 in [0, white]. An axis in which the image is constant becomes the reference's mean.

    Raises:
        ArrayError: if ``image`` is not (3, H, W).

    Source: Reinhard et al., IEEE Computer Graphics and Applications 2001; reference values of HistomicsTK (Apache-2.0).
    """
    lab = rgb_to_lab(image, white)
    means, deviations = lab.mean(1), lab.std(1)
    spread = np.divide(REFERENCE_DEVIATIONS, deviations, out=np.zeros(3), where=deviations > 1e-9)
    lab = (lab - means[:, None]) * spread[:, None] + REFERENCE_MEANS[:, None]
    colours = np.linalg.inv(RGB_TO_LMS) @ np.exp(np.linalg.inv(LMS_TO_LAB) @ lab)
    return np.clip(colours * (white / WHITE), 0, white).reshape(image.shape).astype(np.float32)


def rgb_to_lab(image: np.ndarray, white: float = WHITE) -> np.ndarray:
    """Lightness, yellow-blue and red-green of the logarithms of the responses of the eye's cones.

    Args:
        image: (3, H, W) in [0, white].
        white: largest value.

    Returns:
        (3, H * W) float64.
    """
    pixels = np.maximum(_pixels(image, white) * WHITE, 1.0)
    return np.asarray(LMS_TO_LAB @ np.log(RGB_TO_LMS @ pixels))


def _absorbances(image: np.ndarray, white: float) -> np.ndarray:
    """Absorbance of every pixel, (3, H * W) float64, >= 0; black counts as one step of 8 bits."""
    return np.asarray(-np.log(np.clip(_pixels(image, white), 1 / WHITE, 1)))


def _pixels(image: np.ndarray, white: float) -> np.ndarray:
    """The image as (3, H * W) float64, white 1."""
    if image.ndim != 3 or image.shape[0] != 3 or image.size == 0:
        raise ArrayError(f"stains are seen in red, green and blue: image must be (3, H, W), got {image.shape}")
    return np.asarray(image, np.float64).reshape(3, -1) / white


class NormaliseStaind(MapTransform):
    """``normalise_macenko`` or ``normalise_reinhard`` for tensors (3, H, W) of a dictionary, in raw units.

    To be used before ``NormaliseIntensityd``. Only for bright-field images of stained tissue; others keep their colours
    if ``method`` is None, which is the default.

    Args:
        keys: entries to change.
        method: ``macenko``, ``reinhard`` or None.
        white: value of unstained glass, 255 in 8-bit images.

    Raises:
        ConfigError: if the method is not known.
    """

    def __init__(self, keys: KeysCollection = "image", method: StainMethod | None = None, white: float = WHITE) -> None:
        super().__init__(keys)
        methods = {None: None, "macenko": normalise_macenko, "reinhard": normalise_reinhard}
        if method not in methods:
            raise ConfigError(f"stain method is {method!r}; give 'macenko', 'reinhard' or None")
        self.normalise, self.white = methods[method], white

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with changed images, (3, H, W) float32; without a method, as they are."""
        result = dict(data)
        if self.normalise is None:
            return result
        for key in self.key_iterator(result):
            image = result[key]
            changed = torch.from_numpy(self.normalise(np.asarray(image), self.white))
            result[key] = type(image)(changed, meta=image.meta) if hasattr(image, "meta") else changed
        return result
