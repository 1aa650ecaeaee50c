"""Find out how large the cells of an image are, and show them to the network at the size that it knows best."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from ..errors import ConfigError
from ..instances.measure import diameters
from .tiling import TiledInferer

Diameter = float | Literal["auto", "none"]
Decoded = dict[str, Any]
See = Callable[[torch.Tensor, float], torch.Tensor]  # prediction of images (N, C, H, W) at a magnification

REDUCED = 0.4  # magnification of the first look, which costs a sixth of one at the bundle's scale
NEAR = 1.3  # ratio of magnifications below which another look shows nothing new
LIMITS = (0.1, 2.5)  # smallest and largest magnification
ENLARGED = 1.6  # smallest magnification above 1 that is worth its time
MORE_LOOKS = 3
DOUBTFUL = 0.9  # mean score of the cells of the first look below which the bundle's own scale is looked at, too
HANDICAP = 0.01  # of the score of the first look
SURE = 0.8  # score of the cells that tell the size
MIN_CELLS = 3  # such cells from which their size is believed
SAMPLED = 2048**2  # pixels of an image from which its size is found in windows
WINDOW, WINDOWS = 1024, 4  # their side in pixels, and their number


class Size(NamedTuple):
    """How large the cells of an image are.

    Attributes:
        diameter: typical diameter in pixels; None if it was not asked for or not found.
        magnification: of the image on top of the bundle's own scale.
    """

    diameter: float | None = None
    magnification: float = 1.0

    def __str__(self) -> str:
        """For people."""
        cells = "cells of unknown size" if self.diameter is None else f"cells of about {self.diameter:.0f} px"
        return f"{cells}, magnification {self.magnification:.2f}"


UNSIZED = Size()


class Look(NamedTuple):
    """What a network sees in an image at one magnification.

    Attributes:
        size: of the cells that are found, and the magnification.
        prediction: (K, H, W) float32.
        decoded: of the prediction; None if nobody has asked yet.
        certainty: mean score of all cells, also of those that the decoder drops; 0 without any.
    """

    size: Size
    prediction: torch.Tensor
    decoded: Decoded | None = None
    certainty: float = 0.0


def check_diameter(diameter: Diameter | None) -> Diameter:
    """``diameter`` if it can be one; None is ``none``."""
    if diameter is None or diameter in ("auto", "none"):
        return diameter or "none"
    if isinstance(diameter, str) or not diameter > 0:
        raise ConfigError(f"diameter is {diameter}, expected a number of pixels above 0, auto or none")
    return float(diameter)


class SizedInferer(TiledInferer):
    """A ``TiledInferer`` that looks again where cells do not have the size that the network knows best.

    The first look is at a reduced image, which costs little and shows large cells whole. The next is at the size of the
    cells that were found, or at ``scale`` if there were none or they are doubtful. The look with the highest mean score
    counts, so that a size that was found wrongly costs time only.

    Args:
        decoder: finds the cells of a prediction: ``cellbundle.transforms.DecodeFlowsd``.
        best_diameter: of the cells that ``scale`` suits best, pixels.
        diameter: of the cells of all images, pixels; ``auto`` finds it for each image, ``none`` leaves ``scale``.
        **options: of ``TiledInferer``.

    Raises:
        ConfigError: for a diameter that cannot be.
    """

    def __init__(
        self,
        decoder: Callable[[Decoded], Decoded],
        best_diameter: float,
        diameter: Diameter = "auto",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.decoder, self.best_diameter, self.diameter = decoder, best_diameter, check_diameter(diameter)

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """Predict one image or a batch; arguments and result as in ``TiledInferer``."""
        looks = self.look(inputs, network, *args, **kwargs)
        return torch.stack([look.prediction for look in looks]) if len(looks) > 1 else looks[0].prediction[None]

    def look(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> list[Look]:
        """As a call, with the size of the cells of each image."""

        def see(images: torch.Tensor, magnification: float) -> torch.Tensor:
            return self.predict(images, network, *args, magnification=magnification, **kwargs)

        if self.diameter != "auto":
            known = None if self.diameter == "none" else self.diameter
            size = Size(known, 1.0 if known is None else self.best_diameter / known)
            return [Look(size, prediction) for prediction in see(inputs, size.magnification)]
        if inputs[0, 0].numel() > SAMPLED:
            sizes = [self._search(windows(image), see).size for image in inputs]
            return [
                Look(size, see(image[None], size.magnification)[0]) for image, size in zip(inputs, sizes, strict=True)
            ]
        reduced = see(inputs, REDUCED)
        return [self._search(one[None], see, first[None]) for one, first in zip(inputs, reduced, strict=True)]

    def _search(self, images: torch.Tensor, see: See, reduced: torch.Tensor | None = None) -> Look:
        """The look at which the cells are surest.

        Args:
            images: one image, or windows of one, (N, C, H, W).
            see: predicts at a magnification.
            reduced: the first look, if it is there.
        """
        looks = [self._decoded(see(images, REDUCED) if reduced is None else reduced, REDUCED)]
        if looks[0].certainty < DOUBTFUL:
            looks.append(self._decoded(see(images, 1.0), 1.0))
        for _ in range(MORE_LOOKS):
            wanted = self._magnification(surest(looks).size.diameter)
            if min(abs(np.log(wanted / look.size.magnification)) for look in looks) < np.log(NEAR):
                break
            looks.append(self._decoded(see(images, wanted), wanted))
        return surest(looks)

    def _magnification(self, diameter: float | None) -> float:
        """Magnification for cells of a diameter that was found."""
        wanted = 1.0 if diameter is None else float(np.clip(self.best_diameter / diameter, *LIMITS))
        return 1.0 if 1 < wanted < ENLARGED else wanted

    def _decoded(self, predictions: torch.Tensor, magnification: float) -> Look:
        """What is in the predictions (N, K, H, W) of an image or of its windows."""
        found = [self.decoder({"pred": prediction}) for prediction in predictions]
        scores = np.concatenate([one["all_scores"] for one in found])
        if not len(scores):
            return Look(Size(None, magnification), predictions[0], found[0])
        sure = np.concatenate([diameters(np.asarray(one["all_labels"])) for one in found])[scores >= SURE]
        size = Size(float(np.median(sure)) if len(sure) >= MIN_CELLS else None, magnification)
        return Look(size, predictions[0], found[0], float(scores.mean()))


def surest(looks: Sequence[Look]) -> Look:
    """The look with the highest certainty; of equal ones, at the magnification that is nearest to 1.

    Small cells are missed in a reduced image, whose certainty therefore counts a little less.
    """

    def worth(look: Look) -> tuple[float, float]:
        reduced = look.size.magnification == REDUCED
        return look.certainty - HANDICAP * reduced, -abs(np.log(look.size.magnification))

    return max(looks, key=worth)


def windows(image: torch.Tensor) -> torch.Tensor:
    """Those windows of a large image (C, H, W) that show most: (N, C, h, w) of ``WINDOW`` pixels at most.

    They lie on a grid; the standard deviation of their pixels counts.
    """
    height, width = (min(side, WINDOW) for side in image.shape[-2:])
    rows, columns = (range(0, max(side - WINDOW, 0) + 1, WINDOW) for side in image.shape[-2:])
    cut = [image[:, y : y + height, x : x + width] for y in rows for x in columns]
    contrast = [float(one[:, ::4, ::4].std()) for one in cut]
    return torch.stack([cut[i] for i in sorted(np.argsort(contrast)[::-1][:WINDOWS].tolist())])
