"""The peers, each under one name and on the same inputs as ours. They are optional, so each imports its own."""

from typing import Any

import numpy as np
import torch

from cellbundle.instances.measure import COLUMNS, INTENSITY_COLUMNS
from cellbundle.kernels.geometry import boxes_and_areas

from .inputs import CROWD_SIZE, Masks

THRESHOLDS = (0.5, 0.75, 0.9)
HOVER_KERNEL = 21  # pixels
CPU = torch.device("cpu")
BOX_NAMES = {name: f"bbox-{k}" for k, name in enumerate(("top", "left", "bottom", "right"))}
SKIMAGE_NAMES = BOX_NAMES | {
    "y": "centroid-0",
    "x": "centroid-1",
    "equivalent_diameter": "equivalent_diameter_area",
}


def cellpose_flows(labels: np.ndarray) -> np.ndarray:
    """Flows of cellpose."""
    from cellpose.dynamics import masks_to_flows_gpu  # noqa: PLC0415  (peers are optional)

    return np.asarray(masks_to_flows_gpu(labels, device=CPU)[0])


def cellpose_masks(prediction: np.ndarray) -> np.ndarray:
    """Instances of cellpose with the same settings."""
    from cellpose.dynamics import compute_masks  # noqa: PLC0415

    options = {"niter": 200, "flow_threshold": 0.4, "min_size": 15, "max_size_fraction": 1.0, "device": CPU}
    return np.asarray(compute_masks(prediction[1:], prediction[0], cellprob_threshold=0.0, **options)).astype(np.int32)


def monai_hover_maps(labels: np.ndarray) -> np.ndarray:
    """Horizontal and vertical maps of MONAI."""
    from monai.transforms import ComputeHoVerMaps  # noqa: PLC0415

    return np.asarray(ComputeHoVerMaps()(labels[None]))


def monai_hover_instances(prediction: np.ndarray) -> np.ndarray:
    """Instances by MONAI's chain of HoVerNet's post-processing, with the same settings."""
    from monai.apps.pathology.transforms.post import array as post  # noqa: PLC0415

    mask = post.GenerateWatershedMask(activation="sigmoid", threshold=0.5)(prediction[:1])
    border = post.GenerateInstanceBorder(kernel_size=HOVER_KERNEL)(mask, prediction[1:])
    distance = post.GenerateDistanceMap()(mask, border)
    markers = post.GenerateWatershedMarkers()(mask, border)
    return np.asarray(post.Watershed()(distance, mask, markers))[0]


def cellpose_precision(maps: tuple[np.ndarray, np.ndarray]) -> list[int]:
    """True positives of cellpose at the three thresholds."""
    from cellpose.metrics import average_precision  # noqa: PLC0415

    return [int(tp) for tp in average_precision(*maps, threshold=list(THRESHOLDS))[1]]


def stardist_precision(maps: tuple[np.ndarray, np.ndarray]) -> list[int]:
    """True positives of StarDist at the three thresholds."""
    from stardist.matching import matching  # noqa: PLC0415

    return [matching(*maps, thresh=threshold).tp for threshold in THRESHOLDS]


def monai_quality(maps: tuple[np.ndarray, np.ndarray]) -> float:
    """PQ of MONAI."""
    from monai.metrics.panoptic_quality import compute_panoptic_quality  # noqa: PLC0415

    true, predicted = (torch.from_numpy(labels) for labels in maps)
    return float(compute_panoptic_quality(predicted, true, remap=False))


def torchmetrics_quality(maps: tuple[np.ndarray, np.ndarray]) -> float:
    """PQ of torchmetrics, of the instances alone: background is its second category."""
    from torchmetrics.functional.detection import panoptic_quality  # noqa: PLC0415

    true, predicted = (torch.from_numpy(np.stack([labels > 0, labels], -1).astype(np.int64))[None] for labels in maps)
    return float(panoptic_quality(predicted, true, things={1}, stuffs={0}, return_per_class=True).flatten()[0])


def plain_jaccard(maps: tuple[np.ndarray, np.ndarray]) -> float:
    """AJI word by word as Kumar et al. (IEEE TMI 2017, algorithm 1) give it: a mask an instance, a loop over pairs."""
    true, predicted = maps
    masks = {j: predicted == j for j in range(1, int(predicted.max(initial=0)) + 1)}
    shared = total = 0
    used = set()
    for i in range(1, int(true.max(initial=0)) + 1):
        own = true == i
        best = (0.0, 0, int(own.sum()), 0)
        for j in np.unique(predicted[own]):
            if j > 0:
                intersection = int((own & masks[j]).sum())
                union = int((own | masks[j]).sum())
                best = max(best, (intersection / union, intersection, union, int(j)), key=lambda pair: pair[:2])
        shared, total = shared + best[1], total + best[2]
        used.add(best[3])
    total += sum(int(mask.sum()) for j, mask in masks.items() if j not in used)
    return shared / total if total else 1.0


def opencv_contours(labels: np.ndarray) -> list[Any]:
    """Contours of OpenCV in the box of every instance."""
    import cv2  # noqa: PLC0415

    boxes, _ = boxes_and_areas(labels, int(labels.max(initial=0)))
    return [
        cv2.findContours(
            (labels[y0:y1, x0:x1] == i).astype(np.uint8),
            cv2.RETR_CCOMP,
            cv2.CHAIN_APPROX_SIMPLE,
            offset=(int(x0), int(y0)),
        )
        for i, (y0, x0, y1, x1) in enumerate(boxes, 1)
    ]


def pycocotools_labels(labels: np.ndarray) -> list[str]:
    """Run lengths by pycocotools of one instance after the other."""
    from pycocotools import mask as coco  # noqa: PLC0415

    turned = np.asfortranarray(labels)
    return [coco.encode((turned == i).view(np.uint8))["counts"].decode() for i in range(1, int(labels.max()) + 1)]


def pycocotools_rles(masks: Masks) -> list[str]:
    """Overlap removal mask by mask on whole images, and pycocotools' run lengths of what is left."""
    from pycocotools import mask as coco  # noqa: PLC0415

    taken = np.zeros(CROWD_SIZE, bool)
    rles = []
    for i in np.argsort(-masks.scores, kind="stable"):
        free = masks.stack[i] & ~taken
        taken |= free
        if free.any():
            rles.append(coco.encode(np.asfortranarray(free.view(np.uint8)))["counts"].decode())
    return rles


def skimage_table(inputs: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    """The same measurements by scikit-image, under our names."""
    from skimage.measure import regionprops_table  # noqa: PLC0415

    labels, image = inputs
    names = {name: SKIMAGE_NAMES.get(name, name) for name in COLUMNS}
    names |= {f"{name}_0": f"{name.replace('_sd', '_std')}-0" for name in INTENSITY_COLUMNS}
    table = regionprops_table(labels, np.moveaxis(image, 0, -1), sorted({n.split("-")[0] for n in names.values()}))
    return {name: table[theirs] for name, theirs in names.items()}
