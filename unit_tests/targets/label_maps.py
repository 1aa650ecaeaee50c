"""Drawn label maps, and the lengths of flows."""

import numpy as np

from cellbundle.synthetic import generate


def lengths(flows):
    return np.hypot(*flows.astype(np.float64))


def cells(kind="phase", touching=0.5, seed=0, size=(96, 120)):
    return generate(kind, size, 20, diameter=18, touching=touching, seed=seed)[1]
