"""Instances from nuclear logit and distances, with MONAI as an oracle."""

import json

import numpy as np
import pytest
from monai.apps.pathology.transforms.post import array as monai_post
from PIL import Image

from cellbundle.instances.labels import renumber
from cellbundle.synthetic import KINDS

from .hover_predictions import discs, drawn, noisy, perfect, published


def by_monai(prediction, *, kernel_size=21, marker_threshold=0.4, marker_radius=2, min_size=10, min_marker_size=10):
    """The instances of MONAI's transforms, numbered 1..N."""
    logits = np.concatenate([np.zeros_like(prediction[:1]), prediction[:1]])
    mask = monai_post.GenerateWatershedMask(min_object_size=min_size)(logits)
    border = monai_post.GenerateInstanceBorder(kernel_size)(mask, prediction[1:])
    heights = monai_post.GenerateDistanceMap()(mask, border)
    markers = monai_post.GenerateWatershedMarkers(marker_threshold, marker_radius, min_marker_size)(mask, border)
    return renumber(np.asarray(monai_post.Watershed()(heights, mask, markers))[0])[0]


@pytest.mark.parametrize("strength", [0.02, 0.2, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_same_instances_as_monai(kind, strength):
    prediction = noisy(drawn(kind, 7), 1, strength)
    expected = by_monai(prediction)
    assert expected.max() > 5
    np.testing.assert_array_equal(published(prediction), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 5},
        {"kernel_size": 5, "marker_threshold": 0.6, "marker_radius": 1, "min_marker_size": 3},
        {"kernel_size": 11, "marker_radius": 4, "min_size": 200},
    ],
)
def test_same_instances_as_monai_with_other_options(options):
    prediction = noisy(drawn("phase", 8), 2)
    expected = by_monai(prediction, **options)
    assert expected.max() > 3
    np.testing.assert_array_equal(published(prediction, **options), expected)


def test_a_marker_around_another_component_takes_it_in():
    """As in MONAI: holes of markers are filled wherever they lie."""
    ring = discs((90, 90), (45, 45, 40), (45, 45, 20), (45, 45, 8))
    prediction = perfect(np.where(ring == 2, 0, ring))
    prediction[1:] = np.random.default_rng(0).normal(0, 0.01, (2, 90, 90))
    options = {"kernel_size": 3, "marker_threshold": 0.99}
    expected = by_monai(prediction, **options)
    assert expected[45, 45] == expected[45, 10] == 1
    np.testing.assert_array_equal(published(prediction, **options), expected)


def test_same_instances_as_monai_on_real_outlines(real_data):
    folder = real_data("dsb2018")
    entries = json.loads((folder / "dsb2018_datalist.json").read_text())["training"][:200:40]
    for seed, entry in enumerate(entries):
        labels = np.array(Image.open(folder / entry["label"])).astype(np.int32)[:256, :256]
        prediction = noisy(labels, seed)
        expected = by_monai(prediction)
        assert expected.max() > 0
        np.testing.assert_array_equal(published(prediction), expected)
