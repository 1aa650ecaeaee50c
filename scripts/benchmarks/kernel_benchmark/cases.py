"""The rows of the table: each kernel beside each peer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cellbundle.decode.flows import decode_flows
from cellbundle.decode.hover import PUBLISHED, decode_hover
from cellbundle.instances.measure import measure
from cellbundle.instances.overlaps import labels_to_rles, masks_to_labels
from cellbundle.instances.polygons import outlines
from cellbundle.metrics import image_scores
from cellbundle.targets.flows import labels_to_flows
from cellbundle.targets.hover import labels_to_hover

from . import agreement, inputs, peers
from .agreement import jaccard_error, quality_error
from .peers import THRESHOLDS

EARLY_STOP = 0.01  # pixels
MANY = 5000  # instances


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
        goal_of_many: as ``goal``, from ``MANY`` instances on.
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
    goal_of_many: float = 0

    def goal_for(self, n: int) -> float:
        """The goal at a number of instances."""
        return max(self.goal, self.goal_of_many if n >= MANY else 0)


def scores(maps: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Ours: AP, PQ and AJI come at once."""
    return image_scores(*maps, THRESHOLDS)


def rles_of_crops(masks: inputs.Masks) -> list[str]:
    """Ours, from the masks in their boxes, as detectors give them."""
    return labels_to_rles(masks_to_labels(masks.crops, masks.scores, inputs.CROWD_SIZE, masks.boxes)[0])


def rles_of_stack(masks: inputs.Masks) -> list[str]:
    """Ours, from the masks as whole images."""
    return labels_to_rles(masks_to_labels(masks.stack, masks.scores)[0])


CASES = (
    Case(
        part="labels → flow targets",
        peer="cellpose masks_to_flows_gpu",
        package="cellpose",
        goal=150,
        inputs=inputs.same,
        ours=lambda labels: labels_to_flows(labels, across_borders=True),
        theirs=peers.cellpose_flows,
        error=agreement.cosine_error,
        error_name="1 - cosine",
        largest_error=1e-4,
    ),
    *(
        Case(
            part=f"flows → instances, {name}",
            peer="cellpose compute_masks",
            package="cellpose",
            goal=goal,
            inputs=inputs.noisy_flows,
            ours=partial(decode_flows, across_borders=True, tolerance=tolerance),
            theirs=peers.cellpose_masks,
            error=agreement.unmatched,
            error_name="1 - AP",
            largest_error=1e-3,
        )
        for name, tolerance, goal in (("200 steps", 0, 40), ("early stop", EARLY_STOP, 100))
    ),
    Case(
        part="labels → HV targets",
        peer="MONAI ComputeHoVerMaps",
        package="monai",
        goal=8,
        inputs=inputs.same,
        ours=labels_to_hover,
        theirs=peers.monai_hover_maps,
        error=agreement.largest_difference,
        error_name="difference",
        largest_error=1e-5,
    ),
    Case(
        part="HV → instances",
        peer="MONAI HoVerNet post-processing",
        package="monai",
        goal=2,
        inputs=inputs.noisy_hover,
        ours=lambda prediction: decode_hover(prediction, **PUBLISHED),
        theirs=peers.monai_hover_instances,
        error=agreement.other_instances,
        error_name="instances",
        largest_error=0,
    ),
    *(
        Case(
            part="AP at 3 thresholds",
            peer=peer,
            package=package,
            goal=20,
            inputs=inputs.with_flaws,
            ours=scores,
            theirs=theirs,
            error=agreement.other_positives,
            error_name="true positives",
            largest_error=0,
            goal_of_many=60,
        )
        for peer, package, theirs in (
            ("cellpose average_precision", "cellpose", peers.cellpose_precision),
            ("StarDist matching", "stardist", peers.stardist_precision),
        )
    ),
    *(
        Case(
            part=score,
            peer=peer,
            package=package,
            goal=100,
            inputs=inputs.with_flaws,
            ours=scores,
            theirs=theirs,
            error=error,
            error_name=score,
            largest_error=largest_error,
        )
        for score, error, largest_error, peer, package, theirs in (
            ("PQ", quality_error, 1e-5, "torchmetrics panoptic_quality", "torchmetrics", peers.torchmetrics_quality),
            ("PQ", quality_error, 1e-5, "MONAI compute_panoptic_quality", "monai", peers.monai_quality),
            ("AJI", jaccard_error, 1e-12, "loop over masks, as published", "numpy", peers.plain_jaccard),
        )
    ),
    Case(
        part="labels → RLE",
        peer="pycocotools encode",
        package="pycocotools",
        goal=4,
        inputs=inputs.same,
        ours=labels_to_rles,
        theirs=peers.pycocotools_labels,
        error=agreement.other_texts,
        error_name="texts",
        largest_error=0,
    ),
    *(
        Case(
            part=f"overlap removal + RLE of {n} masks{form}",
            peer="loop over masks + pycocotools encode",
            package="pycocotools",
            goal=goal,
            inputs=inputs.crowd(n),
            ours=ours,
            theirs=peers.pycocotools_rles,
            error=agreement.other_texts,
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
        inputs=inputs.same,
        ours=outlines,
        theirs=peers.opencv_contours,
        error=agreement.outline_error,
        error_name="pixels and parts",
        largest_error=0,
    ),
    Case(
        part="measurements",
        peer="scikit-image regionprops_table",
        package="scikit-image",
        goal=25,
        inputs=inputs.with_image,
        ours=lambda pair: measure(*pair),
        theirs=peers.skimage_table,
        error=agreement.measurement_error,
        error_name="relative difference",
        largest_error=1e-6,
    ),
)
