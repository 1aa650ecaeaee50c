"""Training crops that show no cells: noise, clouds, lines and text, so that a network learns to find nothing there."""

import string
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from .intensity import normalise_intensity

FloatArray = np.ndarray[Any, np.dtype[np.float32]]


def draw_noise(random: np.random.RandomState, size: tuple[int, int]) -> FloatArray:
    """Noise of a random coarseness, sometimes with sparse bright pixels or on a gradient: (h, w) float32."""
    sparse = random.uniform() < 0.2
    noise = random.uniform(size=size) < random.uniform(0.001, 0.1) if sparse else random.normal(size=size)
    noise = ndimage.gaussian_filter(noise.astype(np.float32), np.exp(random.uniform(np.log(0.3), np.log(24))))
    fine = random.normal(size=size) * random.uniform(0, 0.3)
    ramp = np.add.outer(*(random.uniform(-2, 2) * np.linspace(0, 1, side) for side in size))
    spread = max(float(noise.std()), 1e-6)
    return (noise / spread + fine + ramp * (random.uniform() < 0.3)).astype(np.float32)


def draw_lines(random: np.random.RandomState, size: tuple[int, int]) -> FloatArray:
    """Bars, frames, polygons and winding lines of several widths, blurred: (h, w) float32."""
    picture = Image.new("F", size[::-1])
    pen = ImageDraw.Draw(picture)
    for _ in range(random.randint(1, 12)):
        value, width = random.uniform(0.3, 1.0), int(np.exp(random.uniform(0, np.log(16))))
        points = random.uniform(-0.2, 1.2, (random.randint(2, 6), 2)) * size[::-1]
        kind = random.uniform()
        if kind < 0.4:  # a vessel, a fibre or a hair
            turns = np.cumsum(random.normal(0, 0.25, 40)) + random.uniform(0, 2 * np.pi)
            points = points[0] + 0.05 * max(size) * np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1), 0)
        if kind > 0.75:
            corners = np.sort(points[:2], axis=0)
            pen.rectangle([*corners[0], *corners[1]], outline=value, width=width)
        else:
            pen.line([tuple(point) for point in points], fill=value, width=width, joint="curve")
    return ndimage.gaussian_filter(np.asarray(picture, np.float32), random.uniform(0, 2))


def draw_text(random: np.random.RandomState, size: tuple[int, int]) -> FloatArray:
    """Lines of random letters: (h, w) float32."""
    picture = Image.new("F", size[::-1])
    pen, height = ImageDraw.Draw(picture), int(np.exp(random.uniform(np.log(9), np.log(64))))
    font = ImageFont.load_default(height)
    letters = list(string.ascii_letters + string.digits + " " * 12)
    for top in range(int(random.uniform(-height, height)), size[0], int(height * random.uniform(1.1, 2))):
        text = "".join(random.choice(letters, size=2 * size[1] // height + 1))
        pen.text((random.uniform(-height, height), top), text, fill=1.0, font=font)
    return ndimage.gaussian_filter(np.asarray(picture, np.float32), random.uniform(0, 1.5))


class RandNegatived(RandomizableTransform, MapTransform):
    """Sometimes replace a crop by one without cells, and its label map by zeros.

    Args:
        keys: image and label entry, (3, H, W) in [0, 1] and (1, H, W).
        prob: probability.
    """

    def __init__(self, keys: KeysCollection = ("image", "label"), prob: float = 0.03) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data``, perhaps with another image and an empty label map."""
        result = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return result
        image, label = (result[key] for key in self.keys)
        size = tuple(image.shape[-2:])
        draw = (draw_noise, draw_lines, draw_text)[self.R.choice(3, p=(0.5, 0.25, 0.25))]
        picture = draw(self.R, size)
        picture = picture + draw_noise(self.R, size) * self.R.uniform(0, 0.1)
        grey = normalise_intensity(picture[None].astype(np.float32))[0]
        grey = 1 - grey if self.R.uniform() < 0.5 else grey
        tint = self.R.uniform(0.5, 1, (3, 1, 1)) if self.R.uniform() < 0.3 else np.ones((3, 1, 1))
        result[self.keys[0]] = torch.from_numpy((1 - (1 - grey) * tint).astype(np.float32))
        result[self.keys[1]] = torch.zeros_like(label)
        return result
