"""What networks with losses of their own need in MONAI's trainer: their targets, and the sum of their losses."""

from collections.abc import Mapping
from typing import Any

import torch
from monai.utils.enums import CommonKeys as Keys
from torch import nn

from ..errors import ConfigError
from ..targets.boxes import instance_targets

Prepared = tuple[torch.Tensor, list[dict[str, torch.Tensor]], tuple[list[dict[str, torch.Tensor]]], dict[str, Any]]


def prepare_instances(
    batch: Mapping[str, Any], device: torch.device, non_blocking: bool = False, **to_options: Any
) -> Prepared:
    """``prepare_batch`` of a trainer whose network takes ``(images, targets)``.

    Args:
        batch: ``image`` (N, C, H, W) and ``label`` of ``cellbundle.transforms.InstanceMapsd``, each (N, H, W).
        device: where all goes.
        non_blocking: see ``torch.Tensor.to``.
        **to_options: of ``torch.Tensor.to`` for the images.

    Returns:
        Images, the list of ``cellbundle.targets.boxes.instance_targets`` as tensors, and what the network gets beside
        the images: that list, and no keywords.
    """
    maps = batch[Keys.LABEL]
    targets = [
        {
            name: torch.from_numpy(value).to(device, non_blocking=non_blocking)
            for name, value in instance_targets(labels.numpy(), classes.numpy()).items()  # type: ignore[attr-defined]
        }
        for labels, classes in zip(maps["label_map"], maps["class_map"], strict=True)
    ]
    images = batch[Keys.IMAGE].to(device, non_blocking=non_blocking, **to_options)
    return images, targets, (targets,), {}


class SumOfLosses(nn.Module):
    """Adds up the losses that a network computes itself.

    Attributes:
        terms: the parts of the last loss by name, which ``History`` writes down.

    Args:
        weights: of the losses by name; those that are not named count once.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.weights = dict(weights or {})
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, losses: Mapping[str, torch.Tensor], targets: Any = None) -> torch.Tensor:
        """Scalar sum; ``targets`` are there because MONAI's trainer passes them.

        Args:
            losses: scalars by name.
            targets: not used.

        Raises:
            ConfigError: if a weight is that of no loss.
        """
        if unknown := self.weights.keys() - losses.keys():
            raise ConfigError(
                f"there are weights of {', '.join(sorted(unknown))}, but the losses are {', '.join(sorted(losses))}"
            )
        self.terms = {name: loss.detach().float() for name, loss in losses.items()}
        return torch.stack([self.weights.get(name, 1.0) * loss.float() for name, loss in losses.items()]).sum()
