"""Loading images with labels, and saving label maps."""

import re

import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from PIL import Image

from cellbundle.errors import ArrayError, DatalistError, ImageReadError, LabelReadError
from cellbundle.io import read_labels
from cellbundle.transforms import LoadCelld, SaveLabelsd


@pytest.fixture
def pair(tmp_path):
    """An RGB image and its labels, 20 rows and 30 columns, and what they hold."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    labels = np.zeros((20, 30), np.uint16)
    labels[2:8, 3:9], labels[10:15, 20:29] = 7, 300
    Image.fromarray(image).save(tmp_path / "cell.png")
    tifffile.imwrite(tmp_path / "cell_label.tif", labels)
    return {"image": tmp_path / "cell.png", "label": tmp_path / "cell_label.tif"}, image, labels


# Loading


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_an_image_with_labels(pair, kind):
    data, image, labels = pair
    result = LoadCelld()({key: kind(path) for key, path in data.items()} | {"fold": 2})
    assert isinstance(result["image"], MetaTensor)
    assert result["image"].dtype == torch.float32
    np.testing.assert_array_equal(result["image"].numpy(), image.transpose(2, 0, 1))  # raw units, (C, H, W)
    assert result["label"].dtype == torch.int32
    np.testing.assert_array_equal(result["label"].numpy(), labels[None])
    assert result["fold"] == 2
    assert result["image"].meta["filename_or_obj"] == str(data["image"])


@pytest.mark.parametrize("label", [{}, {"label": None}])
def test_an_image_without_labels(pair, label):
    data, *_ = pair
    result = LoadCelld()({"image": data["image"]} | label)
    assert result["image"].shape == (3, 20, 30)
    assert result.get("label") is None


def test_the_input_stays(pair):
    data, *_ = pair
    before = dict(data)
    LoadCelld()(data)
    assert data == before


def test_other_keys(pair):
    data, *_ = pair
    result = LoadCelld("img", "seg")({"img": data["image"], "seg": data["label"], "image": "x"})
    assert result["img"].shape == (3, 20, 30)
    assert result["seg"].shape == (1, 20, 30)
    assert result["image"] == "x"


def test_grey_16_bit_images_and_given_axes(tmp_path):
    grey = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    tifffile.imwrite(tmp_path / "grey.tif", grey)
    np.testing.assert_array_equal(LoadCelld()({"image": tmp_path / "grey.tif"})["image"].numpy(), grey[None])
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([grey, grey + 1]), metadata=None, photometric="minisblack")
    result = LoadCelld(axes="CYX")({"image": tmp_path / "stack.tif"})["image"]
    assert result.shape == (2, 20, 30)
    assert result[1, 0, 0] == 1


@pytest.mark.parametrize("shape", [(30, 20), (20, 31), (1, 1)])
def test_a_label_of_another_size_is_refused(pair, shape):
    data, *_ = pair
    tifffile.imwrite(data["label"], np.ones(shape, np.uint8))
    with pytest.raises(LabelReadError) as caught:
        LoadCelld()(data)
    message = str(caught.value)
    assert re.search(rf"label.* {shape[0]}x{shape[1]}, .*image.* 20x30;", message)
    assert str(data["image"]) in message
    assert str(data["label"]) in message


def test_masks_of_two_values(pair):
    data, _, labels = pair
    tifffile.imwrite(data["label"], np.where(labels > 0, 255, 0).astype(np.uint8))
    with pytest.raises(LabelReadError, match=r"cell_label\.tif.*binary mask"):
        LoadCelld()(data)
    result = LoadCelld(binary="components")(data)["label"][0].numpy()
    assert np.unique(result).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(result > 0, labels > 0)


@pytest.mark.parametrize(("key", "error"), [("image", ImageReadError), ("label", LabelReadError)])
def test_files_that_cannot_be_read(pair, key, error):
    data, *_ = pair
    data[key].write_bytes(b"not an image")
    with pytest.raises(error, match=data[key].name):
        LoadCelld()(data)
    data[key].unlink()
    with pytest.raises(error, match=f"{data[key].name}.*No such file"):
        LoadCelld()(data)


# Saving


def saved(folder, name, labels, **options):
    image = MetaTensor(torch.zeros(3, 4, 5), meta={"filename_or_obj": str(name)})
    data = {"image": image, "pred": labels}
    result = SaveLabelsd(output_dir=str(folder), **options)(data)
    assert result.keys() == data.keys()
    assert result["pred"] is labels
    return sorted(file.name for file in folder.iterdir())


LABELS = np.array([[0, 1, 1], [0, 0, 2]], np.int32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cell.png", "cell_labels.tif"),
        ("/data/images/cell.png", "cell_labels.tif"),
        ("a.b.png", "a.b_labels.tif"),  # only the last suffix goes
        ("x.ome.tif", "x.ome_labels.tif"),
        ("no_suffix", "no_suffix_labels.tif"),
        ("with space ä.TIF", "with space ä_labels.tif"),
        ("well_B2_labels.tif", "well_B2_labels_labels.tif"),
    ],
)
def test_names(tmp_path, name, expected):
    assert saved(tmp_path, name, LABELS) == [expected]


def test_suffix_and_new_folders(tmp_path):
    assert saved(tmp_path / "a" / "b", "cell.png", LABELS, suffix="") == ["cell.tif"]
    assert saved(tmp_path / "a" / "b", "cell.png", LABELS, suffix="_seg") == ["cell.tif", "cell_seg.tif"]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.uint32, torch.int64])
@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: t[None], lambda t: t.numpy(), lambda t: t[None].numpy(), MetaTensor]
)
def test_labels_of_all_kinds_are_written_as_uint16(tmp_path, wrap, dtype):
    saved(tmp_path, "cell.png", wrap(torch.from_numpy(LABELS).to(dtype)))
    written = tifffile.imread(tmp_path / "cell_labels.tif")
    assert written.dtype == np.uint16
    np.testing.assert_array_equal(written, LABELS)


@pytest.mark.parametrize(("largest", "dtype"), [(65535, np.uint16), (65536, np.uint32)])
def test_no_id_overflows(tmp_path, largest, dtype):
    labels = np.array([[0, 1], [2, largest]], np.int32)
    saved(tmp_path, "cell.png", torch.from_numpy(labels)[None])
    assert tifffile.imread(tmp_path / "cell_labels.tif").dtype == dtype
    np.testing.assert_array_equal(read_labels(tmp_path / "cell_labels.tif"), labels)


def test_a_later_result_replaces_an_earlier_one(tmp_path):
    saved(tmp_path, "cell.png", LABELS)
    assert saved(tmp_path, "cell.png", LABELS * 2) == ["cell_labels.tif"]  # and no temporary file is left
    assert tifffile.imread(tmp_path / "cell_labels.tif").max() == 4


@pytest.mark.parametrize(
    "labels", [np.zeros((2, 3), np.float32), np.array([[0, -1]]), np.zeros((2, 2, 3, 3), np.int32)]
)
def test_what_is_no_label_map_is_refused(tmp_path, labels):
    with pytest.raises(ArrayError, match=r"^labels .*(2-D integer|negative)"):
        saved(tmp_path, "cell.png", labels)
    assert list(tmp_path.iterdir()) == []


def test_loading_and_saving_are_a_round_trip(pair, tmp_path):
    data = LoadCelld()(pair[0])
    SaveLabelsd("label", output_dir=tmp_path / "out")(data)
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "cell_labels.tif"), pair[2])


def test_images_of_one_name_do_not_replace_each_other(tmp_path):
    save = SaveLabelsd(output_dir=str(tmp_path))

    def item(path, value):
        image = MetaTensor(torch.zeros(1, 2, 2), meta={"filename_or_obj": path})
        return {"image": image, "pred": torch.full((1, 2, 2), value, dtype=torch.int32)}

    save(item("a/cells.png", 1))
    save(item("a/cells.png", 1))  # the same image again
    with pytest.raises(DatalistError, match=r"b/cells\.tif.*cells_labels\.tif.*a/cells\.png"):
        save(item("b/cells.tif", 2))
    assert read_labels(tmp_path / "cells_labels.tif").max() == 1
