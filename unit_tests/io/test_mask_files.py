"""Masks of single instances from files of every kind."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellbundle.errors import CellBundleError, LabelReadError
from cellbundle.io import mask_files
from cellbundle.io.mask_files import read_masks

MASK = np.zeros((30, 41), bool)
MASK[3:9, 5:20] = True
MASK[20:29, 30:41] = True


def save(path, form):
    grey = (MASK * 255).astype(np.uint8)
    if form == "1 bit":
        Image.fromarray(grey).convert("1").save(path)
    elif form == "RGBA":
        Image.fromarray(np.dstack([grey, 0 * grey, 0 * grey, 0 * grey + 255])).save(path)
    elif form == "16 bits":
        Image.fromarray(grey.astype(np.uint16)).save(path)
    elif form == "TIFF":
        tifffile.imwrite(path, grey)
    else:
        Image.fromarray(np.minimum(grey, 1) if form == "ones" else grey).save(path, optimize=form == "optimised")


@pytest.mark.parametrize("form", ["grey", "optimised", "ones", "1 bit", "RGBA", "16 bits", "TIFF"])
def test_what_is_not_zero_is_inside(form, tmp_path):
    save(tmp_path / "mask.png", form)
    (found,) = read_masks([tmp_path / "mask.png"])
    assert found.dtype == np.uint8
    assert ((found > 0) == MASK).all()


def test_plain_grey_files_take_the_fast_way_and_others_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(mask_files, "read_image", None)
    save(tmp_path / "grey.png", "grey")
    (found,) = read_masks([tmp_path / "grey.png"])
    assert ((found > 0) == MASK).all()
    save(tmp_path / "1.png", "1 bit")
    with pytest.raises(TypeError):
        next(read_masks([tmp_path / "1.png"]))


def test_noise_is_read_as_pillow_reads_it(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 50), dtype=np.uint8)
    image[10:30] = 0
    for level in (0, 1, 9):
        Image.fromarray(image).save(tmp_path / "noise.png", compress_level=level)
        assert (next(read_masks([tmp_path / "noise.png"])) == image).all()


@pytest.mark.parametrize("cut", [0, 5, 30, 45, 60, -20])
def test_a_damaged_file_is_named(cut, tmp_path):
    save(tmp_path / "mask.png", "grey")
    content = (tmp_path / "mask.png").read_bytes()
    (tmp_path / "mask.png").write_bytes(content[:cut])
    with pytest.raises(CellBundleError, match=r"mask\.png"):
        next(read_masks([tmp_path / "mask.png"]))


def test_another_size_and_a_missing_file_are_named(tmp_path):
    save(tmp_path / "a.png", "grey")
    Image.new("L", (41, 29)).save(tmp_path / "b.png")
    with pytest.raises(LabelReadError, match=r"b\.png: the mask is 29x41, those before it are 30x41"):
        list(read_masks([tmp_path / "a.png", tmp_path / "b.png"]))
    with pytest.raises(LabelReadError, match=r"c\.png: cannot be opened \(No such file"):
        list(read_masks([tmp_path / "c.png"]))
