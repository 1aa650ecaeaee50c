"""Files of weights for vista2d: SAM's, its own, and what is said of others."""

import re

import pytest
import torch

from cellbundle.engine.network import load_weights
from cellbundle.errors import CheckpointError

from .tiny_vista2d import TINY, module, sam_file, tiny, vista_file


def test_the_encoder_starts_from_a_sam_file(tmp_path):
    source = tiny(seed=5)
    network = module.VistaNetwork(**TINY, sam_checkpoint=str(sam_file(source, tmp_path / "sam.pth")))
    for key, value in network.model.image_encoder.state_dict().items():
        assert torch.equal(value, source.model.image_encoder.state_dict()[key])
    assert not torch.equal(network.model.mask_decoder[2].weight, source.model.mask_decoder[2].weight)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_are_accepted(prefix, tmp_path):
    source, target = tiny(seed=1), tiny(seed=2)
    load_weights(target, vista_file(source, tmp_path / "model.pt", lambda key: prefix + key))
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())


NOT_WEIGHTS = {
    "sam": [
        r"missing \(model\.image_encoder\.pos_embed",
        r"not expected \(image_encoder\.pos_embed",
        "--sam_checkpoint",
        "model.pt of VISTA2D",
    ],
    "other size": [
        r"\(1, 6, 6, 32\).*\(1, 4, 4, 16\)",
        "2 blocks of 32 channels.* 6 x 6, .*2 blocks of 16 channels.* 4 x 4",
        "configs/small.yaml",
    ],
    "incomplete": [r"missing \(", "incomplete.*model.pt of VISTA2D"],
    "unrelated": [r"1 not expected \(conv\.weight\)", "neither SAM nor VISTA2D.*model.pt of VISTA2D"],
    "truncated": ["not a readable checkpoint.*truncated"],
}
NOT_SAM = {
    "vista": [
        r"missing \(pos_embed",
        r"not expected \(model\.image_encoder\.pos_embed",
        "--pretrained_ckpt_path",
        "sam_vit_b_01ec64.pth",
    ],
    "other size of sam": [
        r"pos_embed: \(1, 6, 6, 32\).*\(1, 4, 4, 16\)",
        "2 blocks of 32 channels",
        "sam_vit_b_01ec64.pth",
    ],
    "unrelated": ["neither SAM nor VISTA2D.*sam_vit_b_01ec64.pth"],
    "truncated": ["not a readable checkpoint.*truncated"],
}


def wrong_file(kind, path):
    """A file of one of the kinds above."""
    other = {"embed_dim": 32, "network_resize_roi": [96, 96]}
    if "sam" in kind:
        return sam_file(tiny(**(other if "size" in kind else {})), path)
    if kind == "incomplete":
        torch.save({"state_dict": dict(list(tiny().state_dict().items())[:9])}, path)
    elif kind == "unrelated":
        torch.save({"conv.weight": torch.zeros(1)}, path)
    else:
        vista_file(tiny(**(other if "size" in kind else {})), path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    return path


@pytest.mark.parametrize("kind", NOT_WEIGHTS)
def test_another_file_than_the_weights(kind, tmp_path):
    with pytest.raises(CheckpointError) as error:
        load_weights(tiny(), wrong_file(kind, tmp_path / "some.pt"))
    assert all(re.search(message, str(error.value)) for message in ["some.pt", *NOT_WEIGHTS[kind]]), error.value


@pytest.mark.parametrize("kind", NOT_SAM)
def test_another_file_than_sam(kind, tmp_path):
    path = wrong_file(kind, tmp_path / "some.pth")
    with pytest.raises(CheckpointError) as error:
        module.VistaNetwork(**TINY, sam_checkpoint=str(path))
    assert all(re.search(message, str(error.value)) for message in ["some.pth", *NOT_SAM[kind]]), error.value
