"""A sound data set, and a copy of it to break."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cellbundle.datalists.validate import inspect_datalist
from cellbundle.synthetic import write_dataset

SIZE = (48, 40)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Four training images in folds 0 to 3 and two testing images, all right."""
    folder = tmp_path_factory.mktemp("sound")
    write_dataset(folder, n_training=4, n_testing=2, kinds=("fluorescence",), size=SIZE)
    return folder


class Data:
    """A copy of the sound data set to break."""

    def __init__(self, folder):
        self.folder, self.list = folder, folder / "datalist.json"
        self.content = json.loads(self.list.read_text())

    def path(self, key, number=0, section="training"):
        return self.folder / self.content[section][number][key]

    def change(self, number=0, section="training", **values):
        self.content[section][number].update(values)
        self.list.write_text(json.dumps(self.content))

    def found(self, **options):
        return [(f.severity, f.kind, f.path) for f in self.findings(**options)]

    def findings(self, **options):
        return inspect_datalist(self.list, self.folder, **options).findings


@pytest.fixture
def data(sound, tmp_path):
    return Data(Path(shutil.copytree(sound, tmp_path / "data")))


def blank(*spots):
    """Labels with an instance of 36 pixels, id 1, and rectangles (id, top, left, height, width)."""
    labels = np.zeros(SIZE, np.int32)
    labels[2:8, 2:8] = 1
    for number, top, left, height, width in spots:
        labels[top : top + height, left : left + width] = number
    return labels
