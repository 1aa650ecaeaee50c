"""What every decoder asks of a prediction."""

import numpy as np
import torch

from ..errors import ArrayError


def check_prediction(prediction: np.ndarray | torch.Tensor, channels: int = 3) -> None:
    """Raise ``ArrayError`` unless ``prediction`` is (channels, H, W) floating point."""
    floating = prediction.is_floating_point() if isinstance(prediction, torch.Tensor) else prediction.dtype.kind == "f"
    if prediction.ndim != 3 or prediction.shape[0] != channels or not floating:
        raise ArrayError(
            f"prediction must be ({channels}, H, W) floating point, got shape {tuple(prediction.shape)} dtype "
            f"{prediction.dtype}"
        )
