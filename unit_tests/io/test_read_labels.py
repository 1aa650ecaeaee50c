"""Label maps from files: exact ids, and refusals of what does not tell instances apart."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from cellbundle.errors import LabelReadError
from cellbundle.io import read_labels

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 40, (9, 12))
MASK = np.zeros((6, 7), bool)
MASK[1, 1] = MASK[2, 2] = MASK[5, 5] = True  # two components: the first two touch at a corner
COMPONENTS = np.zeros((6, 7), np.int32)
COMPONENTS[1, 1] = COMPONENTS[2, 2] = 1
COMPONENTS[5, 5] = 2


def write(path, array):
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(array))
    else:
        tifffile.imwrite(path, array)
    return path


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8", ">u2"])
def test_tiff_ids_are_kept(tmp_path, dtype):
    labels = read_labels(write(tmp_path / "a.tif", IDS.astype(dtype)))
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, IDS)


def test_png_ids_are_exact(tmp_path):
    ids = RNG.integers(0, 65536, (9, 12), np.uint16)
    np.testing.assert_array_equal(read_labels(write(tmp_path / "a.png", ids)), ids)
    np.testing.assert_array_equal(read_labels(write(tmp_path / "b.png", IDS.astype("u1"))), IDS)


@pytest.mark.parametrize("alpha", [False, True])
def test_equal_colour_channels_are_one(tmp_path, alpha):
    planes = [IDS, IDS, IDS, np.full_like(IDS, 255)][: 4 if alpha else 3]
    np.testing.assert_array_equal(read_labels(write(tmp_path / "a.png", np.stack(planes, -1).astype("u1"))), IDS)


def test_palette_index_is_the_id(tmp_path):
    paletted = Pillow.fromarray(IDS.astype("u1")).convert("P")
    paletted.putpalette(RNG.integers(0, 256, 768, np.uint8).tobytes())
    for name in ("a.png", "a.bmp", "a.tif"):
        paletted.save(tmp_path / name)
        np.testing.assert_array_equal(read_labels(tmp_path / name), IDS)


def test_grey_palette_gives_its_grey_values(tmp_path):
    order = RNG.permutation(40).astype(np.uint8)  # as programs that shrink PNG files do
    paletted = Pillow.fromarray(np.argsort(order)[IDS].astype("u1")).convert("P")
    paletted.putpalette(np.repeat(order, 3).tobytes())
    paletted.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), IDS)


@pytest.mark.parametrize("shape", [(1, 9, 12), (9, 12, 1), (1, 1, 9, 12)])
def test_length_one_axes_are_squeezed(tmp_path, shape):
    np.testing.assert_array_equal(read_labels(write(tmp_path / "a.tif", IDS.astype("u2").reshape(shape))), IDS)


@pytest.mark.parametrize("dtype", ["u4", "u8", "f8"])
def test_ids_beyond_int32_are_numbered_anew_in_order(tmp_path, dtype):
    large = np.where(IDS == 0, 0, IDS + 4_000_000_000).astype(dtype)
    _, expected = np.unique(large, return_inverse=True)
    np.testing.assert_array_equal(read_labels(write(tmp_path / "a.tif", large)), expected.reshape(IDS.shape))


@pytest.mark.parametrize("array", [np.zeros((3, 4), bool), np.zeros((3, 4), "u1"), np.zeros((1, 1), "u2")])
def test_empty_maps_are_valid(tmp_path, array):
    assert not read_labels(write(tmp_path / "a.tif", array)).any()


@pytest.mark.parametrize("value", [1, 7])
def test_a_single_id_is_a_single_instance(tmp_path, value):
    for dtype in ("u1", "f4"):
        np.testing.assert_array_equal(
            read_labels(write(tmp_path / "a.tif", (MASK * value).astype(dtype))), MASK * value
        )


MASKS = {
    "bool": MASK,
    "255": (MASK * 255).astype("u1"),
    "255 of 16 bits": (MASK * 255).astype("u2"),
    "255 as float": (MASK * 255).astype("f4"),
    "65535": (MASK * 65535).astype("u2"),
    "1": MASK.astype("u1"),
}


@pytest.mark.parametrize("name", MASKS)
def test_binary_masks(tmp_path, name):
    path = write(tmp_path / "mask.tif", MASKS[name])
    if name != "1":
        with pytest.raises(LabelReadError, match=r"mask\.tif.*binary mask.*binary='components'"):
            read_labels(path)
    np.testing.assert_array_equal(read_labels(path, binary="components"), COMPONENTS)


def test_binary_masks_of_one_bit(tmp_path):
    Pillow.fromarray(MASK).save(tmp_path / "a.png")
    with pytest.raises(LabelReadError, match=r"a\.png.*binary mask"):
        read_labels(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", binary="components"), COMPONENTS)


def test_components_leave_instances_alone(tmp_path):
    path = write(tmp_path / "a.tif", IDS.astype("u1"))
    np.testing.assert_array_equal(read_labels(path, binary="components"), IDS)


def test_axes_option(tmp_path):
    path = write(tmp_path / "a.tif", IDS.astype("u1").reshape(9, 1, 12))
    np.testing.assert_array_equal(read_labels(path, axes="YZX"), IDS)


REFUSED = {
    "colours": (RNG.integers(0, 256, (9, 12, 3), np.uint8), "colours.*3 channels.*integer id"),
    "channels": (RNG.integers(0, 256, (9, 12, 2), np.uint8), "2 channels.*label channel"),
    "stack": (RNG.integers(0, 256, (9, 12, 14), np.uint8), r"\(9, 12, 14\).*unclear.*axes="),
    "fractions": (IDS / 7, "whole numbers.*integer id"),
    "not finite": (np.full((9, 12), np.nan), "whole numbers.*integer id"),
    "negative": (IDS.astype("i2") - 1, r"negative.* -1.* 0 "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_file_and_action(tmp_path, name):
    array, message = REFUSED[name]
    path = write(tmp_path / f"{name}.tif", array)
    with pytest.raises(LabelReadError, match=message) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_files_that_cannot_be_read_are_label_errors(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(LabelReadError, match=r"a\.png.*is empty"):
        read_labels(tmp_path / "a.png")
    with pytest.raises(LabelReadError, match=r"108 pixels.*max_pixels=5.*raise max_pixels"):
        read_labels(write(tmp_path / "b.png", IDS.astype("u1")), max_pixels=5)


def test_jpeg_is_refused(tmp_path):
    Pillow.fromarray(IDS.astype("u1")).save(tmp_path / "a.jpg")
    tifffile.imwrite(tmp_path / "a.tif", IDS.astype("u1"), compression="jpeg")
    for name in ("a.jpg", "a.tif"):
        with pytest.raises(LabelReadError, match=r"JPEG.*PNG or TIFF"):
            read_labels(tmp_path / name)
