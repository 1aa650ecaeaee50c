"""What every decoder asks of a prediction."""

import numpy as np
import torch

from ..errors import ArrayError


def check_prediction(prediction: np.ndarray | torch.Tensor) -> None:
    """Raise ``ArrayError`` unless ``prediction`` is (3, H, W) floating point."""
    floating = prediction.is_floating_point() if isinstance(prediction, torch.Tensor) else prediction.dtype.kind == "f"
    if prediction.ndim != 3 or prediction.shape[0] != 3 or not floating:
        raise ArrayError(
            f"prediction must be (3, H, W) floating point, got shape {tuple(prediction.shape)} dtype {prediction.dtype}"
        )
