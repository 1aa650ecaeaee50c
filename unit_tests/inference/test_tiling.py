"""Tile plans, and a tiled network against one that sees the whole image."""

import math

import pytest
import torch
from monai.data import MetaTensor

from cellbundle.errors import ConfigError
from cellbundle.inference.tiling import ResizeInferer, TiledInferer, TilePlan, plan_tiles


class Counted(torch.nn.Module):
    """A network that notes the shapes it is called with."""

    def __init__(self, function=torch.clone):
        super().__init__()
        self.function, self.shapes, self.options = function, [], []

    def forward(self, tile, *args, **kwargs):
        self.shapes.append(tuple(tile.shape))
        self.options.append((args, kwargs))
        return self.function(tile)


def image(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# Plans


@pytest.mark.parametrize(
    ("size", "largest", "overlap", "plan"),
    [
        ((1, 1), (1024, 1024), 0.25, TilePlan((32, 32), (1, 1), (32, 32))),
        ((256, 320), (1024, 1024), 0.25, TilePlan((256, 320), (1, 1), (256, 320))),
        ((1000, 33), (1024, 1024), 0.25, TilePlan((1024, 64), (1, 1), (1024, 64))),
        ((1024, 1024), (1024, 1024), 0.25, TilePlan((1024, 1024), (1, 1), (1024, 1024))),
        ((1025, 1024), (1024, 1024), 0.25, TilePlan((608, 1024), (2, 1), (417, 1024))),
        ((1040, 1040), (1024, 1024), 0.25, TilePlan((608, 608), (2, 2), (432, 432))),
        ((1792, 1793), (1024, 1024), 0.25, TilePlan((1024, 736), (2, 3), (768, 529))),
        ((2048, 2048), (1024, 1024), 0.0, TilePlan((1024, 1024), (2, 2), (1024, 1024))),
        ((2048, 2048), (1024, 1024), 0.25, TilePlan((832, 832), (3, 3), (608, 608))),
        ((520, 704), (512, 256), 0.5, TilePlan((352, 256), (2, 5), (168, 112))),
    ],
)
def test_plans_by_hand(size, largest, overlap, plan):
    assert plan_tiles(size, largest, overlap) == plan
    assert plan.n_tiles == plan.counts[0] * plan.counts[1]


@pytest.mark.parametrize("overlap", [0, 0.1, 0.25, 0.3, 0.5, 0.625])
@pytest.mark.parametrize(("largest", "multiple"), [(256, 32), (512, 16), (1024, 32), (96, 32)])
def test_plans_cover_with_the_fewest_tiles(largest, multiple, overlap):
    for length in [*range(1, 2300, 11), 1024, 1792, 2048, 2560]:
        plan = plan_tiles((length, largest), (largest, largest), overlap, multiple)
        tile, count, stride = plan.tile[0], plan.counts[0], plan.strides[0]
        assert plan.tile[1] == largest
        assert plan.counts[1] == 1
        assert tile <= largest
        assert tile % multiple == 0
        assert (count - 1) * stride + tile >= length
        if count > 1:
            assert stride <= tile
            assert tile - stride > overlap * tile - 1  # whole pixels
            most = (count - 1) * largest - (count - 2) * overlap * largest  # what one tile less could cover
            assert most < length + 1e-6


@pytest.mark.parametrize(
    ("size", "largest", "overlap", "multiple"),
    [
        ((0, 5), (64, 64), 0.25, 32),
        ((5, -1), (64, 64), 0.25, 32),
        ((5, 5), (0, 64), 0.25, 32),
        ((5, 5), (64, 100), 0.25, 32),
        ((5, 5), (64, 64), 0.25, 48),
        ((5, 5), (64, 64), 1.0, 32),
        ((5, 5), (64, 64), -0.1, 32),
        ((5, 5), (64, 64), math.nan, 32),
    ],
)
def test_bad_arguments_are_refused(size, largest, overlap, multiple):
    with pytest.raises(ValueError, match=f"largest.*multiple of {multiple}, overlap") as caught:
        plan_tiles(size, largest, overlap, multiple)
    assert f"{size}, {largest}, {overlap}" in str(caught.value)


def test_only_two_dimensions():
    with pytest.raises(ValueError, match="zip"):
        plan_tiles((5, 5, 5), (64, 64))


# The inferer

SIZES = [(1, 1), (1, 200), (31, 33), (64, 64), (65, 64), (67, 70), (97, 131), (200, 1), (63, 250), (180, 180)]


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
@pytest.mark.parametrize("size", SIZES)
def test_calls_are_those_of_the_plan(size, overlap):
    network = Counted()
    plan = plan_tiles(size, (64, 64), overlap, 16)
    TiledInferer((64, 64), overlap, multiple=16)(image(1, 3, *size), network)
    assert len(network.shapes) == plan.n_tiles
    seen = size if plan.n_tiles == 1 else plan.tile  # a network pads what fits into one tile
    assert set(network.shapes) == {(1, 3, *seen)}


def test_calls_are_those_of_the_plan_for_small_strides():
    network = Counted()
    plan = plan_tiles((57, 57), (32, 32), 0.9)
    TiledInferer((32, 32), 0.9)(image(1, 1, 57, 57), network)
    assert len(network.shapes) == plan.n_tiles


@pytest.mark.parametrize(("batch", "n_images"), [(1, 1), (2, 1), (4, 1), (100, 1), (4, 3)])
def test_tiles_are_batched(batch, n_images):
    network = Counted()
    result = TiledInferer((64, 64), sw_batch_size=batch, multiple=16)(image(n_images, 3, 150, 150), network)
    n_tiles = n_images * plan_tiles((150, 150), (64, 64), 0.25, 16).n_tiles
    assert len(network.shapes) == math.ceil(n_tiles / batch)
    assert sum(shape[0] for shape in network.shapes) == n_tiles
    torch.testing.assert_close(result, image(n_images, 3, 150, 150))


@pytest.mark.parametrize("overlap", [0, 0.25, 0.625])
@pytest.mark.parametrize("size", SIZES)
def test_a_pointwise_network_gives_the_untiled_result(size, overlap):
    inputs = image(2, 3, *size)
    network = torch.nn.Conv2d(3, 4, 1)
    with torch.no_grad():
        result = TiledInferer((64, 64), overlap, multiple=16)(inputs, network)
        torch.testing.assert_close(result, network(inputs), atol=1e-5, rtol=1e-5)


def seams():
    """Difference between a tiled and an untiled 3x3 mean, which sees zeros beyond the border of its tile."""
    inputs = image(1, 1, 300, 170)
    network = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    torch.nn.init.constant_(network.weight, 1 / 9)
    with torch.no_grad():
        return (TiledInferer((128, 128))(inputs, network) - network(inputs)).abs()[0, 0]


def test_the_border_of_a_tile_has_little_weight():
    difference = seams()
    assert difference.mean() < 1e-3
    assert difference[20:-20, 20:-20].max() < 0.03


def test_the_border_of_a_tile_has_little_weight_at_the_border_of_the_image():
    assert seams().max() < 0.03


def test_each_pixel_comes_from_where_it_was():
    """Rows and columns are not mixed up, on an image that is not square."""
    y, x = torch.meshgrid(torch.arange(210.0), torch.arange(90.0), indexing="ij")
    result = TiledInferer((64, 96), multiple=32)(torch.stack([y, x])[None], Counted())
    torch.testing.assert_close(result[0], torch.stack([y, x]), atol=1e-3, rtol=1e-5)


def test_tiles_are_filled_up_with_copies_of_the_border():
    lowest = Counted(lambda tile: tile.amin((2, 3), keepdim=True).expand_as(tile).clone())
    result = TiledInferer((64, 64), multiple=16)(torch.ones(1, 1, 10, 200), lowest)
    assert set(lowest.shapes) == {(1, 1, 16, 64)}
    torch.testing.assert_close(result, torch.ones(1, 1, 10, 200))


@pytest.mark.parametrize("size", [(40, 40), (150, 90)])
def test_arguments_reach_the_network(size):
    network = Counted()
    TiledInferer((64, 64))(image(1, 3, *size), network, 7, mode="x")
    assert all(option == ((7,), {"mode": "x"}) for option in network.options)


@pytest.mark.parametrize("size", [(40, 40), (150, 90)])
def test_results_are_float32_and_plain_networks_are_enough(size):
    result = TiledInferer((64, 64))(image(1, 3, *size), lambda x: x[:, :1].to(torch.bfloat16))
    assert result.dtype == torch.float32
    assert result.shape == (1, 1, *size)


@pytest.mark.parametrize("size", [(40, 40), (150, 90)])
def test_images_with_metadata(size):
    inputs = image(1, 3, *size)
    result = TiledInferer((64, 64))(MetaTensor(inputs), Counted())
    torch.testing.assert_close(torch.Tensor(result), inputs)


@pytest.mark.parametrize("options", [{"roi_size": (100, 64)}, {"roi_size": [0, 64]}, {"overlap": 1}, {"overlap": -0.5}])
def test_a_bad_inferer_says_so(options):
    with pytest.raises(ConfigError, match=r"multiples of 32.*tile_size.*overlap"):
        TiledInferer(**options)


@pytest.mark.parametrize(("size", "seen"), [((40, 50), {(60, 75)}), ((1, 3), {(2, 4)}), ((200, 40), {(96, 96)})])
def test_the_network_sees_the_image_magnified(size, seen):
    """Tiles of 64 image pixels become 96; what fits is not cut."""
    network = Counted()
    result = TiledInferer((96, 96), scale=1.5)(image(1, 3, *size), network)
    assert {shape[2:] for shape in network.shapes} == seen
    assert result.shape == (1, 3, *size)


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0])
@pytest.mark.parametrize("size", [(90, 70), (200, 260)])
def test_magnified_pixels_come_back_to_where_they_were(size, scale):
    """A plane survives both resamplings except in the pixels at its border."""
    y, x = torch.meshgrid(torch.arange(float(size[0])), torch.arange(float(size[1])), indexing="ij")
    plane = torch.stack([y, x])
    result = TiledInferer((192, 192), scale=scale)(plane[None], Counted())[0]
    inside = (slice(None), slice(4, -4), slice(4, -4))
    torch.testing.assert_close(result[inside], plane[inside], atol=0.02, rtol=0)


