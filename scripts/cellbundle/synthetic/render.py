"""Images of label maps, as a microscope would show them.

An image is rendered in strips of rows, so memory stays at a few copies of the result whatever its size. Everything in
it (domes, halos, haze) is a Gaussian blur of the label map; textures are periodic and illumination is a function of the
position, so the strips join without seams.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage

from .layout import LabelArray, Shape

FloatArray = NDArray[np.floating]

STRIP_ROWS = 512  # rows rendered at once
MARGIN = 3  # rows around a strip, in cell diameters: 4 sigma of the widest blur
TEXTURE_PERIODS = (512, 419)  # pixels; a texture is the sum of two layers, so together they repeat after 215 thousand
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], dtype=np.float32)  # optical density in R, G, B (Ruifrok, Johnston 2001)
EOSIN = np.array([0.09, 0.85, 0.36], dtype=np.float32)  # the same, less saturated than the published vector


@dataclass(frozen=True)
class _Strip:
    """What a renderer needs to know about some rows: arrays of (h, W) float32; textures have mean 0 and deviation 1."""

    inside: FloatArray  # 1 in cells, 0 on the background and on the seam of touching cells
    gain: FloatArray  # brightness of the cell, around 1; 0 on the background
    light: FloatArray  # illumination, up to 1
    fine: FloatArray  # grain of about a pixel
    grain: FloatArray  # grain of about a tenth of a cell
    cloud: FloatArray  # clouds larger than a cell
    fibre: FloatArray  # wavy strands
    diameter: float

    def blur(self, array: FloatArray, diameters: float) -> FloatArray:
        """Gaussian blur with a sigma given in cell diameters."""
        blurred: FloatArray = ndimage.gaussian_filter(array, diameters * self.diameter)
        return blurred


def _fluorescence(strip: _Strip) -> FloatArray:
    """Bright nuclei with chromatin grain on a dark, slightly hazy background."""
    dome = 0.6 + 0.5 * strip.blur(strip.inside, 0.12)
    chromatin = np.clip(1 + 0.16 * strip.grain + 0.06 * strip.fine, 0.3, 2)
    nuclei = strip.blur(0.25 * strip.gain * strip.inside * dome * chromatin, 0.04)
    haze = 0.15 * strip.blur(nuclei, 0.6)
    return strip.light * (0.02 + 0.004 * strip.cloud + nuclei + haze)


def _phase(strip: _Strip) -> FloatArray:
    """Phase contrast: the phase delay darkens, and its low-pass comes back as a bright halo."""
    body = strip.blur(strip.inside, 0.03)
    nucleus = _step(strip.blur(strip.inside, 0.2), 0.72, 0.04)
    organelles = 0.10 * strip.grain + 0.05 * strip.fine
    delay = body * strip.gain * (0.55 + 0.5 * organelles - 0.2 * nucleus * (1 - strip.grain / 2))
    halo = strip.blur(delay, 0.2)
    return strip.light * (0.52 + 0.012 * strip.cloud - 0.55 * delay + 0.75 * halo)


def _he(strip: _Strip) -> FloatArray:
    """Haematoxylin and eosin: purple nuclei in pink, fibrous stroma with a few pale gaps; (h, W, 3)."""
    nucleus = strip.blur(strip.inside, 0.04)
    rim = nucleus * (1 - strip.blur(strip.inside, 0.1))
    chromatin = 0.75 + 0.7 * rim + 0.17 * strip.grain + 0.06 * strip.fine
    near = strip.blur(strip.inside, 0.35)
    gap = _step(strip.cloud - 6 * near, 1.1, 0.12)
    tissue = np.clip(0.38 + 0.07 * strip.fibre + 0.07 * strip.cloud + 0.15 * near, 0.05, None) * (1 - 0.9 * gap)
    haematoxylin = np.clip(strip.gain * nucleus * chromatin, 0, None) + 0.15 * tissue
    eosin = tissue * (1 - 0.5 * nucleus)
    density = haematoxylin[..., None] * HAEMATOXYLIN + eosin[..., None] * EOSIN
    transmitted: FloatArray = 0.95 * strip.light[..., None] * np.exp(-density)
    return transmitted


def _step(values: FloatArray, centre: float, width: float) -> FloatArray:
    """Smooth step from 0 to 1 around ``centre``."""
    step: FloatArray = 0.5 + 0.5 * np.tanh((values - centre) / width)
    return step


@dataclass(frozen=True)
class Kind:
    """One kind of microscopy: its cells, how they look, and its camera.

    Args:
        shape: outlines of the cells.
        paint: turns a strip into a noise-free image in 0..1, (h, W) or (h, W, 3) float32.
        contrast: spread of brightness between cells, sigma of a log-normal.
        vignette: loss of light, relative, from the brightest point to the far border.
        photons: at full scale.
        read_noise: deviation, relative to full scale.
        dtype: of the image; full scale is its largest value.
    """

    shape: Shape
    paint: Callable[[_Strip], FloatArray]
    contrast: float
    vignette: float
    photons: float
    read_noise: float
    dtype: DTypeLike


KINDS = {
    "fluorescence": Kind(Shape(0.65, 0.06), _fluorescence, 0.35, 0.5, 4000, 0.002, np.uint16),
    "phase": Kind(Shape(0.45, 0.11), _phase, 0.2, 0.3, 3000, 0.01, np.uint8),
    "he": Kind(Shape(0.5, 0.09), _he, 0.2, 0.05, 6000, 0.005, np.uint8),
}


def render_image(rng: np.random.Generator, kind: Kind, labels: LabelArray, diameter: float) -> NDArray:
    """Image of a label map.

    Args:
        rng: source of all random numbers.
        kind: one of the values of ``KINDS``.
        labels: (H, W) int32, 0 background, ids 1..N.
        diameter: of a typical cell, in pixels; all structures scale with it.

    Returns:
        (H, W) or (H, W, 3) of ``kind.dtype``.
    """
    gain = rng.lognormal(0, kind.contrast, labels.max(initial=0) + 1).astype(np.float32)
    gain[0] = 0
    sigmas = {"fine": (0.8, 0.8), "grain": (diameter / 12,) * 2, "cloud": (diameter * 1.5,) * 2, "fibre": (1.3, 12.0)}
    textures = {name: _texture(rng, sigma) for name, sigma in sigmas.items()}
    brightest = rng.uniform(0.3, 0.7, 2)
    height, width = labels.shape
    margin = math.ceil(MARGIN * diameter)

    def strip(first: int, last: int) -> _Strip:
        """The rows from ``first`` to before ``last``."""
        ids = labels[first:last]
        y, x = np.ogrid[first:last, :width]
        inside = (ids > 0) & (ids == ndimage.maximum_filter(ids, 3))
        off_centre = (y / height - brightest[0]) ** 2 + (x / width - brightest[1]) ** 2
        views = {name: _sample(texture, y, x) for name, texture in textures.items()}
        views["fibre"] = _sample(textures["fibre"], y + (diameter * views["cloud"]).astype(int), x)
        light = (1 - kind.vignette * off_centre).astype(np.float32)
        return _Strip(inside.astype(np.float32), gain[ids], light, diameter=diameter, **views)

    out = []
    for top in range(0, height, STRIP_ROWS):
        first = max(0, top - margin)
        clean = kind.paint(strip(first, min(height, top + STRIP_ROWS + margin)))
        out.append(_expose(rng, kind, clean[top - first :][:STRIP_ROWS]))
    return np.concatenate(out)


def _texture(rng: np.random.Generator, sigma: tuple[float, float]) -> list[FloatArray]:
    """Layers of smooth noise, (period, period) float32, that repeat without a seam; mean 0, deviation 1 in sum."""
    layers = []
    for period in TEXTURE_PERIODS:
        spectrum = np.fft.rfft2(rng.standard_normal((period, period)))
        noise = np.fft.irfft2(ndimage.fourier_gaussian(spectrum, sigma, n=period), s=(period, period))
        layers.append(((noise - noise.mean()) / noise.std() / math.sqrt(len(TEXTURE_PERIODS))).astype(np.float32))
    return layers


def _sample(texture: list[FloatArray], y: NDArray[np.intp], x: NDArray[np.intp]) -> FloatArray:
    """Texture at pixel positions that broadcast to (h, W)."""
    first, second = (layer[y % len(layer), x % len(layer)] for layer in texture)
    return first + second


def _expose(rng: np.random.Generator, kind: Kind, clean: FloatArray) -> NDArray:
    """What the camera makes of a noise-free image in 0..1: shot noise, read noise, whole numbers."""
    seen = rng.poisson(np.clip(clean, 0, 1) * kind.photons) / np.float32(kind.photons)
    seen += kind.read_noise * rng.standard_normal(clean.shape, dtype=np.float32)
    full_scale = np.iinfo(kind.dtype).max
    return np.rint(np.clip(seen, 0, 1) * full_scale).astype(kind.dtype)
