"""Detections of tiles in pixels of the image."""

import pytest
import torch
from monai.data import MetaTensor, decollate_batch
from monai.inferers import Inferer

from cellbundle.errors import ArrayError, ConfigError
from cellbundle.inference.detection import DetectionInferer, tile_corners
from cellbundle.inference.tiling import plan_tiles


class Detector(torch.nn.Module):
    """Answers the same for every tile, and notes what it sees."""

    def __init__(self, *boxes, dtype=torch.float32):
        super().__init__()
        self.boxes, self.dtype, self.seen = torch.tensor(boxes).reshape(-1, 4), dtype, []

    def forward(self, tiles, shift=0.0):
        self.seen.append(tiles)
        n = len(self.boxes)
        scores = torch.arange(n, 0, -1) / max(n, 1)
        answer = {"boxes": self.boxes + shift, "scores": scores, "masks": torch.rand(n, 28, 28)}
        answer = {key: value.to(self.dtype) for key, value in answer.items()}
        return [answer | {"labels": torch.full((n,), 2, dtype=torch.int32)} for _ in tiles]


def image(height, width):
    return torch.arange(3.0 * height * width).reshape(1, 3, height, width)


def test_boxes_come_back_in_pixels_of_the_image():
    network = Detector([1, 2, 5, 9], [3, 3, 4, 4])
    found = DetectionInferer((32, 32), 0.25)(image(50, 40), network)
    corners = [(0, 0), (0, 8), (18, 0), (18, 8)]
    assert found["tiles"].tolist() == [[[y, x, y + 32, x + 32] for y, x in corners]]
    assert found["tile_of"].tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
    assert found["boxes"][0, ::2].tolist() == [[1 + x, 2 + y, 5 + x, 9 + y] for y, x in corners]
    assert found["boxes"][0, 1::2].tolist() == [[3 + x, 3 + y, 4 + x, 4 + y] for y, x in corners]
    assert found["scores"].tolist() == [[1, 0.5] * 4]
    assert found["size"].tolist() == [[50, 40]]
    assert found["masks"].shape == (1, 8, 28, 28)
    assert [tile.shape for tile in network.seen] == [(1, 3, 32, 32)] * 4
    torch.testing.assert_close(network.seen[2][0], image(50, 40)[0, :, 18:50, :32])


def test_types_whatever_the_network_gives():
    found = DetectionInferer((32, 32))(image(32, 32), Detector([1, 2, 5, 9], dtype=torch.bfloat16))
    types = {key: value.dtype for key, value in found.items()}
    whole, real = torch.int64, torch.float32
    assert types == {
        "boxes": real, "scores": real, "labels": whole, "masks": real, "tile_of": whole, "tiles": whole, "size": whole
    }  # fmt: skip
    assert {value.device.type for value in found.values()} == {"cpu"}


@pytest.mark.parametrize(("size", "largest", "overlap"), [((1, 1), 32, 0.25), ((97, 131), 64, 0.5), ((200, 33), 64, 0)])
def test_tiles_are_those_of_the_plan_and_cover_the_image(size, largest, overlap):
    plan = plan_tiles(size, (largest, largest), overlap)
    tiles = DetectionInferer((largest, largest), overlap)(image(*size), Detector())["tiles"][0]
    assert len(tiles) == plan.n_tiles == len(tile_corners(plan, size))
    covered = torch.zeros(size)
    for y0, x0, y1, x1 in tiles.tolist():
        assert (y1 - y0, x1 - x0) == (min(plan.tile[0], size[0]), min(plan.tile[1], size[1]))
        assert (y0, x0) >= (0, 0)
        covered[y0:y1, x0:x1] = 1
    assert covered.all()


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_tiles_are_batched(batch):
    network = Detector([1, 2, 5, 9])
    found = DetectionInferer((32, 32), sw_batch_size=batch)(image(50, 80), network, shift=0.0)
    alone = DetectionInferer((32, 32))(image(50, 80), Detector([1, 2, 5, 9]))
    assert [len(tiles) for tiles in network.seen] == {1: [1] * 6, 3: [3, 3], 100: [6]}[batch]
    for key in ("boxes", "scores", "tile_of", "tiles"):
        assert torch.equal(found[key], alone[key])


