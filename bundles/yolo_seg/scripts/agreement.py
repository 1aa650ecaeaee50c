# SPDX-License-Identifier: AGPL-3.0-or-later
"""Do we find what ultralytics finds? Compares its own predictor with our chain, before overlaps are removed.

In the folder of the bundle:

python -m scripts.agreement --weights FILE (--input_dir DIR | --datalist FILE --basedir DIR [--split testing])

Further arguments are overrides of configs/inference.json, such as --architecture yolo11s-seg --scale 2. Ultralytics
gets what the network sees as 8-bit RGB images, with the same thresholds; a match is an IoU of 0.5 or more of two masks
of one class.
"""

import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment

from cellbundle.bundles import inference_parser
from cellbundle.decode.masks import decode_detections
from cellbundle.engine.data import find_entries
from cellbundle.inference.detection import DetectionInferer
from cellbundle.inference.segment import one_of_batch
from cellbundle.instances.detections import mask_rles
from cellbundle.instances.rle import coco_rle
from cellbundle.io import read_image
from cellbundle.transforms.resize import resample

from .network import YoloNetwork
from .ultralytics_access import require_ultralytics

MATCH_IOU = 0.5
MANY = 100_000  # detections, none of which ultralytics is to leave out
STEP = 32  # pixels; sides of pieces are multiples of it, so that nobody fills them up

Masks = tuple[list[dict[str, Any]], NDArray[np.int64]]  # COCO's run lengths, and classes from 1


@dataclass
class Agreement:
    """Instances of both sides and the IoU of those that match.

    Attributes:
        ours: number of our instances.
        theirs: number of ultralytics' instances.
        ious: of the matched pairs.
    """

    ours: int = 0
    theirs: int = 0
    ious: list[float] = field(default_factory=list)

    @property
    def f1(self) -> float:
        """Twice the matches over all instances; 1 where nobody finds any."""
        return 2 * len(self.ious) / (self.ours + self.theirs) if self.ours + self.theirs else 1.0

    def add(self, ours: Masks, theirs: Masks) -> None:
        """Match the masks of an image, as many as can be."""
        self.ours, self.theirs = self.ours + len(ours[0]), self.theirs + len(theirs[0])
        if not ours[0] or not theirs[0]:
            return
        iou = np.asarray(coco.iou(ours[0], theirs[0], [0] * len(theirs[0])))
        iou = np.where((iou >= MATCH_IOU) & (ours[1][:, None] == theirs[1]), iou, 0)
        rows, columns = linear_sum_assignment((iou > 0) + iou / len(iou.T) / len(iou), maximize=True)
        self.ious += [value for value in iou[rows, columns].tolist() if value > 0]

    def __str__(self) -> str:
        """As a line of text."""
        mean = np.mean(self.ious) if self.ious else 0.0
        return f"F1 {self.f1:.4f}: {len(self.ious)} of {self.ours} (ours) and {self.theirs}; mean IoU {mean:.4f}"


class Theirs:
    """Ultralytics' own way from an image to masks.

    Args:
        network: whose model and thresholds are used.
        score: detections must have more than this.
    """

    def __init__(self, network: YoloNetwork, score: float) -> None:
        require_ultralytics()
        from ultralytics.models.yolo.segment import SegmentationPredictor  # noqa: PLC0415  (AGPL-3.0, optional)

        device = str(next(network.parameters()).device).removeprefix("cuda:")
        options = {"conf": score, "iou": network.nms_iou, "max_det": MANY, "retina_masks": True, "device": device}
        self.predictor = SegmentationPredictor(overrides={**options, "verbose": False, "save": False})
        model = deepcopy(network.model).eval()  # which ultralytics changes
        model.set_head_attr(max_det=MANY)
        self.predictor.setup_model(model=model, verbose=False)

    def __call__(self, image: torch.Tensor) -> Masks:
        """Masks of an image (3, h, w) in [0, 1]."""
        self.predictor.args.imgsz = list(image.shape[1:])
        picture = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        (result,) = self.predictor(np.ascontiguousarray(picture[..., ::-1]))  # it takes blue, green, red
        if result.masks is None:
            return [], np.zeros(0, np.int64)
        masks = result.masks.data.byte().cpu().numpy()
        rles = coco.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
        return rles, result.boxes.cls.cpu().numpy().astype(np.int64) + 1


def our_masks(network: YoloNetwork, image: torch.Tensor, score: float) -> Masks:
    """Masks of an image (3, h, w) in [0, 1] in one tile."""
    found = DetectionInferer(roi_size=image.shape[1:])(image[None], network)
    detections = decode_detections(one_of_batch(found, 0), lowest_score=score)
    rles = [coco_rle(counts, detections.shape) for counts in mask_rles(detections)]
    return rles, detections.classes


def pieces(image: torch.Tensor, tile: list[int]) -> Iterator[torch.Tensor]:
    """Pieces of an image (3, H, W) side by side, without what is left at the right and below."""
    for top in range(0, image.shape[1], tile[0]):
        for left in range(0, image.shape[2], tile[1]):
            piece = image[:, top : top + tile[0], left : left + tile[1]]
            height, width = (side // STEP * STEP for side in piece.shape[1:])
            if height and width:
                yield piece[:, :height, :width]


def main(weights: str, score: float = 0.25, split: str = "testing", **options: Any) -> Agreement:
    """Compare on the images of a folder, or of a data list, and write a line for each.

    Args:
        weights: checkpoint.
        score: detections must have more than this.
        split: of the data list.
        **options: ``input_dir``, or ``datalist`` and ``basedir``; overrides of configs/inference.json.
    """
    lists = [{key: options.pop(key, None) for key in ("datalist", "basedir")}]
    entries = find_entries(lists, split, require_labels=False, input_dir=options.pop("input_dir", None))
    root = Path(__file__).resolve().parents[1]
    parser = inference_parser(root, {"weights": weights, "network_def#score_threshold": score, **options})
    network, normaliser = (parser.get_parsed_content(key) for key in ("network", "normaliser"))
    scale, tile = parser["scale"], parser["tile_size"]
    device, theirs, total = next(network.parameters()).device, Theirs(network.eval(), score), Agreement()
    for entry in entries:
        image = normaliser({"image": torch.from_numpy(read_image(entry["image"]).data)})["image"]
        seen = resample(image[None].to(device), [max(1, round(side * scale)) for side in image.shape[1:]])[0]
        own = Agreement()
        for piece in pieces(seen, tile):
            with torch.inference_mode():
                masks = our_masks(network, piece, score), theirs(piece)
            own.add(*masks)
            total.add(*masks)
        sys.stdout.write(f"{own}  {entry['image']}\n")
    sys.stdout.write(f"{total}  all {len(entries)} images\n")
    return total


if __name__ == "__main__":
    import fire

    fire.Fire(main, serialize=lambda _: None)  # all is said already
