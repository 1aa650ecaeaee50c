"""Every kind of image file, written with known values and read back exactly; every refusal names file and action."""

import io
import logging
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from cellbundle.errors import DependencyError, ImageReadError
from cellbundle.io import read_image

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (9, 12), np.uint8)
GREY16 = RNG.integers(0, 65536, (9, 12), np.uint16)
RGB8 = RNG.integers(0, 256, (9, 12, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (9, 12, 3), np.uint16)
ALPHA8 = GREY8[..., None]


def chw(array):
    return (array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)).astype(np.float32)


def pillow_bytes(array, kind, mode=None, **options):
    buffer = io.BytesIO()
    image = Pillow.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_bytes(width, height, depth, rows, extra=b""):
    """A grey PNG written by hand, for what no library writes."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def check(path, expected, **fields):
    image = read_image(path)
    assert image.data.dtype == np.float32
    assert image.data.flags.c_contiguous
    np.testing.assert_array_equal(image.data, expected)
    assert image.path == path
    for name, value in fields.items():
        assert getattr(image, name) == value
    return image


@pytest.mark.parametrize(
    ("array", "expected", "axes"),
    [
        (GREY8, chw(GREY8), "YX"),
        (GREY16, chw(GREY16), "YX"),
        (RGB8, chw(RGB8), "YXS"),
        (RGB16, chw(RGB16), "YXS"),
        (np.concatenate([RGB8, ALPHA8], -1), chw(RGB8), "YXS"),
        (np.concatenate([RGB16, GREY16[..., None]], -1), chw(RGB16), "YXS"),
        (np.concatenate([ALPHA8, 255 - ALPHA8], -1), chw(GREY8), "YXS"),
        (GREY8[:1, :1], chw(GREY8[:1, :1]), "YX"),
        (RGB8[:1, :1], chw(RGB8[:1, :1]), "YXS"),
        (RGB16[:, :1], chw(RGB16[:, :1]), "YXS"),
    ],
)
def test_png(tmp_path, array, expected, axes):
    path = tmp_path / "Zellen in Öl, größer.PNG"
    path.write_bytes(imagecodecs.png_encode(array))
    check(path, expected, axes=axes, axes_source="metadata", dtype=array.dtype, pixel_size_um=None)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_png_of_few_bits_keeps_values(tmp_path, depth):
    values = GREY8[:, :8] % 2**depth
    bits = np.unpackbits(values[..., None], axis=-1)[..., -depth:]
    rows = np.packbits(bits.reshape(9, -1), axis=1)
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(8, 9, depth, b"".join(b"\0" + row.tobytes() for row in rows)))
    check(path, chw(values), dtype=bool if depth == 1 else np.uint8)


def test_png_with_transparent_colour(tmp_path):
    rows = b"".join(b"\0" + row.tobytes() for row in GREY8)
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(12, 9, 8, rows, png_chunk(b"tRNS", b"\0\7")))
    check(path, chw(GREY8))


@pytest.mark.parametrize("colours", [2, 16, 100])
def test_palettes_become_rgb(tmp_path, colours):
    paletted = Pillow.fromarray(RGB8).quantize(colours)
    expected = chw(np.asarray(paletted.convert("RGB")))
    for kind in ("PNG", "BMP", "TIFF"):
        path = tmp_path / f"a.{kind}"
        paletted.save(path)
        check(path, expected)
    paletted.save(tmp_path / "transparent.png", transparency=1)
    check(tmp_path / "transparent.png", expected)


def test_imagej_colour_table_is_for_display_only(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY8, imagej=True, colormap=RNG.integers(0, 65536, (3, 256), np.uint16))
    check(path, chw(GREY8))


def test_jpeg(tmp_path):
    grey, colour = tmp_path / "a.JPG", tmp_path / "b.jpeg"
    flat = np.broadcast_to(np.uint8([[[200, 30, 90]]]), (16, 24, 3))
    grey.write_bytes(pillow_bytes(GREY8, "JPEG", quality=100))
    colour.write_bytes(pillow_bytes(flat, "JPEG", quality=100, subsampling=0))
    np.testing.assert_allclose(read_image(grey).data, chw(GREY8), atol=3)
    np.testing.assert_allclose(read_image(colour).data, chw(flat), atol=3)


def test_jpeg_orientation_is_not_applied(tmp_path):
    path = tmp_path / "a.jpg"
    exif = Pillow.Exif()
    exif[0x0112] = 6
    path.write_bytes(pillow_bytes(GREY8, "JPEG", exif=exif))
    assert read_image(path).data.shape == (1, 9, 12)


def test_cmyk_becomes_rgb(tmp_path):
    inks = RNG.integers(0, 256, (9, 12, 4), np.uint8)
    expected = np.rint((255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255)
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    check(tmp_path / "a.tif", chw(expected))
    tifffile.imwrite(tmp_path / "p.tif", np.moveaxis(inks, -1, 0), photometric="separated", planarconfig="separate")
    check(tmp_path / "p.tif", chw(expected))
    flat = np.full((16, 16, 3), (200, 30, 90), np.uint8)
    (tmp_path / "a.jpg").write_bytes(pillow_bytes(flat, "JPEG", "CMYK", quality=100))
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg").data, chw(flat), atol=4)


def test_bmp(tmp_path):
    path = tmp_path / "a.BMP"
    for array in (GREY8, RGB8, GREY8 > 100):
        path.write_bytes(pillow_bytes(array, "BMP"))
        data = read_image(path).data
        np.testing.assert_array_equal(data > 0 if array.dtype == bool else data, chw(array))


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


def test_axes_option(tmp_path):
    array = RNG.integers(0, 256, (6, 9, 12), np.uint8)
    tifffile.imwrite(tmp_path / "z.tif", array, metadata={"axes": "ZYX"}, photometric="minisblack")
    image = read_image(tmp_path / "z.tif", axes="cyx")
    np.testing.assert_array_equal(image.data, array)
    assert (image.axes, image.axes_source) == ("CYX", "option")
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(RGB8))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", axes="CYX").data, chw(RGB8))


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
    assert "a.tif: 3 NaN or infinite values replaced by -7" in caplog.text


def tiff_bytes(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def half(content):
    return content[: len(content) // 2]


STACK = RNG.integers(0, 256, (2, 64, 64), np.uint8)
REFUSED = {
    "empty.png": (b"", "is empty"),
    "text.png": (b"cells, cells, cells\n", "not a PNG, JPEG, BMP or TIFF image by its content; convert"),
    "cut.png": (half(imagecodecs.png_encode(RGB16)), "export it again"),
    "header only.png": (imagecodecs.png_encode(RGB16)[:20], "export it again"),
    "no pixels.png": (png_bytes(0, 5, 8, b""), r"no pixels \(shape \(5, 0\)\); export it again"),
    "bomb.png": (
        png_bytes(50_000, 50_000, 8, b""),
        "has 2500000000 pixels.*max_pixels=1073741824; raise max_pixels",
    ),
    "cut.jpg": (half(pillow_bytes(STACK[0], "JPEG")), "truncated.*export it again"),
    "cut.bmp": (half(pillow_bytes(STACK[0], "BMP")), "truncated.*export it again"),
    "cut.tif": (half(tiff_bytes(STACK[0])), "export it again"),
    "cut by 9.tif": (tiff_bytes(STACK, photometric="minisblack", compression="zlib")[:-9], "export it again"),
    "cut OME.tif": (tiff_bytes(STACK, ome=True, photometric="minisblack")[:-99], "truncated.*export it again"),
    "cut ImageJ.tif": (tiff_bytes(STACK, imagej=True)[:-99], "export it again"),
    "cut JPEG.tif": (tiff_bytes(RGB8, compression="jpeg")[:-20], "export it again"),
    "z.tif": (tiff_bytes(STACK, metadata={"axes": "ZYX"}, photometric="minisblack"), r"is a z-stack of shape \(2, 64"),
    "t.tif": (tiff_bytes(STACK, imagej=True, metadata={"axes": "TYX"}), "is a time series.*choose a plane"),
    "unclear.tif": (tiff_bytes(np.zeros((5, 9, 8), "u1")), r"shape \(5, 9, 8\) are unclear; set axes="),
    "ambiguous.tif": (tiff_bytes(np.zeros((2, 9, 2), "u1")), r"shape \(2, 9, 2\) are unclear; set axes="),
    "complex.tif": (tiff_bytes(np.zeros((5, 9), "c8")), "complex64.*convert the file"),
    "lab.tif": (tiff_bytes(RGB8, photometric="cielab"), "colour space CIELAB; save it as RGB"),
    "nan.tif": (tiff_bytes(np.full((5, 9), np.nan, "f4")), "only NaN or infinite values; export it again"),
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
    with pytest.raises(ImageReadError, match=r"2 separate images of the same size.*save the one"):
        read_image(tmp_path / "a.tif")


def test_the_largest_of_several_images_is_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(RGB8[:5, :7], photometric="rgb")  # such as the label of a slide
        tiff.write(GREY8)
    check(tmp_path / "a.tif", chw(GREY8))


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
    with pytest.raises(ImageReadError, match=r"none\.png: cannot be opened \(No such file.*check the path"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageReadError, match="is a folder; give an image file"):
        read_image(tmp_path)


@pytest.mark.parametrize("kind", ["png", "bmp", "jpg", "tif"])
def test_pixel_limit_is_an_option(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(tiff_bytes(RGB8) if kind == "tif" else pillow_bytes(RGB8, {"jpg": "jpeg"}.get(kind, kind)))
    assert read_image(path, max_pixels=9 * 12).data.shape == (3, 9, 12)
    with pytest.raises(ImageReadError, match=r"has 108 pixels.*max_pixels=107; raise max_pixels"):
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
    with pytest.raises(ImageReadError, match="has 75 pixels"):
        read_image(tmp_path / "a.tif", max_pixels=74)


def test_large_images_do_not_meet_pillows_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 10)
    for kind in ("png", "bmp", "jpeg"):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(pillow_bytes(GREY8, kind))
        assert read_image(path).data.shape == (1, 9, 12)


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr(tmp_path, version):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    array = RNG.integers(0, 65536, (1, 3, 1, 9, 12), np.uint16)
    axes = [{"name": name, "unit": "micrometer"} if name in "zyx" else {"name": name} for name in "tczyx"]
    scale = {"type": "scale", "scale": [1, 1, 1, 0.5, 0.25]}
    scales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}, {"path": "1"}]}]
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    group.create_array("0", data=array)
    group.create_array("1", data=array[..., ::2, ::2])
    group.attrs.update({"multiscales": scales} if version == 2 else {"ome": {"multiscales": scales}})
    check(tmp_path / "a.zarr", array[0, :, 0], axes="TCZYX", dtype=np.uint16, pixel_size_um=(0.5, 0.25))


def test_zarr_without_the_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / ".zattrs").write_text("{}")
    with pytest.raises(DependencyError, match=r"a\.zarr: .*pip install 'cellbundle\[zarr\]'"):
        read_image(tmp_path / "a.zarr")
