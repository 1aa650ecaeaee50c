"""Masks of single instances from files of every kind."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellbundle.errors import CellBundleError, LabelReadError
from cellbundle.io.formats import mask_files
from cellbundle.io.formats.mask_files import paint_mask_files

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
    painted = paint_mask_files([tmp_path / "mask.png"])
    assert ((painted.labels == 1) == MASK).all()
    assert painted.lost == []


def test_plain_grey_files_take_the_fast_way_and_others_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(mask_files, "read_image", None)
    save(tmp_path / "grey.png", "grey")
    assert ((paint_mask_files([tmp_path / "grey.png"]).labels == 1) == MASK).all()
    save(tmp_path / "1.png", "1 bit")
    with pytest.raises(TypeError):
        paint_mask_files([tmp_path / "1.png"])


@pytest.mark.parametrize("level", [0, 1, 9])
def test_noise_is_read_as_pillow_reads_it(level, tmp_path):
    image = np.random.default_rng(0).integers(0, 3, (64, 50), dtype=np.uint8)
    image[10:30] = 0
    Image.fromarray(image).save(tmp_path / "noise.png", compress_level=level)
    assert (paint_mask_files([tmp_path / "noise.png"]).labels == (image > 0)).all()


def test_ids_are_those_of_the_order_of_files_and_the_smaller_one_is_on_top(tmp_path):
    save(tmp_path / "b.png", "grey")
    small = np.zeros_like(MASK)
    small[4:6, 7:9] = True
    Image.fromarray(small.astype(np.uint8)).save(tmp_path / "a.png")
    Image.new("L", small.shape[::-1]).save(tmp_path / "c.png")
    painted = paint_mask_files([tmp_path / f"{name}.png" for name in "bac"])
    assert (painted.labels == np.where(small, 2, MASK)).all()
    assert painted.lost == [2]


@pytest.mark.parametrize("cut", [0, 5, 30, 45, 60, -20])
def test_a_damaged_file_is_named(cut, tmp_path):
    save(tmp_path / "mask.png", "grey")
    content = (tmp_path / "mask.png").read_bytes()
    (tmp_path / "mask.png").write_bytes(content[:cut])
    with pytest.raises(CellBundleError, match=r"mask\.png"):
        paint_mask_files([tmp_path / "mask.png"])


def test_another_size_and_a_missing_file_are_named(tmp_path):
    save(tmp_path / "a.png", "grey")
    Image.new("L", (41, 29)).save(tmp_path / "b.png")
    with pytest.raises(LabelReadError, match=r"b\.png.*29x41.*30x41"):
        paint_mask_files([tmp_path / "a.png", tmp_path / "b.png"])
    with pytest.raises(LabelReadError, match=r"c\.png.*No such file"):
        paint_mask_files([tmp_path / "c.png"])
    with pytest.raises(LabelReadError, match="no mask files"):
        paint_mask_files([])
