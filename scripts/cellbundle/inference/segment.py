"""Segment tensors: network, decoder and measurements, without files and configuration.

The predictor, which the command line, the service and the MLflow model use, and the evaluation of the engine call these
functions.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from ..device import autocast
from ..instances import Instances
from ..instances.measure import measure
from .sizing import UNSIZED, Size


class Segmentation(NamedTuple):
    """Instances of an image, before they are measured.

    Attributes:
        labels: (H, W) int32, ids 1..N.
        scores: (N,) float32 in [0, 1].
        classes: name of the class of each instance; None without classes.
        size: of the cells, and the magnification that was chosen for it.
    """

    labels: NDArray[np.int32]
    scores: NDArray[np.float32]
    classes: list[str] | None = None
    size: Size = UNSIZED


def forward(
    images: torch.Tensor,
    network: nn.Module,
    inferer: Callable[[torch.Tensor, nn.Module], Any],
    amp: bool = True,
    amp_dtype: str = "auto",
) -> Any:
    """Return the prediction of a network.

    Args:
        images: (N, C, H, W) float32, normalised, on the device of the network.
        network: in evaluation mode.
        inferer: calls the network, for example in tiles.
        amp: mixed precision.
        amp_dtype: see ``cellbundle.device.autocast_dtype``.

    Returns:
        (N, C, H, W) float32; or the tensors of a detector by name, with a list or axis of N each.
    """
    with autocast(images.device, amp, amp_dtype):
        return inferer(images, network)


def decode(
    prediction: Any, decoder: Callable[[dict[str, Any]], dict[str, Any]], class_names: Sequence[str] = ()
) -> Segmentation:
    """Return the instances of one image.

    Args:
        prediction: of the image, without the axis of the batch.
        decoder: a transform ``Decode...d`` of ``cellbundle.transforms``.
        class_names: of the classes 1..K; empty without classes.
    """
    return segmentation(decoder({"pred": prediction}), class_names)


def segmentation(decoded: dict[str, Any], class_names: Sequence[str] = ()) -> Segmentation:
    """Return what a decoder gives, as arrays; ``class_names`` as for ``decode``."""
    numbers = decoded.get("classes") if class_names else None
    classes = None if numbers is None else [class_names[number - 1] for number in numbers]
    return Segmentation(np.asarray(decoded["pred"][0], np.int32), np.asarray(decoded["scores"], np.float32), classes)


def segment(
    images: torch.Tensor,
    network: nn.Module,
    inferer: Callable[[torch.Tensor, nn.Module], Any],
    decoder: Callable[[dict[str, Any]], dict[str, Any]],
    class_names: Sequence[str] = (),
    amp: bool = True,
    amp_dtype: str = "auto",
) -> list[Segmentation]:
    """Segment normalised images (N, C, H, W): ``forward``, then ``decode`` for each image; arguments as there."""
    look = getattr(inferer, "look", None)  # of inferers that find the size of cells
    with torch.inference_mode():
        seen = forward(images, network, look or inferer, amp, amp_dtype)
    if look is None:
        return [decode(one_of_batch(seen, index), decoder, class_names) for index in range(len(images))]
    return [
        segmentation(one.decoded or decoder({"pred": one.prediction}), class_names)._replace(size=one.size)
        for one in seen
    ]


def one_of_batch(prediction: Any, index: int) -> Any:
    """Return the prediction of one image of a batch: a tensor, or a dictionary of tensors from a detector."""
    if isinstance(prediction, dict):
        return {key: value[index] for key, value in prediction.items()}
    return prediction[index]


def measured(
    found: Segmentation, image: NDArray[np.float32], pixel_size_um: tuple[float, float] | None = None
) -> Instances:
    """Return instances with their measurements, scores and the names of their classes, if there are any."""
    table: pd.DataFrame = measure(found.labels, image, pixel_size_um)
    table.insert(1, "score", found.scores)
    if found.classes is not None:
        table.insert(2, "class", np.array(found.classes, object))
    return Instances(found.labels, table, pixel_size_um)
