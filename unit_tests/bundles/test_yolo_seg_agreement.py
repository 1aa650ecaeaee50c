"""Ultralytics finds what we find, before overlaps are removed."""

import json

import numpy as np
import pytest
import tifffile
import torch

pytest.importorskip("ultralytics", reason="the extra yolo is not installed")

from pycocotools import mask as coco

from cellbundle.synthetic import generate

from .contract import bundle_modules
from .yolo_heads import give_perfect_head, picture, squares

network, agreement = bundle_modules("yolo_seg", "network", "agreement")


def masks(*boxes, classes=None):
    """Run lengths of rectangles y0, x0, y1, x1 on 20 x 20 pixels."""
    stack = np.zeros((20, 20, len(boxes)), np.uint8, order="F")
    for i, (y0, x0, y1, x1) in enumerate(boxes):
        stack[y0:y1, x0:x1, i] = 1
    return coco.encode(stack), np.array(classes or [1] * len(boxes))


def test_matches_by_hand():
    counted = agreement.Agreement()
    assert counted.f1 == 1.0
    counted.add(masks((0, 0, 4, 4), (10, 10, 14, 14), (0, 10, 4, 14)), masks((10, 10, 14, 14), (0, 0, 4, 8)))
    assert (counted.ours, counted.theirs, sorted(counted.ious)) == (3, 2, [0.5, 1.0])
    assert counted.f1 == 0.8
    assert str(counted) == "F1 0.8000: 2 of 3 (ours) and 2; mean IoU 0.7500"
    counted.add(masks((0, 0, 4, 4), classes=[2]), masks((0, 0, 4, 4)))
    counted.add(masks((0, 0, 4, 4)), ([], np.zeros(0)))
    assert (counted.ours, counted.theirs, len(counted.ious)) == (5, 3, 2)


def test_as_many_matches_as_can_be():
    """The first could take the second's only partner, which is even more like it."""
    counted = agreement.Agreement()
    counted.add(masks((0, 0, 10, 10), (0, 0, 10, 6)), masks((0, 0, 10, 8), (2, 0, 10, 10)))
    assert sorted(counted.ious) == [0.75, 0.8]


def test_pieces_are_multiples_of_32():
    image = torch.arange(3 * 100 * 170).view(3, 100, 170).float()
    found = list(agreement.pieces(image, [64, 96]))
    assert [tuple(piece.shape) for piece in found] == [(3, 64, 96), (3, 64, 64), (3, 32, 96), (3, 32, 64)]
    assert torch.equal(found[3], image[:, 64:96, 96:160])


@pytest.mark.parametrize(("architecture", "classes"), [("yolo11n-seg", 1), ("yolo26n-seg", 2)])
def test_ours_are_those_of_ultralytics(architecture, classes):
    """More than the 300 in an image that ultralytics keeps unless it is told otherwise; touching ones; none."""
    model = give_perfect_head(network.YoloNetwork(architecture, num_classes=classes))
    theirs, counted = agreement.Theirs(model, 0.25), agreement.Agreement()
    touching = generate("phase", (160, 224), 60, diameter=20, touching=0.5, seed=1)[1]
    for labels in (squares((256, 320), 10, 14), touching, np.zeros((64, 32), np.int32)):
        with torch.inference_mode():
            counted.add(agreement.our_masks(model, picture(labels), 0.25), theirs(picture(labels)))
    assert counted.theirs == 396 + 60
    assert counted.f1 >= 0.99
    assert np.mean(counted.ious) > 0.99


def test_command(tmp_path, capsys):
    torch.manual_seed(0)
    model = network.YoloNetwork()
    for level in model.model.model[-1].cv3:
        torch.nn.init.zeros_(level[-1].bias)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    tifffile.imwrite(tmp_path / "image.tif", np.random.default_rng(0).integers(0, 255, (40, 70), np.uint8))
    total = agreement.main(str(tmp_path / "model.pt"), input_dir=str(tmp_path), device_name="cpu", tile_size=[32, 64])
    first, last = capsys.readouterr().out.splitlines()
    assert total.theirs > 0
    assert first == f"{total}  {tmp_path / 'image.tif'}"
    assert last == f"{total}  all 1 images"
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps({"testing": [{"image": "image.tif"}]}))
    where = {"datalist": str(datalist), "basedir": str(tmp_path), "device_name": "cpu", "tile_size": [32, 64]}
    assert agreement.main(str(tmp_path / "model.pt"), **where) == total
