"""Flow predictions of drawn cells: perfect ones, and ones with noise."""

import numpy as np

from cellbundle.decode.flows import FLOW_SCALE
from cellbundle.synthetic import generate
from cellbundle.targets.flows import labels_to_flows

LOGIT = 5.0  # of a sure cell


def perfect(labels, across_borders=True):
    """What a perfect network predicts: (3, H, W) float32."""
    flows = labels_to_flows(labels, across_borders=across_borders)
    return np.concatenate([np.where(labels > 0, LOGIT, -LOGIT)[None], FLOW_SCALE * flows]).astype(np.float32)


def noisy(labels, seed):
    prediction = perfect(labels)
    return prediction + np.random.default_rng(seed).normal(0, 0.8, prediction.shape).astype(np.float32)


def discs(shape, *cells):
    """Label map of discs (y, x, radius), numbered from 1."""
    labels = np.zeros(shape, np.int32)
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    for i, (y, x, radius) in enumerate(cells, 1):
        labels[(ys - y) ** 2 + (xs - x) ** 2 <= radius**2] = i
    return labels


def drawn(kind, seed, size=(128, 160)):
    return generate(kind, size, 22, diameter=20, touching=0.5, seed=seed)[1]


TWO = discs((40, 50), (12, 12, 7), (26, 36, 9))
