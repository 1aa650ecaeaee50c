"""Targets and decoding of HoVer-Net as transforms, and the classes of instances."""

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from cellbundle.errors import ConfigError, DatalistError, LabelReadError
from cellbundle.io import write_labels
from cellbundle.metrics import image_scores
from cellbundle.synthetic import generate
from cellbundle.targets.hover import labels_to_hover
from cellbundle.transforms import DecodeHoverd, HoverTargetsd, LoadClassesd, RandCropAffined, SaveClassesd


def cells():
    return generate("phase", (80, 100), 15, diameter=18, touching=0.5, seed=2)[1]


def as_item(labels, **more):
    return {"label": torch.from_numpy(np.asarray(labels, np.int32)[None]), **more}


def prediction_of(target):
    """What a perfect network would answer."""
    return torch.cat([20 * target[:1] - 10, target[1:3]])


def test_targets_of_labels():
    labels = cells()
    target = HoverTargetsd()(as_item(labels))["label"]
    assert target.shape == (3, 80, 100)
    assert target.dtype == torch.float32
    assert np.array_equal(target[0].numpy(), labels > 0)
    assert np.array_equal(target[1:].numpy(), labels_to_hover(labels))


def test_targets_belong_to_what_augmentation_left():
    """Distances of a crop reach from -1 to 1 in each cell of the crop: they are computed anew, not cut out."""
    item = as_item(cells(), image=torch.zeros(3, 80, 100))
    crop = RandCropAffined(["image", "label"], size=(48, 48), zoom=(1.5, 1.6), rotate=1.0)
    crop.set_random_state(seed=3)
    moved = crop(item)
    target = HoverTargetsd()(moved)["label"]
    scores = image_scores(moved["label"][0].numpy(), DecodeHoverd()({"pred": prediction_of(target)})["pred"][0].numpy())
    assert scores["ap50"] > 0.85
    assert target[1].min() == -1
    assert target[1].max() == 1


def test_parts_of_a_cut_cell_have_a_centre_each():
    labels = np.zeros((9, 20), np.int32)
    labels[2:7, 1:6] = labels[2:7, 12:17] = 4
    horizontal = HoverTargetsd()(as_item(labels))["label"][1]
    assert horizontal[4, [1, 3, 5]].tolist() == horizontal[4, [12, 14, 16]].tolist() == [-1, 0, 1]


def test_classes_follow_their_instances():
    labels = np.array([[1, 1, 0, 3, 3], [1, 1, 0, 3, 3]], np.int32)
    table = torch.tensor([0, 2, 7, 1])
    done = HoverTargetsd()(as_item(labels, classes=table, class_label="not needed any more"))
    assert done["label"].shape == (4, 2, 5)
    assert done["label"][3].tolist() == [[2, 2, 0, 1, 1]] * 2
    assert set(done) == {"label"}


def test_round_trip():
    labels = cells()
    target = HoverTargetsd()(as_item(labels))["label"]
    done = DecodeHoverd()({"pred": prediction_of(target)})
    assert done["pred"].shape == (1, 80, 100)
    assert done["pred"].dtype == torch.int32
    assert image_scores(labels, done["pred"][0].numpy())["ap50"] == 1
    assert done["scores"] == pytest.approx(np.full(labels.max(), 1 / (1 + np.exp(-10))))


def test_nothing_found():
    done = DecodeHoverd()({"pred": torch.full((3, 20, 20), -1.0)})
    assert done["pred"].max() == 0
    assert done["scores"].shape == (0,)


def test_maps_after_their_activations():
    prediction = torch.tensor([0.0, 2, -0.5, 1, 1]).view(5, 1, 1).expand(5, 4, 4)
    maps = DecodeHoverd(maps_key="maps")({"pred": prediction})["maps"]
    assert maps[:, 0, 0].tolist() == [0.5, 1, -0.5, 0.5, 0.5]
    assert "maps" not in DecodeHoverd()({"pred": prediction})


# Classes

NAMES = ["round", "long"]
LABELS = [[5, 5, 0], [0, 9, 9]]


@pytest.mark.parametrize("given", [[2, 1], ["long", "round"], {"5": 2, "9": "round"}])
def test_classes_of_a_data_list(given):
    done = LoadClassesd(NAMES)(as_item(LABELS, classes=given))
    assert done["label"].tolist() == [[[1, 1, 0], [0, 2, 2]]]
    assert done["classes"].tolist() == [0, 2, 1]
    assert done["class_label"].tolist() == [[[2, 2, 0], [0, 1, 1]]]


