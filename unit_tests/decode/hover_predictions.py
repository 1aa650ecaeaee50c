"""HoVer predictions of drawn nuclei, perfect ones and ones with noise, and the published way to decode them."""

import numpy as np

from cellbundle.decode.hover import PUBLISHED, decode_hover
from cellbundle.synthetic import generate
from cellbundle.targets.hover import labels_to_hover

from .flow_predictions import discs

LOGIT = 3.0  # of a sure cell
SHAPES = [(1, 1), (1, 9), (9, 1), (2, 3), (17, 40), (40, 17)]


def perfect(labels):
    """What a perfect network predicts: (3, H, W) float32."""
    return np.concatenate([np.where(labels > 0, LOGIT, -LOGIT)[None], labels_to_hover(labels)]).astype(np.float32)


def published(prediction, **options):
    return decode_hover(prediction, **(PUBLISHED | options))


def noisy(labels, seed, strength=0.2):
    prediction = perfect(labels)
    noise = np.random.default_rng(seed).normal(0, strength, prediction.shape).astype(np.float32)
    noise[0] *= 5  # ragged outlines and holes
    return prediction + noise


def drawn(kind, seed, size=(96, 128)):
    return generate(kind, size, 20, diameter=20, touching=0.6, seed=seed)[1]


TWO = discs((40, 60), (20, 20, 12), (20, 40, 11))
assert (TWO[20, 28:33] > 0).all()  # they touch
