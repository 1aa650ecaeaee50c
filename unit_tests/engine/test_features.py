"""The cache of features: what is computed when, where it is kept, and when it is refused."""

import pytest
import torch
from torch import nn

from cellbundle.engine.features import FeatureCache, make_feature_cache
from cellbundle.errors import ConfigError

from ..damage import SHAPES


class Encoder:
    """Counts the images that it sees."""

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return [images.mean(1, keepdim=True), images[:, :2, ::2, ::2] * 3]


def frozen(seed=0):
    torch.manual_seed(seed)
    return nn.Conv2d(3, 3, 1).requires_grad_(False)


@pytest.mark.parametrize("in_files", [False, True])
def test_every_image_is_encoded_once(tmp_path, in_files):
    images, encode = torch.rand(4, 3, 8, 6), Encoder()
    cache = FeatureCache(tmp_path if in_files else None)
    first = cache(images[:3], encode)
    again = cache(images[[3, 1, 0]], encode)
    assert encode.seen == 4
    assert (cache.hits, cache.misses) == (2, 4)
    for kept, fresh in zip([*first, *again], [*Encoder()(images[:3]), *Encoder()(images[[3, 1, 0]])], strict=True):
        assert torch.equal(kept, fresh)


def test_an_image_twice_in_a_batch():
    image, encode = torch.rand(1, 3, 8, 6), Encoder()
    both = FeatureCache()(torch.cat([image, image]), encode)
    assert encode.seen == 1
    assert all(torch.equal(level[0], level[1]) for level in both)


def test_one_changed_pixel_is_another_image():
    image, encode = torch.rand(1, 3, 8, 6), Encoder()
    cache = FeatureCache()
    cache(image, encode)
    changed = image.clone()
    changed[0, 0, 0, 0] += 1e-6
    cache(changed, encode)
    assert encode.seen == 2


def test_files_are_found_again_by_the_same_backbone_only(tmp_path):
    images, encode = torch.rand(2, 3, 8, 6), Encoder()
    make_feature_cache(str(tmp_path), frozen(), 4)(images, encode)
    make_feature_cache(str(tmp_path), frozen(), 4)(images, encode)
    assert encode.seen == 2
    make_feature_cache(str(tmp_path), frozen(seed=1), 4)(images, encode)
    make_feature_cache(str(tmp_path), frozen(), 4, precision="bfloat16")(images, encode)
    assert encode.seen == 6


def test_files_that_are_cut_off_or_no_features_are_made_again(tmp_path):
    image, encode = torch.rand(1, 3, 8, 6), Encoder()
    expected = FeatureCache(tmp_path)(image, encode)
    (path,) = tmp_path.iterdir()
    original = path.read_bytes()
    for content in [*SHAPES, *(original[:end] for end in range(0, len(original), 97))]:
        path.write_bytes(content)
        found = FeatureCache(tmp_path)(image, encode)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_no_cache():
    assert make_feature_cache(None, frozen(), None) is None


def test_ever_new_augmentations_are_refused():
    with pytest.raises(ConfigError, match=r"feature_cache.*--augmentation_variants 8"):
        make_feature_cache("memory", frozen(), None)


def test_a_backbone_that_learns_is_refused():
    with pytest.raises(ConfigError, match=r"feature_cache.*freeze_backbone"):
        make_feature_cache("memory", nn.Conv2d(3, 3, 1), 4)
