"""TIFF files of every type, layout and order of axes, read back exactly."""

import logging
import re

import numpy as np
import pytest
import tifffile

from cellbundle.io import read_image

from .image_files import ALPHA8, GREY8, GREY16, RGB8, RNG, check, chw


def test_imagej_colour_table_is_for_display_only(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY8, imagej=True, colormap=RNG.integers(0, 65536, (3, 256), np.uint16))
    check(path, chw(GREY8))


@pytest.mark.parametrize(
    "dtype",
    ["bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">u2", ">i4", ">f4", ">f8"],
)
def test_tiff_of_every_type(tmp_path, dtype):
    path = tmp_path / "a.TIF"
    array = (GREY16 % 100 > 50) if dtype == "bool" else (GREY16 % 100).astype(dtype)
    tifffile.imwrite(path, array, byteorder=">" if dtype[0] == ">" else "<")
    check(path, chw(array), axes="YX", dtype=array.dtype.newbyteorder("="))


@pytest.mark.parametrize("bits", [2, 4, 10, 12])
def test_tiff_of_odd_bits(tmp_path, bits):
    array = GREY16 % 2**bits
    tifffile.imwrite(tmp_path / "a.tif", array if bits > 8 else array.astype(np.uint8), bitspersample=bits)
    check(tmp_path / "a.tif", chw(array))


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (16, 16)},
        {"tile": (16, 16), "compression": "zlib", "predictor": True},
        {"compression": "lzw"},
        {"compression": "zstd"},
        {"compression": "packbits"},
        {"bigtiff": True},
        {"rowsperstrip": 2},
        {"ome": True},
        {"imagej": True},
        {"metadata": None},
    ],
)
def test_tiff_layouts(tmp_path, options):
    array = RNG.integers(0, 65536, (40, 50), np.uint16)
    tifffile.imwrite(tmp_path / "a.tiff", array, **options)
    check(tmp_path / "a.tiff", chw(array), axes="YX", axes_source="metadata")


@pytest.mark.parametrize(
    ("shape", "options", "axes", "source"),
    [
        ((9, 12, 3), {"photometric": "rgb"}, "YXS", "metadata"),
        ((3, 9, 12), {"photometric": "rgb"}, "SYX", "metadata"),
        ((1, 1, 3), {"photometric": "rgb"}, "YXS", "metadata"),
        ((9, 12, 4), {"photometric": "minisblack", "planarconfig": "contig"}, "YXS", "metadata"),
        ((9, 12, 4), {"photometric": "rgb", "extrasamples": ["unspecified"]}, "YXS", "metadata"),
        ((4, 9, 12), {"photometric": "rgb", "extrasamples": [2]}, "SYX", "metadata"),  # a plane is a channel
        ((5, 9, 12), {"metadata": {"axes": "CYX"}}, "CYX", "metadata"),
        ((9, 12, 5), {"metadata": {"axes": "YXC"}}, "YXC", "metadata"),
        ((5, 9, 12), {"imagej": True, "metadata": {"axes": "CYX"}}, "CYX", "metadata"),
        ((5, 9, 12), {"ome": True, "metadata": {"axes": "CYX"}}, "CYX", "metadata"),
        ((1, 5, 1, 9, 12), {"ome": True, "metadata": {"axes": "TCZYX"}}, "CYX", "metadata"),
        ((9, 12, 3), {"ome": True, "photometric": "rgb"}, "YXS", "metadata"),
        ((2, 9, 12), {}, "CYX", "guess"),
        ((9, 12, 2), {}, "YXC", "guess"),
        ((3, 9, 12), {"photometric": "minisblack", "metadata": None}, "CYX", "guess"),
        ((1, 9, 12), {}, "QYX", "metadata"),
        ((9, 12, 1), {}, "YXQ", "metadata"),
    ],
)
def test_tiff_axes(tmp_path, shape, options, axes, source):
    array = RNG.integers(0, 65536, shape, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, **({"photometric": "minisblack"} | options))
    image = read_image(tmp_path / "a.tif")
    channel = next(axes.index(letter) for letter in "CSQ" if letter in axes)
    stored = array.squeeze() if array.ndim == 5 else array
    np.testing.assert_array_equal(image.data, np.moveaxis(stored, channel, 0))
    assert (image.axes, image.axes_source) == (axes, source)


def test_tiff_declared_alpha_is_dropped(tmp_path):
    rgba = np.concatenate([RGB8, ALPHA8], -1)
    for kind in ("unassalpha", "assocalpha"):
        tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=[kind])
        check(tmp_path / "a.tif", chw(RGB8))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", axes="YXC").data, chw(rgba))
    grey = np.concatenate([ALPHA8, ALPHA8], -1)
    tifffile.imwrite(tmp_path / "g.tif", grey, planarconfig="contig", photometric="minisblack", extrasamples=[2])
    check(tmp_path / "g.tif", chw(GREY8))


@pytest.mark.parametrize("layout", ["subifds", "pages", "unmarked pages", "ome"])
def test_multi_resolution_gives_full_resolution(tmp_path, layout):
    array = RNG.integers(0, 256, (64, 80), np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=layout == "ome") as tiff:
        pages = "pages" in layout
        tiff.write(array, subifds=0 if pages else 1, tile=(32, 32), metadata=None if pages else {})
        marked = {} if layout == "unmarked pages" else {"subfiletype": 1}
        tiff.write(array[::2, ::2], tile=(32, 32), metadata=None if pages else {}, **marked)
    check(tmp_path / "a.tif", chw(array))


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (
            {"ome": True, "metadata": {"PhysicalSizeY": 0.5, "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm"}},
            (0.5, 0.25),
        ),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.5}}, None),
        ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "um"}}, (0.5, 0.25)),
        ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "\\u00B5m"}}, (0.5, 0.25)),
        ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "pixel"}}, None),
        ({"imagej": True}, None),
        ({"resolution": (40000, 20000), "resolutionunit": "CENTIMETER"}, (0.5, 0.25)),
        ({"resolution": (28, 28), "resolutionunit": "CENTIMETER"}, None),  # 72 dots an inch
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
    ],
)
def test_tiff_pixel_size(tmp_path, options, size):
    tifffile.imwrite(tmp_path / "a.tif", GREY8, **options)
    assert read_image(tmp_path / "a.tif").pixel_size_um == (size and pytest.approx(size))


def test_values_that_are_not_finite(tmp_path, caplog):
    array = GREY8.astype(np.float32)
    array[0, :3] = np.nan, np.inf, -np.inf
    array[1, 1] = -7
    tifffile.imwrite(tmp_path / "a.tif", array)
    with caplog.at_level(logging.WARNING, "cellbundle"):
        data = read_image(tmp_path / "a.tif").data
    array[0, :3] = -7
    np.testing.assert_array_equal(data, chw(array))
    assert re.search(r"a\.tif.*2\.78 % .*NaN.*no data.* -7", caplog.text)


def test_the_largest_of_several_images_is_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(RGB8[:5, :7], photometric="rgb")  # such as the label of a slide
        tiff.write(GREY8)
    check(tmp_path / "a.tif", chw(GREY8))
