"""Training losses."""

import torch
from torch import nn
from torch.nn import functional as F

from ..decode.flows import FLOW_SCALE

SMOOTH = 1e-3  # keeps the Dice loss of absent classes finite


class FlowLoss(nn.Module):
    """Half the mean squared error of the flows (times 5) plus binary cross-entropy of the cell logit.

    Args:
        flow_weight: weight of the flow term.
        cell_weight: weight of the cell term.
        dice_weight: weight of the Dice loss of the cells, a mean over images.

    Source: Stringer et al., Nat. Methods 2021; the same terms and weights as VISTA2D.
    """

    def __init__(self, flow_weight: float = 0.5, cell_weight: float = 1.0, dice_weight: float = 0.0) -> None:
        super().__init__()
        self.flow_weight = flow_weight
        self.cells = BinaryLoss(cell_weight, dice_weight)

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss.

        Args:
            prediction: (N, 3, H, W): cell logit, dy * 5, dx * 5; any floating dtype.
            target: (N, 3, H, W) float32: foreground in {0, 1}, dy, dx of unit length.

        Raises:
            ValueError: if the shapes differ.
        """
        check_shapes(prediction, target)
        flow = F.mse_loss(prediction[:, 1:].float(), FLOW_SCALE * target[:, 1:])
        return self.flow_weight * flow + self.cells(prediction[:, :1], target[:, :1])


class BinaryLoss(nn.Module):
    """Binary cross-entropy of the cell logit, and its Dice loss, a mean over images.

    Args:
        bce_weight: weight of the cross-entropy.
        dice_weight: weight of the Dice loss.
        pos_weight: weight of the pixels of cells in the cross-entropy; None for 1.
    """

    def __init__(self, bce_weight: float = 1.0, dice_weight: float = 0.0, pos_weight: float | None = None) -> None:
        super().__init__()
        self.bce_weight, self.dice_weight = bce_weight, dice_weight
        self.pos_weight = None if pos_weight is None else torch.tensor(float(pos_weight))

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss.

        Args:
            prediction: (N, 1, H, W), cell logit; any floating dtype.
            target: (N, 1, H, W) float32: foreground in {0, 1}.

        Raises:
            ValueError: if the shapes differ.
        """
        check_shapes(prediction, target)
        prediction = prediction.float()
        weight = None if self.pos_weight is None else self.pos_weight.to(prediction.device)
        loss = self.bce_weight * F.binary_cross_entropy_with_logits(prediction, target, pos_weight=weight)
        if self.dice_weight:
            loss = loss + self.dice_weight * dice_loss(prediction.sigmoid(), target).mean()
        return loss


def check_shapes(prediction: torch.Tensor, target: torch.Tensor) -> None:
    """Raise ``ValueError`` if the shapes differ: broadcasting would hide the mistake."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must have one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )


def dice_loss(probability: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """One minus the soft Dice coefficient over the last two dimensions; (..., H, W) each, (...) out."""
    overlap = (probability * true).sum((-2, -1))
    return 1 - (2 * overlap + SMOOTH) / (probability.sum((-2, -1)) + true.sum((-2, -1)) + SMOOTH)
