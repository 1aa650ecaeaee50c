"""The network of mask_rcnn: size, preparation of images, sparse masks, no limits, weights of backbones."""

import sys

import numpy as np
import pytest
import timm
import torch
from torchvision.models.detection import MaskRCNN
from torchvision.ops import clip_boxes_to_image, roi_align

from cellbundle.decode.masks import paste_masks
from cellbundle.errors import CheckpointError, ConfigError
from cellbundle.instances.overlaps import masks_to_labels
from cellbundle.metrics import image_scores
from cellbundle.synthetic import generate
from cellbundle.targets.boxes import instance_targets

from .contract import REPOSITORY, bundle_modules, run

module, heads = bundle_modules("mask_rcnn", "network", "heads")
MEAN, STD = (torch.tensor(v)[None, :, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def tiny(**options):
    torch.manual_seed(0)
    return module.CellMaskRCNNNetwork(
        **{"backbone": "test_convnext", "proposals": 50, "detections_per_image": 20, "boxes_per_image": 16, **options}
    )


def targets_of(labels):
    return {key: torch.from_numpy(value) for key, value in instance_targets(labels).items()}


def test_number_of_parameters():
    with torch.device("meta"):
        network = module.CellMaskRCNNNetwork()
    assert isinstance(network, MaskRCNN)
    parts = [network, network.backbone.body, network.backbone.fpn, network.rpn, *network.roi_heads.children()]
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts[:4] == [47_671_675, 27_818_592, 2_729_984, 593_935]
    assert {13_895_680, 2_360_320, 262_914} <= set(counts[4:])


@pytest.mark.parametrize("training", [True, False])
def test_images_are_normalised_once_and_not_resized(training):
    network, seen = tiny().train(training), []
    network.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = torch.rand(2, 3, 96, 70)
    labels = np.zeros((96, 70), np.int32)
    labels[4:20, 4:20] = 1
    with torch.no_grad():
        network(images, [targets_of(labels)] * 2 if training else None)
    (prepared,) = seen
    assert prepared.shape == (2, 3, 96, 96), "filled up to multiples of 32"
    assert torch.allclose(prepared[..., :70], (images - MEAN) / STD, atol=1e-6)
    assert not prepared[..., 70:].any()


def test_the_levels_of_the_pyramid_have_small_anchors():
    network = tiny().eval()
    prepared = network.prepare(torch.rand(1, 3, 64, 96))
    features = network.backbone(prepared.tensors)
    assert [tuple(level.shape[-2:]) for level in features.values()] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    assert {level.shape[1] for level in features.values()} == {256}
    (anchors,) = network.rpn.anchor_generator(prepared, list(features.values()))
    areas = torch.unique(((anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1])).sqrt().round())
    assert {8, 16, 32, 64, 128} <= set(areas.int().tolist())
    assert areas.min() >= 7


@pytest.mark.parametrize("border", [False, True])
def test_masks_on_boxes_teach_what_whole_masks_teach(border):
    labels = generate("phase", (120, 150), 40, diameter=20, touching=0.5, seed=2)[1]
    if border:
        labels = labels[10:-13, 7:-9].copy()
    ids = np.unique(labels[labels > 0])
    whole = torch.from_numpy(labels == ids[:, None, None])
    target = targets_of(labels)
    rng = torch.Generator().manual_seed(0)
    matched = torch.randint(len(ids), (200,), generator=rng)
    boxes = target["boxes"][matched] + 4 * torch.randn(200, 4, generator=rng)
    boxes = clip_boxes_to_image(boxes, labels.shape)
    boxes[0] = torch.tensor([0.0, 0.0, labels.shape[1], labels.shape[0]])
    rois = torch.cat([matched[:, None].float(), boxes], 1)
    expected = roi_align(whole[:, None].float(), rois, (28, 28), 1.0, aligned=True)[:, 0]
    found = heads.sample_masks(target, boxes, matched, 28)
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_perfect_mask_head_gives_the_masks_back():
    """Sampling and pasting are inverse to each other, for small cells too; without alignment they are not."""
    labels = generate("phase", (160, 200), 60, diameter=12, touching=0.5, seed=3)[1]
    target = targets_of(labels)
    n = len(target["boxes"])
    sampled = heads.sample_masks(target, target["boxes"], torch.arange(n), 28)
    crops, boxes, kept = paste_masks(sampled.numpy(), target["boxes"].numpy(), labels.shape, 0.5)
    assert kept.tolist() == list(range(n))
    pasted, _ = masks_to_labels(crops, None, labels.shape, boxes)
    assert image_scores(labels, pasted)["ap_mean"] > 0.99


def test_masks_in_parts_equal_masks_at_once(monkeypatch):
    network, image = tiny().eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        (whole,) = network(image)
        monkeypatch.setattr(heads, "MASKS_AT_ONCE", 3)
        (parts,) = network(image)
    assert torch.allclose(whole["masks"], parts["masks"], atol=1e-5)


def test_boxes_are_exact_in_bfloat16():
    """Beyond 512 pixels, bfloat16 has every fourth number only."""
    network = tiny(detections_per_image=None, proposals=200).eval()
    seen = []
    network.roi_heads.box_roi_pool.register_forward_pre_hook(lambda _, given: seen.extend(given[1]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (found,) = network(torch.rand(1, 3, 32, 1024))
    for boxes in (found["boxes"], *seen):
        assert boxes.dtype == torch.float32
        right = boxes[boxes[:, 2] > 600][:, 2]
        assert len(right) > 5
        assert (right % 1 != 0).float().mean() > 0.5


def test_nothing_found_is_an_empty_answer():
    with torch.no_grad():
        (found,) = tiny(score_threshold=1.0).eval()(torch.rand(1, 3, 64, 64))
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        "boxes": (0, 4), "labels": (0,), "scores": (0,), "masks": (0, 28, 28),
    }  # fmt: skip


def test_images_without_cells_train():
    network = tiny().train()
    empty = targets_of(np.zeros((64, 64), np.int32))
    losses = network(torch.rand(2, 3, 64, 64), [empty, empty])
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    assert losses["loss_mask"].item() == losses["loss_rpn_box_reg"].item() == 0
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_one_pixel_and_whole_image_cells_train():
    labels = np.full((64, 64), 2, np.int32)
    labels[5, 63], labels[63, 0] = 1, 3
    losses = tiny().train()(torch.rand(1, 3, 64, 64), [targets_of(labels)])
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_classes_have_masks_of_their_own():
    network = tiny(num_classes=4).eval()
    with torch.no_grad():
        (found,) = network(torch.rand(1, 3, 64, 64))
    assert found["labels"].min() >= 1
    assert found["labels"].max() <= 3


@pytest.mark.parametrize("name", ["test_resnet", "swin_tiny_patch4_window7_224"])
def test_other_feature_extractors(name):
    with torch.no_grad():
        features = module.FeatureBackbone(name).eval()(torch.rand(1, 3, 64, 96))
    assert [tuple(level.shape[-2:]) for level in features.values()] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]


def test_weights_of_a_backbone_come_from_a_file(tmp_path):
    torch.manual_seed(1)
    published = timm.create_model("test_convnext")
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    loaded = module.FeatureBackbone("test_convnext", str(tmp_path / "weights.pth"))
    assert torch.equal(loaded.body.stem_0.weight, published.stem[0].weight)


def test_what_cannot_be_a_backbone(tmp_path):
    with pytest.raises(ConfigError, match=r"'no_such_model'.*timm"):
        module.FeatureBackbone("no_such_model")
    with pytest.raises(ConfigError, match=r"test_vit.*strides.*\[4, 8, 16, 32\]"):
        module.FeatureBackbone("test_vit")
    with pytest.raises(ConfigError, match=r"test_maxvit.*one size"):
        module.FeatureBackbone("test_maxvit")
    with pytest.raises(ConfigError, match=r"num_classes.* 1, .* 2 "):
        tiny(num_classes=1)
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"broken\.pth"):
        module.FeatureBackbone("test_convnext", str(tmp_path / "broken.pth"))
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"test_convnext.*other\.pth.*KeyError"):
        module.FeatureBackbone("test_convnext", str(tmp_path / "other.pth"))
    with pytest.raises(ConfigError, match=r"targets.*eval\(\)"):
        tiny().train()(torch.rand(1, 3, 64, 64))
    with pytest.raises(ConfigError, match=r"anchor_sizes.* 2 sizes.* 5 levels"):
        tiny(anchor_sizes=(8, 16))


MEMORY = """
import sys
from pathlib import Path
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
from cellbundle.synthetic import generate
from cellbundle.targets.boxes import instance_targets
from scripts.network import CellMaskRCNNNetwork
image, labels = generate("phase", (520, 704), 440, diameter=20, touching=0.5)
target = {key: torch.from_numpy(value) for key, value in instance_targets(labels).items()}
network = CellMaskRCNNNetwork().train()
optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
for _ in range(2):
    losses = network(torch.from_numpy(image)[None, None].float().repeat(1, 3, 1, 1) / 255, [target])
    sum(losses.values()).backward()
    optimizer.step()
    optimizer.zero_grad()
status = Path("/proc/self/status").read_text()  # ru_maxrss starts at the size of the process that started this one
print(labels.max(), next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_of_training_on_a_crowded_image():
    done = run([sys.executable, "-c", MEMORY, str(REPOSITORY / "bundles" / "mask_rcnn")], REPOSITORY)
    assert done.returncode == 0, done.stderr
    n_cells, kilobytes = done.stdout.split()
    assert int(n_cells) >= 400
    assert int(kilobytes) / 2**20 < 6, f"{n_cells} cells on 520 x 704"
