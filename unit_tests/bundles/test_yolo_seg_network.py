"""The network of yolo_seg: sizes, all that is found, masks as ultralytics makes them, whole images, bad options."""

import re

import numpy as np
import pytest
import tifffile
import torch
from torch.nn import functional as F

pytest.importorskip("ultralytics", reason="the extra yolo is not installed")

from ultralytics.utils.ops import process_mask_native

from cellbundle.cli import main
from cellbundle.decode.masks import paste_masks
from cellbundle.errors import ConfigError
from cellbundle.inference.detection import DetectionInferer
from cellbundle.inference.predictor import Predictor
from cellbundle.io import read_labels
from cellbundle.metrics import image_scores
from cellbundle.synthetic import generate
from cellbundle.transforms import DecodeDetectionsd

from .contract import REPOSITORY, bundle_modules
from .yolo_heads import give_perfect_head, picture, squares

(module,) = bundle_modules("yolo_seg", "network")
BUNDLE = REPOSITORY / "bundles" / "yolo_seg"


def lively(architecture="yolo11n-seg", **options):
    """A network with random weights that finds something everywhere."""
    torch.manual_seed(0)
    network = module.YoloNetwork(architecture, **options)
    head = network.model.model[-1]
    for levels in (head.cv3, getattr(head, "one2one_cv3", [])):
        for level in levels:
            torch.nn.init.zeros_(level[-1].bias)
    return network.eval()


def segment(network, labels, **options):
    """Label map, scores and classes that a network with a perfect head finds in the picture of a label map."""
    with torch.no_grad():
        found = DetectionInferer(**options)(picture(labels)[None], network)
    return DecodeDetectionsd()({"pred": {key: value[0] for key, value in found.items()}})


# What is built


def test_number_of_parameters():
    network = module.YoloNetwork()
    assert sum(p.numel() for p in network.parameters()) == 2_842_803
    assert type(network.model).__name__ == "SegmentationModel"
    assert all(key.startswith("model.model.") for key in network.state_dict()), "and nothing twice"
    assert network.strides == [8, 16, 32]


def test_networks_by_name():
    names, others = module.architectures()
    assert {f"yolo11{size}-seg" for size in "nsmlx"} | {"yolov8n-seg", "yolov9c-seg", "yolo26x-seg"} <= set(names)
    assert {"yolo11n", "yolov8x-pose", "yolo11n-cls"} <= set(others)
    assert not any("yoloe" in name or name.endswith("11-seg") for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "yolo11n"}, "architecture.*'yolo11n'.*instance segmentation.* yolo11n-seg, "),
        ({"architecture": "yolo99"}, "architecture.*'yolo99'.*not known.* yolo11n-seg, "),
        ({"num_classes": 0}, "num_classes.* 0, .* 1 "),
        ({"max_detections": 300}, "max_detections.* 300, .* 1000 "),
        ({"score_threshold": 1.5}, "score_threshold.* 1.5, .* 0 to 1"),
        ({"nms_iou": -0.1}, "nms_iou.* -0.1, .* 0 to 1"),
        ({"mask_size": 0}, "mask_size.* 0, .* 1 "),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        module.YoloNetwork(**options)


# Forward


@pytest.mark.parametrize("size", [(64, 64), (61, 97), (1, 1)])
@pytest.mark.parametrize("architecture", ["yolo11n-seg", "yolo26n-seg", "yolov8n-seg-p6"])
def test_sizes_that_are_no_multiples(architecture, size):
    with torch.no_grad():
        found = lively(architecture, num_classes=2)(torch.rand(2, 3, *size))
    assert len(found) == 2
    for one in found:
        n = len(one["scores"])
        assert n > 0
        assert [tuple(one[key].shape) for key in ("boxes", "labels", "masks")] == [(n, 4), (n,), (n, 56, 56)]
        assert (one["boxes"] >= 0).all()
        assert (one["boxes"] <= torch.tensor([size[1], size[0]] * 2)).all()
        assert (one["scores"].diff() <= 0).all()
        assert set(one["labels"].tolist()) <= {1, 2}
        assert one["masks"].min() >= 0
        assert one["masks"].max() <= 1


def test_nothing_found_is_an_empty_answer():
    with torch.no_grad():
        (found,) = module.YoloNetwork(score_threshold=0.9).eval()(torch.rand(1, 3, 64, 64))
    assert {key: (tuple(value.shape), value.dtype) for key, value in found.items()} == {
        "boxes": ((0, 4), torch.float32), "labels": ((0,), torch.int64), "scores": ((0,), torch.float32),
        "masks": ((0, 56, 56), torch.float32),
    }  # fmt: skip


def test_smaller_images_are_filled_up_with_grey():
    network, seen = lively(), []
    network.model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    image = torch.rand(1, 3, 40, 64)
    with torch.no_grad():
        network(image)
    assert seen[0].shape == (1, 3, 64, 64)
    assert torch.equal(seen[0][:, :, :40], image)
    assert (seen[0][:, :, 40:] == 114 / 255).all()


def test_training_gives_what_the_losses_of_ultralytics_take():
    answer = module.YoloNetwork().train()(torch.rand(2, 3, 64, 64))
    assert answer["boxes"].shape == (2, 64, 84)
    assert answer["proto"].shape == (2, 32, 16, 16)


