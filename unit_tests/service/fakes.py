"""Predictors and pools that load nothing."""

import io
from concurrent.futures import Future
from copy import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image
from scipy import ndimage

from cellbundle.inference.segment import Segmentation
from cellbundle.service.workers.segmenter import Segmenter

TOKEN = "a-token-of-twenty-letters"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def error(answer):
    """Status and code of an answer in the form of all errors."""
    document = answer.json()
    assert list(document) == ["error"]
    assert sorted(document["error"]) == ["code", "message"]
    assert document["error"]["message"]
    return answer.status_code, document["error"]["code"]


JSON = {"content-type": "application/json"}


def png(array=None, form="PNG"):
    """The bytes of an image; by default 20 × 30 with two cells."""
    if array is None:
        array = np.zeros((20, 30), np.uint8)
        array[2:8, 3:9] = 200
        array[10:15, 20:28] = 250
    file = io.BytesIO()
    Image.fromarray(array).save(file, form)
    return file.getvalue()


FORM = {"image": ("a.png", png(), "image/png")}


class InlinePool:
    """A pool without processes: a handler of this process does the job at once, or an error is raised or returned."""

    def __init__(self, handler=None, error=None, refused=None):
        self.handler, self.error, self.refused = handler, error, refused
        self.about = getattr(handler, "about", None)
        self.ready = self.accepting = refused is None
        self.alive, self.waiting, self.restarts, self.retry_after = 1, 0, 0, 3
        self.jobs = []

    def refuse(self):
        self.accepting = False

    def submit(self, job, timeout_s=None):
        if self.refused:
            raise self.refused
        self.jobs.append((job, timeout_s))
        future = Future()
        if self.error:
            future.set_exception(self.error)
        elif self.handler:
            future.set_result(self.handler([job])[0])
        return future


class FakePredictor:
    """A predictor of a tiny network: what is brighter than half the brightest pixel, numbered as connected."""

    device = SimpleNamespace(type="cpu")
    takes_batches = True
    scale = 1.0
    diameter = 20.0
    looks_for_size = True
    weights = "models/model.pt"

    def __init__(self, root="nowhere", error=None):
        self.root, self.error, self.calls = Path(root), error, []

    def __call__(self, image):
        return self.segment_batch([image])

    def at_diameter(self, diameter):
        other = copy(self)
        other.scale = 1.0 if diameter == "none" else 20.0 / diameter
        return other

    def segment_batch(self, images):
        self.calls.append(len(images))
        if self.error and images[0].shape[1] != 64:  # that of the example it is warmed up with
            raise self.error
        found = []
        for image in images:
            labels, n = ndimage.label(image[0] > image.max() / 2)
            found.append(Segmentation(labels.astype(np.int32), np.full(n, 0.5, np.float32)))
        return found


def segmenter(max_pixels=10**6, batch=1, names=("fake",), **options):
    predictors = {}

    def load(bundle):
        return predictors.setdefault(bundle, FakePredictor(**options))

    made = Segmenter({name: name for name in names}, load, max_pixels, 1, batch)
    for predictor in predictors.values():
        predictor.calls.clear()
    return made
