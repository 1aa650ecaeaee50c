"""Flow targets: unit vectors that lead every pixel of an instance to its centre."""

import numpy as np

from ..instances.labels import check_labels, renumber
from ..kernels.diffusion import diffuse_instances, flows_across_borders, instance_flows
from ..kernels.geometry import boxes_and_areas
from ..kernels.parallel import run_chunks

MIN_INSTANCES = 16
MIN_ROWS_PER_THREAD = 256


def labels_to_flows(labels: np.ndarray, *, across_borders: bool = False, n_steps: int | None = None) -> np.ndarray:
    """Unit vectors from each pixel towards the centre of its instance, by heat diffusion.

    Args:
        labels: (H, W) integer map, 0 background; ids need not be consecutive.
        across_borders: the two ways in which instances of one map affect each other in cellpose: where they touch,
            the gradient reads the neighbour's temperature too, and all take as many steps as the largest needs. With
            False each has the flow that cellpose gives it when it is alone in the image, whatever else a crop shows;
            border pixels then always point inwards.
        n_steps: diffusion steps; by default twice the ``height + width + 2`` of the instance, or of the largest one
            with ``across_borders``.

    Returns:
        (2, H, W) float32, (dy, dx); length 1 on instances, 0 on background. Also 0 where there is no direction: in the
        centre of point-symmetric instances, on pixels without a neighbour of their own instance above, below, left or
        right, and on parts that do not hang together with the one that has the centre; see
        ``cellbundle.instances.labels.label_components``.

    Raises:
        ArrayError: if ``labels`` is not 2-D, not of an integer type, or has negative ids.

    Source: Stringer et al., Nat. Methods 2021; semantics of cellpose 4 ``dynamics.masks_to_flows_gpu`` (BSD-3).
    """
    check_labels(labels)
    compact, n = renumber(labels)
    boxes, _ = boxes_and_areas(compact, n)
    return flows_of_compact(compact, boxes, across_borders=across_borders, n_steps=n_steps)


def flows_of_compact(
    labels: np.ndarray, boxes: np.ndarray, *, across_borders: bool, n_steps: int | None = None
) -> np.ndarray:
    """``labels_to_flows`` for a (H, W) int32 map with ids 0..n and their (n, 4) boxes, all zero for absent ids."""
    height, width = labels.shape
    flows = np.zeros((2, height, width), np.float32)
    n = len(boxes)
    if n == 0:
        return flows
    steps = 2 * (boxes[:, 2] - boxes[:, 0] + boxes[:, 3] - boxes[:, 1] + 2)
    if n_steps is not None or across_borders:
        steps[:] = steps.max() if n_steps is None else n_steps
    if not across_borders:
        run_chunks(instance_flows, n, labels, boxes, steps, flows, min_chunk=MIN_INSTANCES, uneven=True)
        return flows
    heat = np.zeros((height + 2, width + 2))
    run_chunks(diffuse_instances, n, labels, boxes, steps, heat, min_chunk=MIN_INSTANCES, uneven=True)
    run_chunks(flows_across_borders, height, labels, heat, flows, min_chunk=MIN_ROWS_PER_THREAD)
    return flows
