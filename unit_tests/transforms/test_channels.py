"""Random changes of channels: exact colours, probabilities, seeds."""

import itertools

import pytest
import torch

from cellbundle.transforms import RandChannelsd

COLOURS = torch.tensor([0.1, 0.2, 0.6])[:, None, None].expand(3, 2, 2)


def colours(seed=0, **options):
    options = {"permute": 0, "invert": 0, "grey": 0} | options
    transform = RandChannelsd(**options).set_random_state(seed)
    image = COLOURS.clone()
    result = transform({"image": image})["image"]
    assert torch.equal(image, COLOURS)
    assert result.shape == image.shape
    assert torch.equal(result, result[:, :1, :1].expand(3, 2, 2))
    return result[:, 0, 0].tolist()


def test_nothing_is_changed_with_probability_0():
    assert colours() == pytest.approx([0.1, 0.2, 0.6])


def test_inverted_and_grey():
    assert colours(invert=1) == pytest.approx([0.9, 0.8, 0.4])
    assert colours(grey=1) == pytest.approx([0.3, 0.3, 0.3])
    assert colours(grey=1, invert=1, permute=1) == pytest.approx([0.7, 0.7, 0.7])


def test_all_permutations_come_up():
    orders = {tuple(round(v, 3) for v in colours(seed, permute=1)) for seed in range(60)}
    assert orders == set(itertools.permutations([0.1, 0.2, 0.6]))


def test_probabilities():
    transform = RandChannelsd(permute=0, invert=0.2, grey=0.1).set_random_state(0)
    results = torch.stack([transform({"image": COLOURS})["image"][:, 0, 0] for _ in range(2000)])
    assert (results.mean(1) > 0.5).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert (results.std(1) < 1e-3).float().mean().item() == pytest.approx(0.1, abs=0.03)


def test_all_images_are_changed_alike_and_the_seed_decides():
    options = {"permute": 0.5, "invert": 0.5, "grey": 0.2}
    data = {"a": COLOURS, "b": COLOURS, "label": "x"}
    first, second = (RandChannelsd(["a", "b"], **options).set_random_state(4) for _ in range(2))
    for _ in range(10):
        one, two = first(data), second(data)
        assert torch.equal(one["a"], one["b"])
        assert torch.equal(one["a"], two["a"])
        assert one["label"] == "x"


def test_grey_pixels_do_not_share_memory():
    result = RandChannelsd(permute=0, invert=0, grey=1)({"image": COLOURS.clone()})["image"]
    result[0] += 1
    assert result[1].max() < 0.5
