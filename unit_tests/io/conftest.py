"""Results that every format must hold, and a disk that fails."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellbundle.instances import Instances
from cellbundle.instances.labels import renumber


def make(labels, **columns):
    labels, n = renumber(np.asarray(labels))
    return Instances(labels, pd.DataFrame({"label": np.arange(1, n + 1), **columns}))


@pytest.fixture(params=["empty", "all one", "one pixel", "frames", "noise", "discs"])
def instances(request):
    frame = np.pad(np.zeros((2, 3), int), 1, constant_values=1)
    y, x = np.indices((50, 70))
    maps = {
        "empty": np.zeros((5, 4), int),
        "all one": np.ones((4, 5), int),
        "one pixel": np.pad([[1]], ((0, 3), (2, 0))),
        "frames": np.block([[frame, 0 * frame, 2 * frame], [np.ones((4, 5), int) * 3, frame, frame]]),
        "noise": np.random.default_rng(0).integers(0, 7, (30, 45)),
        "discs": np.where((y % 10 - 4) ** 2 + (x % 10 - 4) ** 2 < 20, y // 10 * 7 + x // 10 + 1, 0),
    }
    return make(maps[request.param])


@pytest.fixture
def scored():
    """Four instances with classes, scores and measurements, some of which are missing."""
    return make(
        [[1, 1, 0, 2], [1, 0, 0, 2], [3, 3, 0, 4]],
        **{
            "class": ["tumour", None, "immune", "tumour"],
            "score": [0.5, 1.0, np.nan, 0.25],
            "area_px": [3, 2, 2, 1],
            "note": list("abcd"),
            "round": pd.array([1, None, 3, 4], "Int64"),
        },
    )


@pytest.fixture(scope="session")
def many():
    """75,625 instances of 3 x 3 pixels."""
    y, x = np.indices((1100, 1100))
    return make(np.where((y % 4 < 3) & (x % 4 < 3), y // 4 * 275 + x // 4 + 1, 0))


@pytest.fixture
def full_disk(monkeypatch):
    """The last step of every write fails."""

    def fail(self, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", fail)
