"""Small published data sets, and a file system that lists them in any order."""

import os
import random

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def shuffled_listing(monkeypatch):
    """Call it with a seed: from then on folders list their content in another order."""
    listdir, scandir = os.listdir, os.scandir

    def shuffle(seed):
        rng = random.Random(seed)

        class MixedScan:
            """Entries of a folder, as ``os.walk`` and ``pathlib`` read them."""

            def __init__(self, *args):
                with scandir(*args) as entries:
                    found = list(entries)
                self.entries = iter(rng.sample(found, len(found)))

            def __enter__(self):
                return self

            def __exit__(self, *error):
                return None

            def __iter__(self):
                return self

            def __next__(self):
                return next(self.entries)

            def close(self):
                self.entries = iter(())

        monkeypatch.setattr(os, "listdir", lambda *args: rng.sample(found := listdir(*args), len(found)))
        monkeypatch.setattr(os, "scandir", MixedScan)

    return shuffle


@pytest.fixture
def stage1(tmp_path):
    """A function that writes ``stage1_train`` of the 2018 Data Science Bowl, and its default folder with 12 images."""

    def write(folder, masks_of):
        """``masks_of``: lists of (H, W) bool masks by id; the masks' file names do not sort in their order."""
        for number, (name, masks) in enumerate(masks_of.items()):
            for part in ("images", "masks"):
                (folder / "stage1_train" / name / part).mkdir(parents=True)
            rgba = np.full((*masks[0].shape, 4), 255, np.uint8)
            rgba[..., :3] = np.random.default_rng(number).integers(0, 255, (*masks[0].shape, 3))
            Image.fromarray(rgba).save(folder / "stage1_train" / name / "images" / f"{name}.png")
            for position, mask in enumerate(masks):
                path = folder / "stage1_train" / name / "masks" / f"{(7 * position) % 1009:064x}.png"
                Image.fromarray((mask * 255).astype(np.uint8)).save(path)
        return folder

    return write


@pytest.fixture
def twelve(stage1, tmp_path):
    """A published folder of 12 images with 1 to 12 nuclei of 2 x 2 pixels."""
    y, x = np.indices((20, 30))
    squares = [(y // 2 == 2 * (i // 5)) & (x // 2 == 2 * (i % 5)) for i in range(12)]
    return stage1(tmp_path / "raw", {f"{n:02d}aa": squares[: n + 1] for n in range(12)})
