"""Image files of every kind but TIFF, written with known values and read back exactly; options for all kinds."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from cellbundle.errors import DependencyError
from cellbundle.io import read_image

from .image_files import ALPHA8, GREY8, GREY16, RGB8, RGB16, RNG, check, chw, pillow_bytes, png_bytes, png_chunk


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


def test_axes_option(tmp_path):
    array = RNG.integers(0, 256, (6, 9, 12), np.uint8)
    tifffile.imwrite(tmp_path / "z.tif", array, metadata={"axes": "ZYX"}, photometric="minisblack")
    image = read_image(tmp_path / "z.tif", axes="cyx")
    np.testing.assert_array_equal(image.data, array)
    assert (image.axes, image.axes_source) == ("CYX", "option")
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(RGB8))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", axes="CYX").data, chw(RGB8))


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
    with pytest.raises(DependencyError, match=r"a\.zarr.*pip install 'cellbundle\[zarr\]'"):
        read_image(tmp_path / "a.zarr")
