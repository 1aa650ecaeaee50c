"""Weights of hover_uni's backbones: their publishers' layouts, other files, and where they come from."""

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from cellbundle.errors import CheckpointError

from .contract import picture
from .tiny_hover_uni import backbones, module, on_meta, tiny

UNI = {"img_size": 224, "patch_size": 16, "init_values": 1e-5, "num_classes": 0, "dynamic_img_size": True}
UNI2 = {
    "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "init_values": 1e-5, "embed_dim": 1536,
    "mlp_ratio": 2.66667 * 2, "num_classes": 0, "no_embed_class": True, "mlp_layer": timm.layers.SwiGLUPacked,
    "act_layer": torch.nn.SiLU, "reg_tokens": 8, "dynamic_img_size": True,
}  # fmt: skip
PUBLISHED = {"uni": ("vit_large_patch16_224", UNI), "uni2_h": ("vit_giant_patch14_224", UNI2)}
ignore_meta = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")


def file_of(weights, path):
    """A file of these shapes whose tensors are one number each, so that it has a few kB."""
    torch.save({key: torch.full((), 0.5).expand(value.shape) for key, value in weights.items()}, path)
    return str(path)


def published_file(name, folder):
    """A checkpoint with the keys and shapes of the published one."""
    architecture, options = PUBLISHED[name]
    with torch.device("meta"):
        return file_of(timm.create_model(architecture, **options).state_dict(), folder / f"{name}.bin")


@ignore_meta
@pytest.mark.parametrize("name", ["uni", "uni2_h"])
def test_published_layouts_load_strictly(name, tmp_path):
    backbones.load_backbone(on_meta(name).backbone, name, published_file(name, tmp_path))


def test_values_of_a_published_layout_arrive(tmp_path):
    torch.manual_seed(0)
    published = timm.create_model("vit_small_patch16_224")  # with the classifier, which features do not need
    torch.save(published.state_dict(), tmp_path / "small.bin")
    save_file(published.state_dict(), tmp_path / "small.safetensors")
    image = picture(1, 3, 224, 224)
    with torch.no_grad():
        expected = published.eval().forward_intermediates((image - 0.5) / 0.5, indices=4, intermediates_only=True)
    for file in ("small.bin", "small.safetensors"):
        network = module.HoverUniNetwork("vit_small_patch16_224", str(tmp_path / file), pyramid_width=8).eval()
        assert all(
            torch.equal(network.backbone.state_dict()[k], v)
            for k, v in published.state_dict().items()
            if "head" not in k
        )
        with torch.no_grad():
            deepest = published.norm(expected[-1].flatten(2).mT).mT.unflatten(2, (14, 14))
            assert torch.allclose(network.features(image)[-1], deepest, atol=1e-5)


@pytest.mark.parametrize(
    ("wanted", "there", "message"),
    [
        (
            "uni",
            "uni2_h",
            "1536 channels.*14 x 14.*--backbone uni2_h .*for uni, .*gated",
        ),
        ("uni2_h", "uni", "1024 channels.*16 x 16.*--backbone uni .*for uni2_h, "),
        (
            "vit_large_patch16_224",
            "uni",
            "--backbone uni .*for vit_large_patch16_224, .*--backbone_weights",
        ),
    ],
)
def test_a_file_of_another_backbone(wanted, there, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        backbones.load_backbone(on_meta(wanted).backbone, wanted, published_file(there, tmp_path))


def test_files_that_are_no_backbone(tmp_path):
    whole = file_of(tiny().state_dict(), tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match=r"whole\.pt.*--pretrained_ckpt_path"):
        tiny(backbone_weights=whole)
    with pytest.raises(CheckpointError, match=r"other\.pt.*no vision transformer.*timm"):
        tiny(backbone_weights=file_of({"conv.weight": torch.zeros(1)}, tmp_path / "other.pt"))
    (tmp_path / "cut.safetensors").write_bytes(b"abc")
    with pytest.raises(CheckpointError, match=r"cut\.safetensors.*truncated"):
        tiny(backbone_weights=str(tmp_path / "cut.safetensors"))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        (
            "uni",
            None,
            r"access.*https://huggingface\.co/MahmoodLab/UNI, .*--backbone_weights.*open backbone: --backbone",
        ),
        ("uni2_h", "none.bin", r"none\.bin.*gated.*MahmoodLab/UNI2-h"),
        ("vit_large_patch16_224", None, "--backbone_weights hub.*Apache-2.0.* file.* random"),
        ("vit_tiny_4", "hub", "vit_tiny_4.*no published weights.*--backbone_weights random"),
    ],
)
def test_missing_weights_say_how_to_get_them(name, given, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        backbones.find_backbone_weights(name, given, str(tmp_path))


def test_where_weights_come_from(tmp_path, monkeypatch):
    find = backbones.find_backbone_weights
    assert find("uni", None, str(tmp_path), wanted=False) is None
    assert find("uni", "random", str(tmp_path)) is None
    assert find("vit_tiny_4", None, str(tmp_path)) is None
    (tmp_path / "uni.bin").touch()
    assert find("uni", None, str(tmp_path)) == str(tmp_path / "uni.bin")

    def give(repository, file):
        if repository == "MahmoodLab/UNI":
            return f"cache/{file}"
        raise OSError("401")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", give)
    assert find("uni", "hub", str(tmp_path)) == "cache/pytorch_model.bin"
    with pytest.raises(CheckpointError, match=r"UNI2-h.*pytorch_model\.bin.*OSError.*gated"):
        find("uni2_h", "hub", str(tmp_path))
