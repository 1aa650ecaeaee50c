"""swin_unet on LIVECell as it is published, and on images and labels that are not as expected."""

import json

import numpy as np
import pytest
import torch

from cellbundle.datasets import prepare
from cellbundle.errors import CellBundleError, LabelReadError
from cellbundle.io import read_labels
from cellbundle.synthetic import generate

from ..datasets import test_livecell as files
from . import test_swin_unet
from .contract import save_list

BUNDLE = test_swin_unet.TestSwinUNet()


def run(datalist, folder, mode="train", **options):
    """The workflow after its run."""
    workflow = BUNDLE.make(datalist, folder, mode, **{"crops_per_epoch": 4, "batch_size": 2, **options})
    workflow.run()
    return workflow


def phase(size=(96, 120), seed=0):
    return generate("phase", size, 12, diameter=20, seed=seed)


# LIVECell


def test_livecell_from_published_files_to_the_binary_iou(tmp_path):
    raw = files.Published(tmp_path / "raw")
    cells = [[files.box(2, 3, 14, 15)], [files.box(20, 30, 20, 20)], [files.box(30, 45, 15, 12)]]
    for number, part in enumerate(["train", "train", "val", "test"]):
        folder = "images/livecell_test_images" if part == "test" else "images/livecell_train_val_images"
        raw.add(part, files.stem("SHSY5Y", f"B{number}"), cells, to=f"{folder}/SHSY5Y")
    prepare("livecell", raw.write(by_type=False), tmp_path / "livecell", workers=1)
    datalist = tmp_path / "livecell" / "livecell.json"
    counts = {key: len(value) for key, value in json.loads(datalist.read_text()).items()}
    assert counts == {"training": 3, "testing": 1}
    workflow = run(datalist, tmp_path / "run", instances="components", quick=True)
    assert len(workflow.content("train#dataset")) == 2
    merged = np.zeros(files.SHAPE, bool)
    merged[2:16, 3:18] = merged[20:40, 30:50] = merged[30:45, 45:57] = True
    (item,) = workflow.content("dataset")
    np.testing.assert_array_equal(item["label"][0].numpy() > 0, merged)
    run(datalist, tmp_path / "run", mode="eval", instances="components")
    content = json.loads((tmp_path / "run" / "eval" / "results" / "metrics.json").read_text())
    assert 0 <= content["per_image_mean"]["binary_iou"] <= 1
    assert content["n_images"] == 1


# Odd images and labels


@pytest.mark.parametrize("instances", ["flows", "components", "watershed"])
@pytest.mark.parametrize("image_mode", ["tile", "resize"])
def test_masks_without_cells(tmp_path, instances, image_mode):
    images = [phase(seed=i)[0] for i in range(3)]
    datalist = save_list(tmp_path, images, [np.zeros((96, 120), np.uint16)] * 3)
    options = {"instances": instances, "image_mode": image_mode}
    workflow = run(datalist, tmp_path, **options, **{"train#trainer#max_epochs": 1})
    assert all(torch.isfinite(p).all() for p in workflow.content("network").parameters())
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    weights["head.weight"].zero_()
    weights["head.bias"].fill_(-1)
    torch.save(weights, tmp_path / "model.pt")
    run(datalist, tmp_path, mode="eval", **options)
    means = json.loads((tmp_path / "eval" / "results" / "metrics.json").read_text())["per_image_mean"]
    assert (means["binary_iou"], means["source_iou"], means["ap50"]) == (1, 0, 1)


@pytest.mark.parametrize("image_mode", ["tile", "resize"])
@pytest.mark.parametrize("size", [(40, 50), (3, 70), (1, 1)])
def test_images_smaller_than_the_window(tmp_path, size, image_mode):
    labels = np.zeros(size, np.uint16)
    labels[: size[0] // 2 + 1, : size[1] // 2 + 1] = 5
    image = (100 * labels + np.arange(size[1])).astype(np.uint8)
    datalist = save_list(tmp_path, [image] * 3, [labels] * 3, photometric="minisblack", metadata={"axes": "YX"})
    run(datalist, tmp_path, image_mode=image_mode, **{"train#trainer#max_epochs": 1})
    run(datalist, tmp_path, mode="infer", image_mode=image_mode)
    assert {read_labels(path).shape for path in (tmp_path / "eval").glob("*_labels.tif")} == {size}


def test_16_bit_phase_contrast_is_seen_like_8_bit(tmp_path):
    found = {}
    for bits, factor in ((8, 1), (16, 257), (12, 16)):
        folder = tmp_path / str(bits)
        folder.mkdir()
        image, labels = phase(seed=3)
        pixels = image.astype(np.uint8 if bits == 8 else np.uint16) * factor
        datalist = save_list(folder, [pixels] * 2, [labels.astype(np.uint16)] * 2)
        if bits == 8:
            run(datalist, tmp_path, final_test=False, amp=False, **{"train#trainer#max_epochs": 1})
        weights = {"pretrained_ckpt_path": str(tmp_path / "model.pt")}
        workflow = run(datalist, folder, mode="infer", amp=False, **weights)
        item = workflow.content("dataset")[0]["image"].as_tensor()[None]
        with torch.no_grad():
            found[bits] = workflow.content("inferer")(item, workflow.content("network").eval())
    assert torch.allclose(found[8], found[16], atol=1e-3)
    assert torch.allclose(found[8], found[12], atol=1e-3)
    assert found[8].std() > 0.01


def test_pictures_in_place_of_labels_are_refused(tmp_path):
    image, labels = phase()
    (tmp_path / "binary").mkdir()
    mask, ids = (255 * (labels > 0)).astype(np.uint8), labels.astype(np.uint16)
    datalist = save_list(tmp_path / "binary", [image] * 3, [mask, ids, ids])
    torch.save(BUNDLE.network().state_dict(), tmp_path / "random.pt")
    with pytest.raises(CellBundleError, match=r"1 of 3 images.*0_labels\.tif.*binary mask"):
        run(datalist, tmp_path / "a", mode="eval", pretrained_ckpt_path=str(tmp_path / "random.pt"))
    workflow = run(datalist, tmp_path / "b", binary_labels="components", **{"train#trainer#max_epochs": 1})
    assert workflow.content("dataset")[0]["label"].max() > 1
    (tmp_path / "colour").mkdir()
    colours = np.stack([image, image // 2, 255 - image], axis=-1)
    datalist = save_list(tmp_path / "colour", [image] * 3, [colours] * 3)
    with pytest.raises(LabelReadError, match=r"1_labels\.tif.*colours.*3 channels.*integer id"):
        run(datalist, tmp_path / "c", **{"train#trainer#max_epochs": 1})