def test_classes_of_files(tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps({"5": 2, "9": 1}))
    write_labels(tmp_path / "classes.tif", np.array([[2, 1, 1], [0, 1, 1]], np.int32))
    for name in ("classes.json", "classes.tif"):
        done = LoadClassesd(NAMES)(as_item(LABELS, classes=str(tmp_path / name)))
        assert done["classes"].tolist() == [0, 2 if name.endswith("json") else 1, 1]  # of equal votes the lowest


def test_predicted_classes():
    labels = cells()
    n = labels.max()
    truth = np.arange(n) % 2 + 1
    target = HoverTargetsd()(as_item(labels, classes=np.concatenate([[0], truth])))["label"]
    logits = 9 * torch.nn.functional.one_hot(target[3].long(), 3).movedim(-1, 0).float()
    done = DecodeHoverd()({"pred": torch.cat([prediction_of(target), logits])})
    assert image_scores(labels, done["pred"][0].numpy())["ap50"] == 1
    assert done["class_pred"].shape == (1, 80, 100)
    agree = done["class_pred"] == target[3]
    assert agree.float().mean() > 0.99
    assert sorted(done["classes"].tolist()) == sorted(truth.tolist())
    assert done["class_scores"] == pytest.approx(np.ones(n), abs=0.1)


def test_table_of_predicted_classes(tmp_path):
    image = MetaTensor(torch.zeros(3, 2, 2), meta={"filename_or_obj": "there/a.b.png"})
    item = {
        "image": image,
        "classes": np.array([2, 1]),
        "class_scores": np.array([0.75, 1]),
        "scores": np.array([1, 0.5]),
    }
    SaveClassesd(NAMES, tmp_path / "out")(item)
    text = (tmp_path / "out" / "a.b_classes.csv").read_text()
    assert text.split() == [
        "id,class,name,class_score,score", "1,2,long,0.7500,1.0000", "2,1,round,1.0000,0.5000",
    ]  # fmt: skip
    SaveClassesd(NAMES, tmp_path / "none")({"image": image})
    assert not (tmp_path / "none").exists()


def test_without_class_names_nothing_happens():
    done = LoadClassesd([])(as_item(LABELS, classes=[1, 2]))
    assert done["label"].tolist() == [LABELS]
    assert set(done) == {"label"}


def test_images_without_labels_need_no_classes():
    assert LoadClassesd(NAMES)({"image": 1}) == {"image": 1}


def test_labels_without_classes():
    with pytest.raises(DatalistError, match=r"round, long.*b\.png.*no 'classes'"):
        LoadClassesd(NAMES)(as_item(LABELS) | {"image": MetaTensor(torch.zeros(1), meta={"filename_or_obj": "b.png"})})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 3], r"instance 9 .*class 3;.* 1\.\.2 .*round, long"),
        ([0, 1], "instance 5 .*class 0;"),
        ([1, "square"], "instance 9 .*class 'square'"),
        ({"5": 1}, "instance 9 .*class None"),
        ([1], "1 classes.* 2 instances"),
        (1, "classes.*data list.* 1;.*list"),
    ],
)
def test_classes_that_cannot_be(given, message):
    with pytest.raises(LabelReadError, match=message):
        LoadClassesd(NAMES)(as_item(LABELS, classes=given))


@pytest.mark.parametrize(
    ("values", "message"),
    [([[1, 1, 0], [0, 3, 3]], r"classes\.tif.*class 3;.* 2$"), ([[1, 2]], r"classes\.tif.*\(1, 2\).*\(2, 3\)")],
)
def test_maps_of_classes_that_cannot_be(tmp_path, values, message):
    write_labels(tmp_path / "classes.tif", np.array(values, np.int32))
    with pytest.raises(LabelReadError, match=message):
        LoadClassesd(NAMES)(as_item(LABELS, classes=str(tmp_path / "classes.tif")))


@pytest.mark.parametrize("content", ["{", None])
def test_files_of_classes_that_cannot_be_read(tmp_path, content):
    if content:
        (tmp_path / "classes.json").write_text(content)
    with pytest.raises(LabelReadError, match=r"classes\.json.*JSON"):
        LoadClassesd(NAMES)(as_item(LABELS, classes=str(tmp_path / "classes.json")))


def test_class_names_must_differ():
    with pytest.raises(ConfigError, match="different names"):
        LoadClassesd(["a", "a"])
