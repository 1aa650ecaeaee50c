"""Colours of stained tissue: bring an image to those of a reference, separate its stains, change them at random."""

from collections.abc import Hashable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from numpy.typing import DTypeLike
from torch.nn import functional as F

from ..errors import ArrayError, ConfigError

StainMethod = Literal["macenko", "reinhard"]
Stain = Literal["auto", "none", "hematoxylin"]
STAINS = ("auto", "none", "hematoxylin")

# Absorbances (R, G, B) of haematoxylin and eosin, and their 99th percentiles in a well-stained slide.
REFERENCE_STAINS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
REFERENCE_AMOUNTS = np.array([1.9705, 1.0308])
# Mean and standard deviation in the colour space of Reinhard, of an H&E slide of TCGA; of images in 0..255.
REFERENCE_MEANS = np.array([8.63234435, -0.11501964, 0.03868433])
REFERENCE_DEVIATIONS = np.array([0.57506023, 0.10403329, 0.01364062])

WHITE, WHITE_16 = 255.0, 65535.0  # of 8 and 16 bits
TRANSPARENT = 0.15  # absorbance up to which a pixel is unstained
EDGE = 1.0  # percent of the stained pixels beyond each of the two stains
HIGH = 99.0  # percentile that stands for the largest amount of a stain
MIN_STAINED = 100  # pixels from which stains can be told apart
MIN_ANGLE = 0.02  # radians between two stains; grey images have one

# Absorbances (R, G, B) of haematoxylin, eosin and DAB (Ruifrok and Johnston, 2001), rows of length 1.
HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
HED /= np.linalg.norm(HED, axis=1, keepdims=True)
MIN_COLOUR = 0.03  # mean difference between the channels from which an image is coloured
GLASS = 1.0  # percentile of the absorbances that is the unstained glass
DAB_STRENGTH = (0.5, 2.5)  # range of a factor of its amount, beside that of eosin
SAMPLED = 1 << 14  # pixels in which stains are looked for
MIN_BROWN = 0.3  # share of the stained pixels that are brown, from which an image is one of immunohistochemistry
BROWN = 1.1  # ratio of the absorbances of blue and green from which a pixel is brown
MIN_BRIGHTNESS = 0.35  # mean from which an image is bright-field

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


def _absorbances(image: np.ndarray, white: float, dtype: DTypeLike = np.float64) -> np.ndarray:
    """Absorbance of every pixel, (3, H * W) of a floating type, >= 0; black counts as one step of 8 bits."""
    return np.asarray(-np.log(np.clip(_pixels(image, white, dtype), 1 / WHITE, 1)))


def _glass(absorbances: np.ndarray) -> np.ndarray:
    """Absorbance (3, 1) of unstained glass, which is grey in many images and no mixture of stains."""
    return np.percentile(absorbances, GLASS, axis=1, keepdims=True)


def _pixels(image: np.ndarray, white: float, dtype: DTypeLike = np.float64) -> np.ndarray:
    """The image as (3, H * W) of a floating type, white 1."""
    if image.ndim != 3 or image.shape[0] != 3 or image.size == 0:
        raise ArrayError(f"stains are seen in red, green and blue: image must be (3, H, W), got {image.shape}")
    return np.asarray(image, dtype).reshape(3, -1) / white


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


def is_stained(image: np.ndarray) -> bool:
    """Whether an image looks like stained tissue in bright field: coloured, and bright on the whole.

    Args:
        image: (C, H, W), any units; the largest value counts as white.
    """
    if len(image) != len(HED) or not image.size:
        return False
    sample = np.asarray(image[:, ::4, ::4], np.float32)
    white = max(float(sample.max()), 1e-9)
    colour = (sample.max(0) - sample.min(0)).mean() / white
    return bool(colour >= MIN_COLOUR and sample.mean() >= MIN_BRIGHTNESS * white)


def separate_stains(image: np.ndarray, white: float = WHITE) -> np.ndarray:
    """Amounts of haematoxylin, eosin and DAB.

    Args:
        image: (3, H, W) red, green, blue in [0, white].
        white: value of unstained glass.

    Returns:
        (3, H, W) float32; slightly negative where a colour is none of the three.

    Source: Ruifrok and Johnston, Analytical and Quantitative Cytology and Histology 2001.
    """
    amounts = np.linalg.solve(HED.T, _absorbances(image, white))
    return amounts.reshape(image.shape).astype(np.float32)


def brown_share(image: np.ndarray, white: float = WHITE) -> float:
    """Share of the stained pixels of an image (3, H, W) that are brown, as DAB makes them.

    DAB absorbs blue most; haematoxylin and eosin absorb green most.
    """
    absorbances = _absorbances(image[:, ::4, ::4], white)
    absorbances = absorbances - _glass(absorbances)
    stained = absorbances.sum(0) > 2 * TRANSPARENT
    n = np.count_nonzero(stained)
    return np.count_nonzero(stained & (absorbances[2] > BROWN * absorbances[1])) / n if n >= MIN_STAINED else 0.0


