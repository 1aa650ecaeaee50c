"""Instances from cell logit and flow, with cellpose as an oracle."""

import json

import numpy as np
import pytest
from PIL import Image

from cellbundle.decode.flows import decode_flows
from cellbundle.metrics import image_scores
from cellbundle.synthetic import KINDS

from .flow_predictions import drawn, noisy


def agree(prediction):
    """Our cells against cellpose's."""
    dynamics = pytest.importorskip("cellpose.dynamics")
    theirs = dynamics.compute_masks(prediction[1:], prediction[0], niter=200, min_size=15)
    return image_scores(theirs.astype(np.int32), decode_flows(prediction, max_size_fraction=0.4))


@pytest.mark.filterwarnings("ignore:Sparse invariant")
def test_same_cells_as_cellpose():
    scores = [agree(noisy(drawn(kind, seed), seed)) for kind in KINDS for seed in (7, 8)]
    assert sum(score["n_true"] for score in scores) > 100
    assert min(score["ap50"] for score in scores) == 1
    assert np.mean([score["ap90"] for score in scores]) >= 0.999


@pytest.mark.filterwarnings("ignore:Sparse invariant")
def test_same_cells_as_cellpose_on_real_outlines(real_data):
    folder = real_data("dsb2018")
    entries = json.loads((folder / "dsb2018_datalist.json").read_text())["training"][:200:40]
    for seed, entry in enumerate(entries):
        labels = np.array(Image.open(folder / entry["label"])).astype(np.int32)[:256, :256]
        scores = agree(noisy(labels, seed))
        assert scores["n_true"] > 0
        assert scores["ap50"] == 1
        assert scores["ap90"] >= 0.999
