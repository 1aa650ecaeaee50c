"""Image files that are refused, with the name of the file and what to do."""

import struct

import imagecodecs
import numpy as np
import pytest
import tifffile

from cellbundle.errors import ImageReadError
from cellbundle.io import read_image

from .image_files import GREY8, RGB8, RGB16, STACK, pillow_bytes, png_bytes, tiff_bytes


def half(content):
    return content[: len(content) // 2]


REFUSED = {
    "empty.png": (b"", "is empty"),
    "text.png": (b"cells, cells, cells\n", "not a PNG, JPEG, BMP or TIFF.*convert"),
    "cut.png": (half(imagecodecs.png_encode(RGB16)), "export it again"),
    "header only.png": (imagecodecs.png_encode(RGB16)[:20], "export it again"),
    "no pixels.png": (png_bytes(0, 5, 8, b""), r"no pixels.*\(5, 0\).*export it again"),
    "bomb.png": (
        png_bytes(50_000, 50_000, 8, b""),
        "2500000000 pixels.*max_pixels=1073741824.*raise max_pixels",
    ),
    "cut.jpg": (half(pillow_bytes(STACK[0], "JPEG")), "truncated.*export it again"),
    "cut.bmp": (half(pillow_bytes(STACK[0], "BMP")), "truncated.*export it again"),
    "cut.tif": (half(tiff_bytes(STACK[0])), "export it again"),
    "cut by 9.tif": (tiff_bytes(STACK, photometric="minisblack", compression="zlib")[:-9], "export it again"),
    "cut OME.tif": (tiff_bytes(STACK, ome=True, photometric="minisblack")[:-99], "truncated.*export it again"),
    "cut ImageJ.tif": (tiff_bytes(STACK, imagej=True)[:-99], "export it again"),
    "cut JPEG.tif": (tiff_bytes(RGB8, compression="jpeg")[:-20], "export it again"),
    "z.tif": (tiff_bytes(STACK, metadata={"axes": "ZYX"}, photometric="minisblack"), r"z-stack.*\(2, 64.*plane"),
    "t.tif": (tiff_bytes(STACK, imagej=True, metadata={"axes": "TYX"}), "time series.*plane"),
    "unclear.tif": (tiff_bytes(np.zeros((5, 9, 8), "u1")), r"\(5, 9, 8\).*unclear.*axes="),
    "ambiguous.tif": (tiff_bytes(np.zeros((2, 9, 2), "u1")), r"\(2, 9, 2\).*unclear.*axes="),
    "complex.tif": (tiff_bytes(np.zeros((5, 9), "c8")), "complex64.*convert"),
    "lab.tif": (tiff_bytes(RGB8, photometric="cielab"), "CIELAB.*RGB"),
    "nan.tif": (tiff_bytes(np.full((5, 9), np.nan, "f4")), "NaN.*export it again"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_file_and_action(tmp_path, name):
    content, message = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageReadError, match=message) as caught:
        read_image(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_separate_images_in_one_file_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(GREY8)
        tiff.write(GREY8)
    with pytest.raises(ImageReadError, match=r"a\.tif.* 2 separate images"):
        read_image(tmp_path / "a.tif")


def test_missing_ome_planes_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, ome=True, photometric="minisblack", metadata={"axes": "CYX"})
    content = (tmp_path / "a.tif").read_bytes()
    for name in (b"SizeC", b"PlaneCount"):
        content = content.replace(name + b'="2"', name + b'="3"')
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ImageReadError, match="export it again"):
        read_image(tmp_path / "a.tif")


def test_empty_array_in_tiff_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="zero-size"):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((0, 5), np.uint8))
    with pytest.raises(ImageReadError, match="no pixels"):
        read_image(tmp_path / "a.tif")


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(ImageReadError, match=r"none\.png.*No such file.*path"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageReadError, match=r"is a folder.*image file"):
        read_image(tmp_path)


@pytest.mark.parametrize("kind", ["png", "bmp", "jpg", "tif"])
def test_pixel_limit_is_an_option(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(tiff_bytes(RGB8) if kind == "tif" else pillow_bytes(RGB8, {"jpg": "jpeg"}.get(kind, kind)))
    assert read_image(path, max_pixels=9 * 12).data.shape == (3, 9, 12)
    with pytest.raises(ImageReadError, match=r"108 pixels.*max_pixels=107.*raise max_pixels"):
        read_image(path, max_pixels=9 * 12 - 1)


def test_headers_are_checked_before_decoding(tmp_path):
    bmp = bytearray(pillow_bytes(GREY8, "BMP", "P"))
    bmp[18:22] = struct.pack("<I", 2**30)
    (tmp_path / "a.bmp").write_bytes(bmp)
    tifffile.imwrite(tmp_path / "a.tif", GREY8, tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages.first.tags["TileWidth"].overwrite(2**30)
    for name in ("a.bmp", "a.tif"):
        with pytest.raises(ImageReadError, match=r"pixels .*raise max_pixels"):
            read_image(tmp_path / name)


def test_many_channels_count_as_more_pixels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 5, 5), "u1"), imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(ImageReadError, match=r"75 pixels.*max_pixels=74"):
        read_image(tmp_path / "a.tif", max_pixels=74)
