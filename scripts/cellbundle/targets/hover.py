"""HoVer targets: distances of every pixel of an instance from its centre of mass."""

import numpy as np

from ..instances.labels import check_labels, renumber
from ..kernels.geometry import boxes_and_areas
from ..kernels.hover import write_distances
from ..kernels.parallel import run_chunks

MIN_INSTANCES_PER_THREAD = 64


def labels_to_hover(labels: np.ndarray) -> np.ndarray:
    """Horizontal and vertical distance of each pixel from the centre of mass of its instance.

    On either side of the centre the distances are divided by the largest one, so they reach -1 and 1.

    Args:
        labels: (H, W) integer map, 0 background; ids need not be consecutive.

    Returns:
        (2, H, W) float32 in [-1, 1]; channel 0 is horizontal and grows to the right, channel 1 vertical and grows
        downwards. 0 on background and on the row or column through the centre.

    Raises:
        ArrayError: if ``labels`` is not 2-D, not of an integer type, or has negative ids.

    Source: Graham et al., Med. Image Anal. 2019; equal to ``monai.transforms.ComputeHoVerMaps`` (Apache-2.0) up to
        rounding, but for ids above 2**24, which MONAI confuses because it keeps them as float32.
    """
    check_labels(labels)
    compact, n = renumber(labels)
    maps = np.zeros((2, *labels.shape), np.float32)
    if n:
        boxes, areas = boxes_and_areas(compact, n)
        run_chunks(write_distances, n, compact, boxes, areas, maps, min_chunk=MIN_INSTANCES_PER_THREAD)
    return maps
