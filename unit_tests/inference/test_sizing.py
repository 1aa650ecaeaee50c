"""The size of cells is found: which looks are taken, which one counts, and that the rest is as in a tiled inferer."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from cellbundle.errors import ConfigError
from cellbundle.inference import sizing
from cellbundle.inference.segment import segment
from cellbundle.inference.sizing import Size, SizedInferer, windows
from cellbundle.inference.tiling import TiledInferer

BEST = 20.0
SIDE = 240
DISC = 2 / np.sqrt(np.pi)  # diameter of the disc that is as large as a square of 1


class Network:
    """Sees bright squares in an image, with the larger logits the nearer their diameter is to the best."""

    def __init__(self, diameter, largest=4.0):
        self.diameter, self.largest, self.seen = diameter, largest, []

    def __call__(self, image):
        scale = image.shape[-1] / SIDE
        self.seen.append(round(scale, 2))
        logit = self.largest - 3 * abs(np.log(scale * self.diameter / BEST))
        return (image[:, :1] > 0.5).float() * (logit + 10) - 10


def decoder(data):
    """Connected pixels are a cell; scores are mean probabilities."""
    labels, n = ndimage.label(data["pred"][0].numpy() > 0)
    scores = ndimage.mean(data["pred"][0].sigmoid().numpy(), labels, range(1, n + 1)) if n else np.zeros(0)
    found = torch.from_numpy(labels[None].astype(np.int32))
    return {"pred": found, "scores": scores, "all_labels": found, "all_scores": scores}


def squares(diameter, side=SIDE):
    """(1, 3, side, side) with four squares of the area of a disc."""
    image, length = torch.zeros(1, 3, side, side), round(diameter / DISC)
    for y in (4, side // 2):
        for x in (4, side // 2):
            image[..., y : y + length, x : x + length] = 1
    return image


def inferer(diameter="auto", **options):
    return SizedInferer(decoder, BEST, diameter, roi_size=(1024, 1024), **options)


def looked(diameter, **options):
    network = Network(diameter, **options)
    (look,) = inferer().look(squares(diameter), network)
    return look.size, network.seen


@pytest.mark.parametrize("diameter", [13, 20, 29])
def test_cells_that_suit_the_scale_are_seen_at_it(diameter):
    size, seen = looked(diameter)
    assert size.diameter == pytest.approx(diameter, rel=0.05)
    assert size.magnification == pytest.approx(min(1, BEST / diameter), rel=0.15)
    assert seen[0] == 0.4
    assert len(seen) == 2


@pytest.mark.parametrize("diameter", [8.5, 40, 80, 110])
def test_cells_of_another_size_are_seen_at_their_own(diameter):
    size, seen = looked(diameter)
    assert size.diameter == pytest.approx(diameter, rel=0.1)
    assert size.magnification == pytest.approx(BEST / diameter, rel=0.3)
    assert len(seen) <= 3


def test_cells_that_are_doubtful_in_every_look_have_no_size():
    size, seen = looked(20, largest=1.0)
    assert size == Size(None, 1.0)
    assert seen == [0.4, 1.0]


def test_magnification_has_limits():
    size, _ = looked(6, largest=5.1)
    assert size.magnification == sizing.LIMITS[1]


@pytest.mark.parametrize("n", [0, 2])
def test_a_size_that_cannot_be_found_is_not_said(n):
    image = squares(20)
    image[..., 100:, :] = 0 if n else image[..., 100:, :]
    (look,) = inferer().look(image if n else torch.zeros_like(image), Network(20))
    assert look.size == Size(None, 1.0)
    assert str(look.size) == "cells of unknown size, magnification 1.00"


def test_what_people_read():
    assert str(Size(61.7, 0.507)) == "cells of about 62 px, magnification 0.51"


@pytest.mark.parametrize(("diameter", "scale"), [("none", 1.0), (40, 0.5), (10, 2.0), (None, 1.0)])
def test_a_size_that_is_given_needs_one_look(diameter, scale):
    network = Network(80)
    (look,) = inferer(diameter).look(squares(80), network)
    assert network.seen == [scale]
    assert look.size == (Size() if diameter in ("none", None) else Size(diameter, scale))


def test_without_a_size_the_inferer_is_a_tiled_one():
    images = torch.rand(2, 3, 130, 90)
    own, tiled = inferer("none", scale=1.5), TiledInferer((1024, 1024), scale=1.5)
    assert torch.equal(own(images, lambda x: x[:, :2]), tiled(images, lambda x: x[:, :2]))


def test_each_image_of_a_batch_has_its_own_size():
    batch = torch.cat([squares(20), squares(80), torch.zeros_like(squares(20))])

    def network(image):
        """Large squares are clear where they are seen small, and empty else."""
        scale = image.shape[-1] / SIDE
        large = image[:, :1, int(60 * scale), int(60 * scale)].reshape(-1, 1, 1, 1) > 0.5
        good = large if scale < 0.5 else ~large
        return ((image[:, :1] > 0.5) * 20.0 - 10) * torch.where(good, 1.0, 0.1)

    looks = inferer().look(batch, network)
    assert [look.size.magnification < 0.5 for look in looks] == [False, True, False]
    together = inferer()(batch, network)
    alone = torch.cat([inferer()(image[None], network) for image in batch])
    assert torch.equal(together, alone)


def test_segmentations_say_the_size_and_are_decoded_once():
    decoded = []

    def counted(data):
        decoded.append(data)
        return decoder(data)

    sized = SizedInferer(counted, BEST, roi_size=(1024, 1024))
    (found,) = segment(squares(20), torch.nn.Module(), lambda images, _: sized(images, Network(20)), counted, amp=False)
    assert found.size == Size()  # of an inferer that does not say it
    decoded.clear()
    network = torch.nn.Module()
    network.forward = Network(20)
    (found,) = segment(squares(20), network, sized, counted, amp=False)
    assert found.size.diameter == pytest.approx(20, rel=0.05)
    assert found.labels.max() == 4
    assert len(decoded) == 2, "once for each look"


def test_the_size_of_cells_of_a_large_image_is_found_in_windows(monkeypatch):
    monkeypatch.setattr(sizing, "SAMPLED", 400**2)
    monkeypatch.setattr(sizing, "WINDOW", SIDE)
    image = torch.zeros(1, 3, 5 * SIDE, 4 * SIDE)
    image[..., :SIDE, SIDE : 2 * SIDE], image[..., 4 * SIDE :, :SIDE] = squares(80)[0], squares(80)[0]
    shapes = []

    def network(seen):
        shapes.append(tuple(seen.shape))
        clear = 8.0 if seen.shape[-1] < 0.3 * SIDE or len(shapes) > 3 else 2.0
        return (seen[:, :1] > 0.5).float() * (clear + 10) - 10

    (look,) = inferer().look(image, network)
    assert look.size.diameter == pytest.approx(80, rel=0.1)
    assert look.prediction.shape == (1, 5 * SIDE, 4 * SIDE)
    assert [shape[0] for shape in shapes] == [4, 4, 4, 1]
    assert shapes[-1][2] == pytest.approx(5 * SIDE * look.size.magnification, abs=1)


def test_windows_are_where_there_is_something_to_see():
    image = torch.zeros(2, 2500, 3100)
    image[:, 1100:1200, 2100:2200], image[:, 10:20, 10:20] = 1, 1
    found = windows(image)
    assert found.shape == (4, 2, 1024, 1024)
    assert sorted(float(window.sum()) for window in found)[-2:] == [200, 20000]
    assert windows(image[:, :50]).shape == (3, 2, 50, 1024)


@pytest.mark.parametrize("diameter", [0, -3, float("nan"), "x", "folder"])
def test_a_diameter_that_cannot_be(diameter):
    with pytest.raises(ConfigError, match=r"diameter is .*above 0, auto or none"):
        inferer(diameter)
