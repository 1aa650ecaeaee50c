"""What ``benchmark_kernels.py`` compares: each kernel with each peer, on inputs made from label maps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage

from cellbundle.decode.flows import FLOW_SCALE, decode_flows
from cellbundle.decode.hover import decode_hover
from cellbundle.kernels.geometry import boxes_and_areas
from cellbundle.labels import renumber
from cellbundle.masks import labels_to_rles, masks_to_labels
from cellbundle.measure import COLUMNS, INTENSITY_COLUMNS, measure
from cellbundle.metrics import image_scores
from cellbundle.polygons import outlines
from cellbundle.targets.flows import labels_to_flows
from cellbundle.targets.hover import labels_to_hover

THRESHOLDS = (0.5, 0.75, 0.9)
CPU = torch.device("cpu")
HOVER_KERNEL = 21  # pixels
EARLY_STOP = 0.01  # pixels
CROWD_SIZE = (520, 704)  # of an image of LIVECell
GROWTH = 4  # pixels


class Masks(NamedTuple):
    """N overlapping masks: (h, w) bool crops, (N, 4) boxes, (N,) scores, and as (N, H, W) bool."""

    crops: list[np.ndarray]
    boxes: np.ndarray
    scores: np.ndarray
    stack: np.ndarray


@dataclass(frozen=True)
class Case:
    """One row: a kernel of ours, a peer, and what it means that they agree.

    Attributes:
        part: what is computed.
        peer: whose function it is.
        package: distribution that has it.
        goal: smallest ratio of the times that satisfies.
        inputs: (H, W) int32 label map, ids 1..N, to the arguments of both; not timed.
        ours: computes our result from the inputs.
        theirs: computes the peer's.
        error: (inputs, our result, the peer's) to how far they are apart, >= 0.
        error_name: what that number is.
        largest_error: what still counts as equal.
        grows: the inputs grow with the label map.
    """

    part: str
    peer: str
    package: str
    goal: float
    inputs: Callable[[np.ndarray], Any]
    ours: Callable[[Any], Any]
    theirs: Callable[[Any], Any]
    error: Callable[[Any, Any, Any], float]
    error_name: str
    largest_error: float
    grows: bool = True


# Inputs


def same(labels: np.ndarray) -> np.ndarray:
    """The label map itself."""
    return labels


def with_flaws(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A label map and a prediction of it: some instances missed, some merged, outlines off by a pixel, false ones."""
    rng = np.random.default_rng(labels.size)
    n = int(labels.max(initial=0))
    names = np.arange(n + 1)
    names[1:][rng.random(n) < 0.05] = 0
    merged = np.flatnonzero(rng.random(n) < 0.03) + 1
    names[merged] = names[np.maximum(merged - 1, 1)]
    eroded = ndimage.minimum_filter(labels, 3) == ndimage.maximum_filter(labels, 3)
    thinner = rng.random(n + 1) < 0.5
    predicted = np.where(thinner[labels] & ~eroded, 0, names[labels])
    specks = (rng.random(labels.shape) < 1e-4) & (predicted == 0)
    predicted[specks] = n + 1 + np.arange(np.count_nonzero(specks))
    return labels, renumber(predicted)[0]


def noisy_flows(labels: np.ndarray) -> np.ndarray:
    """What a good network would answer: (3, H, W) float32 cell logit and flows times 5, with noise."""
    rng = np.random.default_rng(labels.size)
    flows = FLOW_SCALE * labels_to_flows(labels, across_borders=True) + rng.normal(0, 1, (2, *labels.shape))
    logit = np.where(labels > 0, 4.0, -4.0) + rng.normal(0, 1.5, labels.shape)
    return np.concatenate([logit[None], flows]).astype(np.float32)


def noisy_hover(labels: np.ndarray) -> np.ndarray:
    """What a good network would answer: (3, H, W) float32 nucleus logit, horizontal and vertical map, with noise."""
    rng = np.random.default_rng(labels.size)
    maps = labels_to_hover(labels) + rng.normal(0, 0.03, (2, *labels.shape))
    logit = np.where(labels > 0, 4.0, -4.0) + rng.normal(0, 0.5, labels.shape)
    return np.concatenate([logit[None], maps]).astype(np.float32)


def with_image(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A label map and a (1, H, W) image in double precision, in which scikit-image sums."""
    return labels, np.random.default_rng(labels.size).normal(100, 30, (1, *labels.shape))


def crowd(n: int) -> Callable[[np.ndarray], Masks]:
    """Makes n overlapping masks of the instances of a label map: grown by ``GROWTH`` pixels, put anywhere."""

    def draw(labels: np.ndarray) -> Masks:
        rng = np.random.default_rng(n)
        height, width = CROWD_SIZE
        boxes, _ = boxes_and_areas(labels, int(labels.max(initial=0)))
        fitting = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] + 2 * GROWTH < CROWD_SIZE).all(1))
        masks, places = [], []
        for i in rng.choice(fitting, n):
            y0, x0, y1, x1 = boxes[i]
            crop = ndimage.binary_dilation(np.pad(labels[y0:y1, x0:x1] == i + 1, GROWTH), iterations=GROWTH)
            y, x = rng.integers(0, height - crop.shape[0]), rng.integers(0, width - crop.shape[1])
            masks.append(crop)
            places.append((y, x, y + crop.shape[0], x + crop.shape[1]))
        stack = np.zeros((n, height, width), bool)
        for mask, full, (y0, x0, y1, x1) in zip(masks, stack, places, strict=True):
            full[y0:y1, x0:x1] = mask
        return Masks(masks, np.array(places), rng.random(n), stack)

    return draw


# Peers


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


def rles_of_crops(masks: Masks) -> list[str]:
    """Ours, from the masks in their boxes, as detectors give them."""
    return labels_to_rles(masks_to_labels(masks.crops, masks.scores, CROWD_SIZE, masks.boxes)[0])


def rles_of_stack(masks: Masks) -> list[str]:
    """Ours, from the masks as whole images."""
    return labels_to_rles(masks_to_labels(masks.stack, masks.scores)[0])


def skimage_table(inputs: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    """The same measurements by scikit-image, under our names."""
    from skimage.measure import regionprops_table  # noqa: PLC0415

    labels, image = inputs
    names = {name: SKIMAGE_NAMES.get(name, name) for name in COLUMNS}
    names |= {f"{name}_0": f"{name.replace('_sd', '_std')}-0" for name in INTENSITY_COLUMNS}
    table = regionprops_table(labels, np.moveaxis(image, 0, -1), sorted({n.split("-")[0] for n in names.values()}))
    return {name: table[theirs] for name, theirs in names.items()}


BOX_NAMES = {name: f"bbox-{k}" for k, name in enumerate(("top", "left", "bottom", "right"))}
SKIMAGE_NAMES = BOX_NAMES | {
    "y": "centroid-0",
    "x": "centroid-1",
    "equivalent_diameter": "equivalent_diameter_area",
}


# Agreement


def cosine_error(labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest 1 - cosine over the pixels where both have a direction."""
    both = np.any(ours != 0, 0) & np.any(theirs != 0, 0)
    if np.count_nonzero(both) < 0.99 * np.count_nonzero(labels):
        return np.inf
    return float(1 - (ours * theirs).sum(0)[both].min(initial=1.0))


def unmatched(_: Any, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Larger of 1 - AP at 0.5 and at 0.9."""
    scores = image_scores(theirs, ours, (0.5, 0.9))
    return 1 - min(scores["ap50"], scores["ap90"])


def other_pixels(_: Any, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Number of pixels where two label maps differ in anything but the names of the instances."""
    pairs = np.unique(np.stack([ours.ravel(), theirs.ravel()]), axis=1)
    if len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]:
        return 0.0
    scores = image_scores(theirs.astype(np.int64), ours, (0.5,))
    return max(1.0, scores["n_true"] - scores["iou_sum50"])


def largest_difference(_: Any, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest absolute difference."""
    return float(np.abs(ours - theirs).max(initial=0))


def other_positives(_: Any, ours: dict[str, float], theirs: list[int]) -> float:
    """Sum of the differences of the true positives."""
    return sum(abs(ours[f"tp{100 * t:.0f}"] - tp) for t, tp in zip(THRESHOLDS, theirs, strict=True))


def quality_error(_: Any, ours: dict[str, float], theirs: float) -> float:
    """Difference of the PQ."""
    return abs(ours["pq"] - theirs)


def jaccard_error(_: Any, ours: dict[str, float], theirs: float) -> float:
    """Difference of the AJI."""
    return abs(ours["aji"] - theirs)


def outline_error(labels: np.ndarray, ours: list[Any], theirs: list[Any]) -> float:
    """Pixels that polygons enclose too many or too few, plus parts and holes that OpenCV finds and we miss."""
    error = np.abs([enclosed_area(polygons) for polygons in ours] - np.bincount(labels.ravel())[1:]).sum()
    for polygons, (_, hierarchy) in zip(ours, theirs, strict=True):
        has_parent = hierarchy[0][:, 3] >= 0
        error += max(0, np.count_nonzero(~has_parent) - len(polygons))
    return float(error)


def enclosed_area(polygons: list[Any]) -> float:
    """Area of polygons with holes by the shoelace formula; rings of holes run the other way round."""
    total = 0
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.holes):
            x, y = ring.astype(np.int64).T
            total += int(x @ np.roll(y, -1) - y @ np.roll(x, -1))
    return total / 2


def other_texts(_: Any, ours: list[str], theirs: list[str]) -> float:
    """Number of run lengths that are not equal byte for byte."""
    return abs(len(ours) - len(theirs)) + sum(a != b for a, b in zip(ours, theirs, strict=False))


def measurement_error(_: Any, ours: Any, theirs: dict[str, np.ndarray]) -> float:
    """Largest difference of any measurement, relative to its size where that exceeds 1.

    The orientation counts where there is a major axis: elsewhere rounding decides it in scikit-image.
    """
    major, minor = (ours[f"axis_{name}_length"].to_numpy() for name in ("major", "minor"))
    errors = []
    for name in ours:
        difference = np.abs(ours[name].to_numpy() - theirs[name])
        if name == "orientation":  # a quarter turn to the left and to the right are the same axis
            difference = np.minimum(difference, np.pi - difference)[minor < major * (1 - 1e-9)]
            errors.append(difference.max(initial=0))
        elif name == "axis_minor_length":  # of a line it is the square root of a rounding error there
            errors.append((difference / np.maximum(major, 1)).max(initial=0))
        else:
            errors.append((difference / np.maximum(np.abs(theirs[name]), 1)).max(initial=0))
    return float(max(errors))


CASES = (
    Case(
        part="labels → flow targets",
        peer="cellpose masks_to_flows_gpu",
        package="cellpose",
        goal=150,
        inputs=same,
        ours=lambda labels: labels_to_flows(labels, across_borders=True),
        theirs=cellpose_flows,
        error=cosine_error,
        error_name="1 - cosine",
        largest_error=1e-4,
    ),
    Case(
        part="flows → instances, 200 steps",
        peer="cellpose compute_masks",
        package="cellpose",
        goal=40,
        inputs=noisy_flows,
        ours=lambda prediction: decode_flows(prediction, across_borders=True),
        theirs=cellpose_masks,
        error=unmatched,
        error_name="1 - AP",
        largest_error=1e-3,
    ),
    Case(
        part="flows → instances, early stop",
        peer="cellpose compute_masks",
        package="cellpose",
        goal=100,
        inputs=noisy_flows,
        ours=lambda prediction: decode_flows(prediction, across_borders=True, tolerance=EARLY_STOP),
        theirs=cellpose_masks,
        error=unmatched,
        error_name="1 - AP",
        largest_error=1e-3,
    ),
    Case(
        part="labels → HV targets",
        peer="MONAI ComputeHoVerMaps",
        package="monai",
        goal=8,
        inputs=same,
        ours=labels_to_hover,
        theirs=monai_hover_maps,
        error=largest_difference,
        error_name="difference",
        largest_error=1e-5,
    ),
    Case(
        part="HV → instances",
        peer="MONAI HoVerNet post-processing",
        package="monai",
        goal=2,
        inputs=noisy_hover,
        ours=lambda prediction: decode_hover(prediction, kernel_size=HOVER_KERNEL),
        theirs=monai_hover_instances,
        error=other_pixels,
        error_name="instances",
        largest_error=0,
    ),
    Case(
        part="AP at 3 thresholds",
        peer="cellpose average_precision",
        package="cellpose",
        goal=20,
        inputs=with_flaws,
        ours=lambda maps: image_scores(*maps, THRESHOLDS),
        theirs=cellpose_precision,
        error=other_positives,
        error_name="true positives",
        largest_error=0,
    ),
    Case(
        part="AP at 3 thresholds",
        peer="StarDist matching",
        package="stardist",
        goal=20,
        inputs=with_flaws,
        ours=lambda maps: image_scores(*maps, THRESHOLDS),
        theirs=stardist_precision,
        error=other_positives,
        error_name="true positives",
        largest_error=0,
    ),
    Case(
        part="PQ",
        peer="torchmetrics panoptic_quality",
        package="torchmetrics",
        goal=100,
        inputs=with_flaws,
        ours=lambda maps: image_scores(*maps, THRESHOLDS),
        theirs=torchmetrics_quality,
        error=quality_error,
        error_name="PQ",
        largest_error=1e-5,
    ),
    Case(
        part="PQ",
        peer="MONAI compute_panoptic_quality",
        package="monai",
        goal=100,
        inputs=with_flaws,
        ours=lambda maps: image_scores(*maps, THRESHOLDS),
        theirs=monai_quality,
        error=quality_error,
        error_name="PQ",
        largest_error=1e-5,
    ),
    Case(
        part="AJI",
        peer="loop over masks, as published",
        package="numpy",
        goal=100,
        inputs=with_flaws,
        ours=lambda maps: image_scores(*maps, THRESHOLDS),
        theirs=plain_jaccard,
        error=jaccard_error,
        error_name="AJI",
        largest_error=1e-12,
    ),
    *(
        Case(
            part=f"overlap removal + RLE of {n} masks{form}",
            peer="loop over masks + pycocotools encode",
            package="pycocotools",
            goal=goal,
            inputs=crowd(n),
            ours=ours,
            theirs=pycocotools_rles,
            error=other_texts,
            error_name="texts",
            largest_error=0,
            grows=False,
        )
        for n, goal in ((100, 4), (400, 20))
        for form, ours in ((" in boxes", rles_of_crops), (", whole images", rles_of_stack))
    ),
    Case(
        part="polygons",
        peer="OpenCV findContours in boxes",
        package="opencv-python-headless",
        goal=4,
        inputs=same,
        ours=outlines,
        theirs=opencv_contours,
        error=outline_error,
        error_name="pixels and parts",
        largest_error=0,
    ),
    Case(
        part="measurements",
        peer="scikit-image regionprops_table",
        package="scikit-image",
        goal=25,
        inputs=with_image,
        ours=lambda inputs: measure(inputs[0], inputs[1]),
        theirs=skimage_table,
        error=measurement_error,
        error_name="relative difference",
        largest_error=1e-6,
    ),
)
