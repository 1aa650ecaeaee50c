"""Rotation, translation and shear: what they do to pixels, and how they are drawn."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from cellbundle.transforms import RandSignedAffined

STILL = {"prob": 1.0, "angle": (0, 0), "translate": (0, 0), "shear": (0, 0), "signed": False}


def changed(image, seed=0, **options):
    affine = RandSignedAffined("image", modes=["nearest"], **STILL | options).set_random_state(seed)
    return affine({"image": image})["image"]


def numbered(height, width):
    """(1, H, W): every pixel has a value of its own."""
    return torch.arange(1.0, height * width + 1).reshape(1, height, width)


def test_nothing_drawn_changes_nothing():
    torch.testing.assert_close(changed(numbered(8, 13)), numbered(8, 13))


def test_a_translation_is_a_share_of_each_axis():
    image = numbered(40, 60)
    moved = changed(image, translate=(0.1, 0.1))
    torch.testing.assert_close(moved[:, 4:, 6:], image[:, :-4, :-6])
    moved = changed(image, translate=(3, 3), pixels=True)
    torch.testing.assert_close(moved[:, 3:, 3:], image[:, :-3, :-3])


def test_a_quarter_turn():
    image = numbered(9, 9)
    torch.testing.assert_close(changed(image, angle=(90, 90)), torch.rot90(image, 1, (1, 2)))


def test_a_shear_moves_rows_by_their_distance_from_the_middle():
    image = numbered(11, 31)
    sheared = changed(image, shear=(45, 45))
    for row in range(11):
        shift = row - 5
        expected = image[0, row, 10 - shift : 20 - shift]
        torch.testing.assert_close(sheared[0, row, 10:20], expected)


def test_image_and_label_move_together():
    label = torch.zeros(1, 64, 80, dtype=torch.int32)
    label[0, 20:40, 30:50] = 2**24 + 1
    data = {"image": MetaTensor((label > 0).float()), "label": label}
    affine = RandSignedAffined(["image", "label"], prob=1.0).set_random_state(3)
    result = affine(data)
    assert result["label"].dtype == torch.int32
    assert set(result["label"].unique().tolist()) == {0, 2**24 + 1}
    assert ((result["image"] > 0.5) != (result["label"] > 0)).float().mean() < 0.01
    assert not torch.equal(result["label"], label)
    assert torch.equal(data["label"], label), "the input stays as it was"


def test_amounts_have_signs_of_their_own():
    affine = RandSignedAffined(["image", "label"]).set_random_state(0)
    draws = np.array([[a, s, *m] for a, s, m in (affine.draw((100, 200)) for _ in range(2000))])
    assert np.abs(np.corrcoef(np.sign(draws).T) - np.eye(4)).max() < 0.1
    assert np.abs(draws[:, 0]).max() <= 30
    for column, low, high in ((1, 5, 10), (2, 5, 10), (3, 10, 20)):
        size = np.abs(draws[:, column])
        assert low <= size.min() < 1.05 * low
        assert 0.97 * high < size.max() <= high
    assert np.abs(np.sign(draws).mean(0)).max() < 0.1


def test_one_mode_for_each_key():
    with pytest.raises(ValueError, match=r"2 modes.* 1 keys"):
        RandSignedAffined("image")