def test_small_images_are_filled_up():
    """Boxes in the margin go; one over the edge stays as it is, because its mask belongs to all of it."""
    network = Detector([15, 5, 25, 15], [20, 0, 30, 9], [0, 10, 9, 30], [-3, 2, 0, 9], [4, 4, 4, 8])
    found = DetectionInferer((64, 64))(image(10, 20), network)
    assert found["boxes"].tolist() == [[[15, 5, 25, 15]]]
    assert found["tiles"].tolist() == [[[0, 0, 10, 20]]]
    (seen,) = network.seen
    assert seen.shape == (1, 3, 32, 32)
    assert torch.equal(seen[..., :10, :20], image(10, 20))
    assert torch.equal(seen[..., 31, 31], image(10, 20)[..., 9, 19])
    assert torch.equal(seen[..., 4, 25], image(10, 20)[..., 4, 19])


def test_boxes_without_a_place_are_left_out():
    network = Detector([1, 2, float("nan"), 9], [1, 2, 5, 9])
    assert DetectionInferer((32, 32))(image(32, 32), network)["boxes"].tolist() == [[[1, 2, 5, 9]]]


@pytest.mark.parametrize(("scale", "seen"), [(2.0, 64), (0.5, 16), (1.3, 42)])
def test_magnification(scale, seen):
    """Tiles of 32 pixels; the true magnification of the last is 42 / 32, not 1.3."""
    inferer = DetectionInferer((64, 64), scale=scale)
    network = Detector([1, 2, 5, 9])
    found = inferer(image(30, 32), network)
    assert network.seen[0].shape == (1, 3, seen, seen)
    expected = torch.tensor([1, 2, 5, 9]) * 32 / seen
    torch.testing.assert_close(found["boxes"][0, 0], expected)
    assert inferer.network_tile() == {2.0: [64, 64], 0.5: [64, 64], 1.3: [42, 42]}[scale]


@pytest.mark.parametrize("size", [(1, 1), (50, 40)])
@pytest.mark.parametrize("n", [0, 5000])
def test_any_number_of_detections_can_be_decollated(size, n):
    found = DetectionInferer((32, 32))(image(*size), Detector(*[[0, 0, 1, 1]] * n))
    n_tiles = found["tiles"].shape[1]
    assert found["boxes"].shape == (1, n * n_tiles, 4)
    (item,) = decollate_batch({"image": MetaTensor(image(*size)), "pred": found})
    shapes = {key: tuple(value.shape) for key, value in item["pred"].items()}
    n *= n_tiles
    assert shapes == {
        "boxes": (n, 4), "scores": (n,), "labels": (n,), "masks": (n, 28, 28), "tile_of": (n,),
        "tiles": (n_tiles, 4), "size": (2,),
    }  # fmt: skip


def test_the_network_gets_plain_tensors():
    """MONAI Label gives MetaTensors, which networks of ultralytics cannot take."""
    network = Detector([1, 2, 5, 9])
    found = DetectionInferer((32, 32))(MetaTensor(image(40, 40)), network)
    assert {type(tensor) for tensor in [*network.seen, *found.values()]} == {torch.Tensor}


def test_one_image_at_a_time():
    with pytest.raises(ArrayError, match=r"one image \(1, C, H, W\).*\(2, 3, 9, 9\)"):
        DetectionInferer()(torch.zeros(2, 3, 9, 9), Detector())
    with pytest.raises(ArrayError, match=r"one image \(1, C, H, W\).*\(3, 9, 9\)"):
        DetectionInferer()(torch.zeros(3, 9, 9), Detector())


def test_it_is_an_inferer_of_monai():
    inferer = DetectionInferer()
    assert isinstance(inferer, Inferer)
    assert (inferer.roi_size, inferer.overlap, inferer.multiple, inferer.scale) == ((1024, 1024), 0.25, 32, 1.0)
    with pytest.raises(ConfigError, match=r"scale.* 0, .*above 0"):
        DetectionInferer(scale=0)