def read_haematoxylin(image: np.ndarray, white: float = WHITE) -> np.ndarray:
    """The amount of haematoxylin, which nuclei take up, as a picture of bright nuclei on a dark ground.

    Args:
        image: (3, H, W) red, green, blue in [0, white].
        white: value of the light.

    Returns:
        (1, H, W) float32, >= 0.
    """
    return np.maximum(separate_stains(image, white)[:1], 0)


def read_stain(image: np.ndarray, stain: Stain) -> np.ndarray:
    """Replace an image of stained tissue by the haematoxylin in it, if that is wanted.

    Args:
        image: (C, H, W) of 8 bits, or of 16 where there are values above 255.
        stain: ``auto`` replaces images of immunohistochemistry, in which DAB covers nuclei or the ground between them;
            ``hematoxylin`` replaces all images; ``none`` no image.

    Returns:
        (1, H, W) float32, or ``image`` itself.

    Raises:
        ArrayError: for ``hematoxylin`` and an image that is not (3, H, W).
    """
    if stain == "none" or (stain == "auto" and not is_stained(image)):
        return image
    white = WHITE if image.max(initial=0) <= WHITE else WHITE_16
    wanted = stain == "hematoxylin" or brown_share(image, white) >= MIN_BROWN
    return read_haematoxylin(image, white) if wanted else image


class RandStaind(RandomizableTransform, MapTransform):
    """Change colour and amount of the two stains of an image at random; images that are not stained stay as they are.

    Slides of other laboratories and scanners differ in this way. Sometimes the second stain, eosin, is shown in the
    colour of DAB and in a part of the image only, which makes immunohistochemistry of H&E. To be used before
    ``NormaliseIntensityd``.

    Args:
        keys: image entries (C, H, W) in raw units.
        prob: probability of a change.
        factor: largest relative change of the amount of each stain, either way.
        offset: largest change of the amount of each stain in all pixels, either way, relative to its 99th percentile.
        strength: range of a factor of both stains, drawn log-uniformly: from faded to overstained.
        colour: standard deviation of the change of each absorbance of a stain.
        exchange: probability that the stains are haematoxylin and DAB.
        white: value of the light.

    Source: Tellez et al., IEEE Transactions on Medical Imaging 2018; the stains of an image as in ``find_stains``.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        prob: float = 0.6,
        factor: float = 0.25,
        offset: float = 0.03,
        strength: tuple[float, float] = (0.5, 1.6),
        colour: float = 0.05,
        exchange: float = 0.35,
        white: float = WHITE,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=prob)
        self.factor, self.offset, self.strength, self.colour = factor, offset, strength, colour
        self.exchange, self.white = exchange, white

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with changed images, float32 in [0, white]."""
        result = dict(data)
        self.randomize(None)
        if self._do_transform:
            for key in self.key_iterator(result):
                image = np.asarray(result[key], np.float32)
                if is_stained(image):
                    result[key] = torch.from_numpy(self._changed(image))
        return result

    def _changed(self, image: np.ndarray) -> np.ndarray:
        """The image with other stains; as it is if its stains cannot be told apart."""
        size = image.shape[-2:]
        absorbances = _absorbances(image, self.white, np.float32)
        sample = absorbances[:, :: max(1, absorbances.shape[1] // SAMPLED)]
        glass = _glass(sample).astype(np.float32)
        stains = find_stains((sample - glass).astype(np.float64))
        if stains is None:
            return image
        amounts = np.linalg.pinv(stains.T).astype(np.float32) @ (absorbances - glass)
        largest = np.percentile(amounts[:, :: max(1, amounts.shape[1] // SAMPLED)], HIGH, axis=1, keepdims=True)
        amounts /= np.maximum(largest, 1e-3).astype(np.float32)
        factors = self.R.uniform(1 - self.factor, 1 + self.factor, (2, 1)) * np.exp(
            self.R.uniform(*np.log(self.strength))
        )
        amounts = amounts * factors.astype(np.float32) + self.R.uniform(-self.offset, self.offset, (2, 1)).astype("f4")
        if self.R.uniform() < self.exchange:
            stains, largest = HED[[0, 2]], np.ones((2, 1))
            amounts = np.maximum(amounts, 0)
            amounts[1] *= np.float32(np.exp(self.R.uniform(*np.log(DAB_STRENGTH)))) * self._region(size).reshape(-1)
        stains = stains + self.R.normal(scale=self.colour, size=stains.shape)
        colours = np.exp(-((stains * largest).T.astype(np.float32) @ amounts))
        return np.clip(np.float32(self.white) * colours, 0, self.white).reshape(image.shape)

    def _region(self, size: tuple[int, int]) -> np.ndarray:
        """Smooth share (H, W) float32 in [0, 1] of a stain that is in some parts of the tissue only."""
        coarse = torch.from_numpy(4 * self.R.normal(size=(1, 1, *self.R.randint(2, 9, 2))).astype(np.float32))
        smooth = F.interpolate(coarse, size=size, mode="bicubic", align_corners=False)[0, 0]
        return torch.sigmoid(smooth + float(self.R.normal())).numpy()
