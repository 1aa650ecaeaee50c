"""Mask R-CNN on a feature extractor of timm with an FPN, made for many small objects.

Torchvision's model with what photographs do not need and cells do: small anchors, no limit of 100 detections, no hidden
resize, masks that stay on their boxes. The normalisation of its ``transform`` is the only one.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from sys import maxsize
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from cellbundle.errors import CheckpointError, ConfigError, DependencyError

from .heads import SparseRoIHeads, Target

logger = logging.getLogger(__name__)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRIDES = (4, 8, 16, 32)  # pixels, of the levels that the FPN takes
FPN_WIDTH = 256
HUB, RANDOM = "hub", "random"


class FeatureBackbone(nn.Module):
    """A feature extractor of timm with a feature pyramid: strides 4, 8, 16, 32, and 64 by pooling.

    Args:
        name: of a timm model with feature maps at strides 4, 8, 16 and 32.
        weights: ``hub`` for timm's own, downloaded; a file of them; ``random``.

    Raises:
        ConfigError: if timm has no such model, or the model has no such maps.
        CheckpointError: if the weights cannot be had, or are another model's.
        DependencyError: if timm is not installed.
    """

    out_channels = FPN_WIDTH

    def __init__(self, name: str = "convnext_tiny", weights: str = RANDOM) -> None:
        super().__init__()
        self.body = create_body(name, weights)
        reductions, channels = self.body.feature_info.reduction(), self.body.feature_info.channels()
        if not set(STRIDES) <= set(reductions):
            raise ConfigError(
                f"backbone {name} has feature maps at strides {reductions}, expected {list(STRIDES)}; choose a "
                "convolutional or hierarchical model such as convnext_tiny, resnet18 or swin_tiny_patch4_window7_224"
            )
        check_sizes(self.body, name)
        self.levels = [reductions.index(stride) for stride in STRIDES]
        self.channels_last = str(getattr(self.body, "output_fmt", "")).endswith("NHWC")
        self.fpn = FeaturePyramidNetwork([channels[i] for i in self.levels], FPN_WIDTH, LastLevelMaxPool())

    def forward(self, images: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        """Feature maps ``0``..``3`` and ``pool``, (N, 256, H / s, W / s) each.

        Args:
            images: (N, 3, H, W), normalised, sides multiples of 32.
        """
        maps = self.body(images)
        chosen = [maps[i].permute(0, 3, 1, 2) if self.channels_last else maps[i] for i in self.levels]
        return self.fpn(OrderedDict((str(i), level) for i, level in enumerate(chosen)))  # type: ignore[no-any-return]


def create_body(name: str, weights: str = RANDOM) -> Any:
    """Feature extractor of timm; see ``FeatureBackbone``."""
    try:
        import timm  # noqa: PLC0415  (optional)
    except ImportError as error:
        raise DependencyError("timm is not installed; pip install 'cellbundle[mask_rcnn]'") from error
    if not timm.is_model(name):
        raise ConfigError(f"backbone is {name!r}, which timm does not have; timm.list_models() names those there are")
    options: dict[str, Any] = {"features_only": True, "pretrained": weights != RANDOM}
    if weights not in (HUB, RANDOM):
        options["pretrained_cfg_overlay"] = {"file": weights}
    if name.startswith("swin"):
        options["strict_img_size"] = False  # these take images of one size only, unless told otherwise
    try:
        return timm.create_model(name, **options)
    except Exception as error:  # what timm raises for broken, foreign and unreachable weights has no common base
        if weights == RANDOM:
            raise ConfigError(f"backbone {name} cannot be a feature extractor: {error}") from error
        raise CheckpointError(
            f"no weights of the backbone {name} from {weights} ({type(error).__name__}: {error}); give a file of "
            f"timm's weights of {name}, hub to download them, or random"
        ) from error


def check_sizes(body: nn.Module, name: str) -> None:
    """Raise ``ConfigError`` if a feature extractor does not take images of any size."""
    device = next(body.parameters()).device
    try:
        with torch.no_grad():
            body.eval()(torch.zeros(1, 3, 2 * STRIDES[-1], 3 * STRIDES[-1], device=device))
    except Exception as error:  # whatever its layers raise
        raise ConfigError(
            f"backbone {name} takes images of one size only ({error}); choose another one, such as convnext_tiny, "
            "resnet18 or swin_tiny_patch4_window7_224"
        ) from error
    body.train()


def as_float32(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """Hook that brings what a head answers to float32.

    Under autocast it would have bfloat16, and torchvision would compute boxes in that: beyond 512 pixels only every
    fourth coordinate exists there.
    """
    if isinstance(outputs, torch.Tensor):
        return outputs.float()
    return type(outputs)(as_float32(module, inputs, one) for one in outputs)


class CellMaskRCNNNetwork(MaskRCNN):
    """Mask R-CNN for images (N, 3, H, W) in [0, 1].

    Args:
        num_classes: with the background.
        backbone: name of a timm feature extractor.
        backbone_weights: see ``FeatureBackbone``.
        anchor_sizes: side of the anchors of each of the five levels in pixels.
        aspect_ratios: heights of the anchors over their widths.
        detections_per_image: so many of the best are kept; None keeps all.
        proposals: so many of the best proposals of a tile are looked at; a warning says when there were more.
        anchors: proposals are looked for among so many of the best anchors of each level; likewise.
        proposal_threshold: lowest objectness of a proposal, in tests.
        score_threshold: lowest score of a detection.
        box_nms_thresh: largest IoU of the boxes of two detections of one class.
        rpn_nms_thresh: largest IoU of two proposals.
        boxes_per_image: so many boxes of each image the heads learn from in a step, a quarter of them with a mask at
            most, which is what most of a step's time goes to.

    Source: He et al., Mask R-CNN, ICCV 2017; ``torchvision.models.detection.MaskRCNN``.
    """

    def __init__(
        self,
        num_classes: int = 2,
        backbone: str = "convnext_tiny",
        backbone_weights: str = RANDOM,
        anchor_sizes: Sequence[int] = (8, 16, 32, 64, 128),
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        detections_per_image: int | None = None,
        proposals: int = 4000,
        anchors: int = 50_000,
        proposal_threshold: float = 0.05,
        score_threshold: float = 0.05,
        box_nms_thresh: float = 0.5,
        rpn_nms_thresh: float = 0.7,
        boxes_per_image: int = 512,
    ) -> None:
        for option, value, least in (
            ("num_classes", num_classes, 2),
            ("proposals", proposals, 1),
            ("anchors", anchors, 1),
        ):
            if value < least:
                raise ConfigError(f"{option} is {value}, expected {least} or more")
        body = FeatureBackbone(backbone, backbone_weights)
        levels = len(STRIDES) + 1
        if len(anchor_sizes) != levels:
            raise ConfigError(f"anchor_sizes has {len(anchor_sizes)} sizes, expected one for each of {levels} levels")
        super().__init__(
            body,
            num_classes,
            image_mean=list(IMAGENET_MEAN),
            image_std=list(IMAGENET_STD),
            rpn_anchor_generator=AnchorGenerator([(size,) for size in anchor_sizes], [tuple(aspect_ratios)] * levels),
            rpn_pre_nms_top_n_test=anchors,
            rpn_post_nms_top_n_test=proposals + 1,  # one more tells that there are more
            rpn_nms_thresh=rpn_nms_thresh,
            box_batch_size_per_image=boxes_per_image,
            box_score_thresh=score_threshold,
            box_nms_thresh=box_nms_thresh,
            box_detections_per_img=maxsize if detections_per_image is None else detections_per_image,
        )
        self.roi_heads = SparseRoIHeads.of(self.roi_heads)
        self.rpn.head.register_forward_hook(as_float32)
        self.rpn.head.register_forward_hook(self._count_anchors)
        self.roi_heads.box_predictor.register_forward_hook(as_float32)
        self.proposals, self.anchors, self.proposal_threshold = proposals, anchors, proposal_threshold
        self.said: set[str] = set()

    def prepare(self, images: torch.Tensor) -> ImageList:
        """Normalise images (N, 3, H, W), once, and fill them up with 0 at the right and below to multiples of 32.

        Torchvision's own preparation would also resize them, in tests even where it is told not to.
        """
        normalised = [self.transform.normalize(image) for image in images]
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in normalised]
        return ImageList(self.transform.batch_images(normalised, STRIDES[-1]), sizes)

    def forward(self, images: torch.Tensor, targets: list[Target] | None = None) -> Any:
        """Losses when training, else detections.

        Args:
            images: (N, 3, H, W) in [0, 1].
            targets: for training, what ``cellbundle.targets.boxes.instance_targets`` gives for each image.

        Returns:
            The five losses by name; or for each image ``boxes`` (D, 4) float x0, y0, x1, y1 in pixels, ``labels`` (D,)
            int64 1..K, ``scores`` (D,), best first, and ``masks`` (D, 28, 28) probabilities on the boxes.

        Raises:
            ConfigError: without targets in training.
        """
        if self.training and targets is None:
            raise ConfigError("training needs targets; call eval() first to detect")
        prepared = self.prepare(images)
        features = {name: level.float() for name, level in self.backbone(prepared.tensors).items()}
        self.rpn.score_thresh = 0.0 if self.training else self.proposal_threshold
        proposals, proposal_losses = self.rpn(prepared, features, targets)
        if not self.training:
            proposals = [self._best(one) for one in proposals]
        detections, losses = self.roi_heads(features, proposals, prepared.image_sizes, targets)
        return {**losses, **proposal_losses} if self.training else detections

    def _best(self, proposals: torch.Tensor) -> torch.Tensor:
        """The proposals of a tile that are looked at."""
        if len(proposals) > self.proposals:
            self._say("proposals", f"a tile has more than {self.proposals} proposals")
        return proposals[: self.proposals]

    def _count_anchors(self, _: nn.Module, inputs: Any, outputs: Any) -> None:
        """Hook that looks at the objectness of all anchors, (N, A, h, w) for each level."""
        if self.training:
            return
        for level in outputs[0]:
            if level[0].numel() <= self.anchors:
                continue
            if (level.sigmoid() >= self.proposal_threshold).flatten(1).sum(1).max() > self.anchors:
                self._say("anchors", f"a level of a tile has more than {self.anchors} anchors that may be cells")

    def _say(self, option: str, what: str) -> None:
        """Warn, once for each option."""
        if option not in self.said:
            logger.warning("%s: the others are left out; give a larger network_def#%s, or smaller tiles", what, option)
        self.said.add(option)
