"""Views of an image: what comes back fits the image, and averages of equal views change nothing."""

import numpy as np
import pytest
import torch

from cellbundle.errors import ConfigError
from cellbundle.inference.tiling import TiledInferer
from cellbundle.inference.tta import HoverInferer, undo_view, view_of
from cellbundle.synthetic import generate
from cellbundle.targets.hover import labels_to_hover

VIEWS = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]
TILES = {"roi_size": (32, 32), "multiple": 8, "overlap": 0.25}


def label_map():
    return generate("phase", (48, 70), 12, diameter=14, touching=0.4, seed=1)[1]


def perfect(image):
    """What a perfect network says of a batch of label maps (N, 1, H, W), with a class channel."""
    answers = []
    for labels in image[:, 0].numpy().astype(np.int32):
        maps = labels_to_hover(labels)
        answers.append(np.concatenate([[labels > 0], maps, [labels % 2]]))
    return torch.from_numpy(np.stack(answers).astype(np.float32))


@pytest.mark.parametrize(("turns", "mirrored"), VIEWS)
def test_distances_turn_with_the_image(turns, mirrored):
    image = torch.from_numpy(label_map())[None, None].float()
    view = view_of(image, turns, mirrored)
    assert view.shape[-2:] == ((70, 48) if turns % 2 else (48, 70))
    assert torch.allclose(undo_view(perfect(view), turns, mirrored), perfect(image), atol=1e-6)


@pytest.mark.parametrize(
    ("flips", "rotations", "n"), [(False, False, 1), (True, False, 2), (False, True, 4), (True, True, 8)]
)
def test_views_of_a_perfect_network_agree(flips, rotations, n):
    image = torch.from_numpy(label_map())[None, None].float()
    calls = []

    def network(tile):
        calls.append(tile.shape)
        return perfect(tile)

    answer = HoverInferer(flips, rotations, roi_size=(80, 80), multiple=8)(image, network)
    assert len(calls) == n
    assert torch.allclose(answer, perfect(image), atol=1e-5)


def test_without_options_it_is_a_tiled_inferer():
    image, network = torch.rand(1, 3, 50, 75), torch.nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False)
    options = {**TILES, "scale": 1.5}
    assert torch.equal(HoverInferer(**options)(image, network), TiledInferer(**options)(image, network))
    inferer = HoverInferer(**options)
    assert (inferer.roi_size, inferer.network_tile()) == ((32, 32), TiledInferer(**options).network_tile())


def test_scales_are_averaged():
    image, network = torch.rand(1, 3, 50, 75), torch.nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False)
    both = HoverInferer(scales=[1.0, 1.5], **TILES)(image, network)
    single = [TiledInferer(scale=scale, **TILES)(image, network) for scale in (1.0, 1.5)]
    assert torch.allclose(both, (single[0] + single[1]) / 2)


@pytest.mark.parametrize("scales", [[], [1.0, -1.0]])
def test_scales_that_cannot_be(scales):
    with pytest.raises(ConfigError, match=r"scale.*magnification"):
        HoverInferer(scales=scales)
