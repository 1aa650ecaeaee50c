"""Training crops without cells."""

import numpy as np
import pytest
import torch

from cellbundle.transforms import RandNegatived
from cellbundle.transforms.negatives import draw_lines, draw_noise, draw_text

SIZE = (72, 96)


def crop():
    return {"image": torch.rand(3, *SIZE), "label": torch.ones(1, *SIZE), "other": 1}


@pytest.mark.parametrize("draw", [draw_noise, draw_lines, draw_text])
def test_pictures_are_finite_and_differ(draw):
    random = np.random.RandomState(0)
    pictures = [draw(random, SIZE) for _ in range(6)]
    assert all(picture.shape == SIZE and picture.dtype == np.float32 for picture in pictures)
    assert all(np.isfinite(picture).all() for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 6


def test_a_crop_is_replaced_by_one_without_cells():
    before = crop()
    after = RandNegatived(prob=1).set_random_state(0)(before)
    assert after["image"].shape == (3, *SIZE)
    assert after["image"].dtype == torch.float32
    assert 0 <= after["image"].min() < after["image"].max() <= 1
    assert not after["label"].any()
    assert after["other"] == 1
    assert before["label"].all()


def test_how_often_a_crop_is_replaced():
    replace = RandNegatived(prob=0.25).set_random_state(0)
    n = sum(not replace(crop())["label"].any() for _ in range(400))
    assert 70 < n < 130


def test_the_same_seed_gives_the_same_crop():
    first, second = (RandNegatived(prob=1).set_random_state(5)(crop())["image"] for _ in range(2))
    assert torch.equal(first, second)