def test_what_tensorrt_is_to_give_has_a_static_shape():
    network = lively(num_classes=2)
    with torch.no_grad():
        answer = network.raw(torch.rand(3, 3, 64, 96))
        traced = torch.jit.trace(network.raw, torch.rand(1, 3, 64, 96), strict=False, check_trace=False)
        image = torch.rand(1, 3, 64, 96)
        assert torch.allclose(traced(image)["raw"], network.raw(image)["raw"], atol=1e-5)
    assert {key: tuple(value.shape) for key, value in answer.items()} == {
        "raw": (3, 64 + 2 + 32, 8 * 12 + 4 * 6 + 2 * 3), "prototypes": (3, 32, 16, 24),
    }  # fmt: skip


def test_boxes_are_exact_in_bfloat16():
    """Beyond 512 pixels, bfloat16 has every fourth number only."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (found,) = lively()(torch.rand(1, 3, 32, 1024))
    right = found["boxes"][:, 2]
    right = right[(right > 600) & (right < 1024)]
    assert {value.dtype for value in found.values()} == {torch.float32, torch.int64}
    assert len(right) > 5
    assert (right % 1 != 0).float().mean() > 0.5


# Masks


@pytest.mark.parametrize(("sides", "least"), [((6, 16), 0.999), ((16, 40), 0.999), ((40, 80), 0.99)])
def test_masks_are_those_of_ultralytics(sides, least):
    """Up to half a pixel at the box: ultralytics keeps pixels by their upper left corners, we by their centres."""
    rng = torch.Generator().manual_seed(0)
    prototypes = F.interpolate(torch.randn(1, 32, 16, 16, generator=rng), size=(32, 32), mode="bicubic")[0]
    coefficients = torch.randn(100, 32, generator=rng)
    low = torch.rand(100, 2, generator=rng) * 48
    boxes = torch.cat([low, low + sides[0] + (sides[1] - sides[0]) * torch.rand(100, 2, generator=rng)], 1)
    theirs = process_mask_native(prototypes, coefficients, boxes - 0.5, (128, 128)).bool().numpy()
    masks = module.sample_masks(prototypes, coefficients, boxes, 56).numpy()
    ours = np.zeros_like(theirs)
    for crop, (y0, x0, y1, x1), i in zip(*paste_masks(masks, boxes.numpy(), (128, 128), 0.5), strict=True):
        ours[i, y0:y1, x0:x1] = crop
    union = (ours | theirs).sum((1, 2))
    assert ((ours & theirs).sum((1, 2))[union > 0] / union[union > 0]).mean() > least


def test_masks_of_many_boxes_are_those_of_each():
    prototypes, coefficients = torch.randn(32, 16, 16), torch.randn(150, 32)
    boxes = torch.cat([low := torch.rand(150, 2) * 40, low + 20], 1)
    together = module.sample_masks(prototypes, coefficients, boxes, 8)
    alone = [module.sample_masks(prototypes, coefficients[i : i + 1], boxes[i : i + 1], 8) for i in range(150)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


# A head that knows what is there


@pytest.mark.parametrize("architecture", ["yolo11n-seg", "yolo26n-seg"])
def test_cells_come_back(architecture):
    labels = generate("phase", (160, 224), 60, diameter=20, touching=0.5, seed=1)[1]
    found = segment(give_perfect_head(module.YoloNetwork(architecture)), labels)
    assert len(found["detections"]) == 60, "duplicates are left out"
    scores = image_scores(labels, found["pred"][0].numpy())
    assert scores["ap50"] == 1.0
    assert scores["pq"] > 0.85


def test_two_classes():
    labels = squares((96, 128), 16, 20)
    found = segment(give_perfect_head(module.YoloNetwork(num_classes=2)), labels)
    centres = [tuple((box[:2] + box[2:]) // 2) for box in found["detections"].boxes_yxyx]
    assert len(centres) == labels.max()
    assert [int(c) for c in found["detections"].classes] == [2 - labels[place] % 2 for place in centres]


def test_a_thousand_cells_are_a_thousand_detections(caplog):
    """Ultralytics alone would keep 300; a limit of ours is said."""
    labels = squares((448, 448), 8, 12)
    assert labels.max() == 1369
    network = give_perfect_head(module.YoloNetwork())
    assert len(segment(network, labels)["detections"]) == 1369
    network.limit = 1000
    assert len(segment(network, labels)["detections"]) == 1000
    assert re.search("1000 detections.*network_def#max_detections", caplog.text)


def test_a_large_image_gives_each_cell_once():
    labels = generate("phase", (300, 420), 150, diameter=20, touching=0.5, seed=3)[1]
    network = give_perfect_head(module.YoloNetwork())
    found = segment(network, labels, roi_size=(128, 128), overlap=0.25, sw_batch_size=2)
    scores = image_scores(labels, found["pred"][0].numpy())
    assert len(found["detections"]) == labels.max() == 150
    assert scores["ap50"] == 1.0
    assert scores["pq"] > 0.85


# Inference


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(lively().state_dict(), path)
    return path


def test_predictor_uses_the_bundle(weights):
    predictor = Predictor(BUNDLE, device="cpu", tile=64, weights=weights)
    instances = predictor(np.random.default_rng(0).random((3, 70, 90), np.float32))
    assert len(instances) > 0
    assert instances.labels.shape == (70, 90)
    assert instances.table["score"].between(0.25, 1).all()


def test_cellbundle_predict(weights, tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", np.random.default_rng(0).integers(0, 255, (70, 90), np.uint8))
    options = ["--bundle", str(BUNDLE), "--weights", str(weights), "--device", "cpu", "--tile", "64"]
    with pytest.raises(SystemExit) as done:
        main(["predict", str(tmp_path / "image.tif"), "-o", str(tmp_path / "out"), *options])
    assert done.value.code == 0
    assert read_labels(tmp_path / "out" / "image_labels.tif").max() > 0