def test_fixed_tiles_have_one_size_whatever_the_image():
    network = Counted()
    inferer = TiledInferer((96, 96), scale=1.5, fixed=True)
    for size in [(5, 9), (64, 64), (200, 70)]:
        inputs = image(1, 3, *size)
        assert inferer(inputs, network).shape == inputs.shape
    assert inferer.network_tile() == [96, 96]
    assert {shape[2:] for shape in network.shapes} == {(96, 96)}


@pytest.mark.parametrize("scale", [0, -1, float("nan")])
def test_a_scale_that_is_no_magnification(scale):
    with pytest.raises(ConfigError, match=r"scale.*magnification above 0"):
        TiledInferer(scale=scale)


# Whole images at one size


@pytest.mark.parametrize("size", [(520, 704), (224, 224), (61, 97), (1, 1)])
def test_whole_images_are_seen_at_one_size_and_come_back(size):
    network = Counted()
    result = ResizeInferer((224, 224))(image(2, 3, *size), network)
    assert network.shapes == [(2, 3, 224, 224)]
    assert result.shape == (2, 3, *size)


def test_answers_come_back_by_the_nearest_pixel():
    answer = torch.tensor([[[[1.0, 2], [3, 4]]]], dtype=torch.bfloat16)
    result = ResizeInferer((2, 2), multiple=2)(image(1, 3, 4, 6), lambda _: answer)
    assert result.dtype == torch.float32
    assert result[0, 0].tolist() == [[1, 1, 1, 2, 2, 2]] * 2 + [[3, 3, 3, 4, 4, 4]] * 2


def test_whole_images_have_no_scale():
    with pytest.raises(ConfigError, match=r"scale.* 2, .*\(224, 224\)"):
        ResizeInferer(scale=2)
    assert ResizeInferer((64, 96)).network_tile() == [64, 96]
