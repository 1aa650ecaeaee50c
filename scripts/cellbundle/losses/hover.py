"""The loss of HoVer-Net: foreground, distances and classes.

Every term is a mean over images of a value for one image, so that gradients averaged over processes, or over
accumulated batches, are those of one large batch.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import ConfigError
from .flows import SMOOTH, dice_loss

SOBEL_SIZE = 5


class HoverLoss(nn.Module):
    """Weighted sum of six terms, the parts of the last call of which are in ``terms``, unweighted.

    np: binary cross-entropy and Dice. hv: squared error of the distances, and of their slopes inside instances. nc:
    weighted cross-entropy and Dice, averaged over the classes that an image has.

    Args:
        np_bce_weight: of the cross-entropy of the foreground.
        np_dice_weight: of its Dice loss.
        hv_mse_weight: of the squared error of the distances.
        hv_msge_weight: of the squared error of their slopes.
        nc_ce_weight: of the cross-entropy of the classes.
        nc_dice_weight: of their Dice loss.
        class_weights: one for each class, the background first; by default all 1.

    Source: Graham et al., Med. Image Anal. 2019.
    """

    def __init__(
        self,
        np_bce_weight: float = 1.0,
        np_dice_weight: float = 1.0,
        hv_mse_weight: float = 2.0,
        hv_msge_weight: float = 2.0,
        nc_ce_weight: float = 1.0,
        nc_dice_weight: float = 1.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.weights = {
            "np_bce": np_bce_weight,
            "np_dice": np_dice_weight,
            "hv_mse": hv_mse_weight,
            "hv_msge": hv_msge_weight,
            "nc_ce": nc_ce_weight,
            "nc_dice": nc_dice_weight,
        }
        self.class_weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss.

        Args:
            prediction: (N, 3 + K, H, W): logit of the foreground, horizontal and vertical distance, logits of K
                classes; any floating dtype.
            target: (N, 3, H, W) float32: foreground in {0, 1} and the distances; (N, 4, H, W) with the class, 0..K - 1.

        Raises:
            ValueError: if the shapes do not fit.
            ConfigError: if there are not as many class weights as classes.
        """
        n_classes = prediction.shape[1] - 3
        if target.shape != (len(prediction), 4 if n_classes else 3, *prediction.shape[2:]):
            raise ValueError(
                "prediction must be (N, 3 + K, H, W) and target (N, 4, H, W), or (N, 3, H, W) without classes; "
                f"got {tuple(prediction.shape)} and {tuple(target.shape)}"
            )
        prediction = prediction.float()
        cells, distances = target[:, 0], target[:, 1:3]
        terms = {
            "np_bce": F.binary_cross_entropy_with_logits(prediction[:, 0], cells),
            "np_dice": dice_loss(prediction[:, 0].sigmoid(), cells).mean(),
            "hv_mse": F.mse_loss(prediction[:, 1:3], distances),
            "hv_msge": slope_error(prediction[:, 1:3], distances, cells),
        }
        if n_classes:
            terms["nc_ce"], terms["nc_dice"] = self._class_terms(prediction[:, 3:], target[:, 3].long())
        self.terms = {name: value.detach() for name, value in terms.items()}
        return torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()

    def _class_terms(self, logits: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n_classes = logits.shape[1]
        if self.class_weights is None:
            weights = torch.ones(n_classes, device=logits.device)
        elif len(self.class_weights) == n_classes:
            weights = self.class_weights.to(logits.device)
        else:
            raise ConfigError(f"{len(self.class_weights)} class weights for {n_classes} classes (with the background)")
        each = F.cross_entropy(logits, classes, weight=weights, reduction="none").sum((1, 2))
        entropy = (each / weights[classes].sum((1, 2)).clamp_min(SMOOTH)).mean()
        true = F.one_hot(classes, n_classes).movedim(-1, 1).to(logits.dtype)
        present = true.amax((2, 3))
        dice = dice_loss(logits.softmax(1), true)
        return entropy, ((dice * present).sum(1) / present.sum(1)).mean()


def slope_error(distances: torch.Tensor, true: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the slope of each distance in its own direction, over the pixels of instances.

    Args:
        distances: (N, 2, H, W), horizontal and vertical.
        true: (N, 2, H, W).
        cells: (N, H, W), 1 inside instances, where the error counts. An image without any has none.

    Returns:
        Scalar.
    """
    kernel = sobel_kernels(distances.device)
    # The filter is linear, so the difference of slopes is the slope of the difference.
    difference = F.conv2d(distances - true, kernel, padding=SOBEL_SIZE // 2, groups=2)
    errors = (difference.square() * cells[:, None]).sum((1, 2, 3))
    return (errors / (2 * cells.sum((1, 2))).clamp_min(1)).mean()


def sobel_kernels(device: torch.device | None = None, size: int = SOBEL_SIZE) -> torch.Tensor:
    """Horizontal and vertical slope, (2, 1, size, size): the offset over its squared length, as in HoVer-Net."""
    offsets = torch.arange(size, dtype=torch.float32, device=device) - size // 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    length = (x.square() + y.square()).clamp_min(1)  # 0 only in the middle, where both offsets are 0 too
    return torch.stack([x / length, y / length])[:, None]
