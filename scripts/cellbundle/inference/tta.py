"""Test-time augmentation: a prediction averaged over mirrored, turned and magnified views of an image."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import ConfigError
from ..flags import as_bool
from .tiling import TiledInferer


class HoverInferer(TiledInferer):
    """A ``TiledInferer`` for predictions of HoVer-Net that can look at an image in several ways.

    Without any of the options it is a ``TiledInferer``. Each view costs the time of one.

    Args:
        flips: also the mirrored image.
        rotations: also turned by 90, 180 and 270 degrees; together with ``flips`` all eight views.
        scales: magnifications, relative to ``scale``.
        **options: of ``TiledInferer``.

    Raises:
        ConfigError: if there are no scales, or one is not positive.
    """

    def __init__(
        self, flips: bool = False, rotations: bool = False, scales: Sequence[float] = (1.0,), **options: Any
    ) -> None:
        super().__init__(**options)
        if not scales:
            raise ConfigError("scales is empty, expected magnifications such as [0.8, 1.0, 1.25]")
        own = options.pop("scale", 1.0)
        self.members = [TiledInferer(**options, scale=own * factor) for factor in scales]
        turned = range(4 if as_bool(rotations) else 1)
        self.views = [(turns, mirrored) for turns in turned for mirrored in {False, as_bool(flips)}]

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Predict one image or a batch of one size; see ``TiledInferer``, the network's channels being those of HoVer.

        Args:
            inputs: (N, C, H, W).
            network: maps (N, C, h, w) to (N, 3 + K, h, w), channel 1 and 2 the horizontal and vertical distance.
            *args: passed to the network.
            **kwargs: passed to the network.

        Returns:
            (N, 3 + K, H, W) float32, the mean over all views and scales.
        """
        total: Any = 0
        for member in self.members:
            for turns, mirrored in self.views:
                answer = member(view_of(inputs, turns, mirrored), network, *args, **kwargs)
                total = total + undo_view(answer, turns, mirrored)
        return total / (len(self.members) * len(self.views))


def view_of(image: torch.Tensor, turns: int, mirrored: bool) -> torch.Tensor:
    """Mirror left and right if wanted, then turn anticlockwise by so many times 90 degrees; (N, C, H, W) in."""
    return torch.rot90(image.flip(-1) if mirrored else image, turns, (-2, -1))


def undo_view(prediction: torch.Tensor, turns: int, mirrored: bool) -> torch.Tensor:
    """Inverse of ``view_of`` for a prediction (N, 3 + K, H, W), whose channels 1 and 2 are a vector that turns too."""
    prediction = torch.rot90(prediction, -turns, (-2, -1))
    right, down = prediction[:, 1:2], prediction[:, 2:3]
    for _ in range(turns):
        right, down = -down, right
    if mirrored:
        prediction, right, down = prediction.flip(-1), -right.flip(-1), down.flip(-1)
    return torch.cat([prediction[:, :1], right, down, prediction[:, 3:]], 1)
