"""Training losses."""

import torch
from torch import nn
from torch.nn import functional as F

from .decode.flows import FLOW_SCALE


class FlowLoss(nn.Module):
    """Half the mean squared error of the flows (times 5) plus binary cross-entropy of the cell logit.

    Args:
        flow_weight: weight of the flow term.
        cell_weight: weight of the cell term.

    Source: Stringer et al., Nat. Methods 2021; the same terms and weights as VISTA2D.
    """

    def __init__(self, flow_weight: float = 0.5, cell_weight: float = 1.0) -> None:
        super().__init__()
        self.flow_weight, self.cell_weight = flow_weight, cell_weight

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss.

        Args:
            prediction: (N, 3, H, W): cell logit, dy * 5, dx * 5; any floating dtype.
            target: (N, 3, H, W) float32: foreground in {0, 1}, dy, dx of unit length.

        Raises:
            ValueError: if the shapes differ.
        """
        if prediction.shape != target.shape:
            raise ValueError(
                f"prediction and target must have one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}"
            )
        prediction = prediction.float()
        flow = F.mse_loss(prediction[:, 1:], FLOW_SCALE * target[:, 1:])
        cell = F.binary_cross_entropy_with_logits(prediction[:, 0], target[:, 0])
        return self.flow_weight * flow + self.cell_weight * cell
