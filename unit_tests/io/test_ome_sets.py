"""Images in several OME-TIFF files: each file as itself, or all that hold one image together."""

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from unit_tests.io.ome_files import (
    KINDS,
    OTHER,
    OWN,
    binary_only,
    cells,
    channels,
    ome_xml,
    opened,
    referring,
    uuid,
    write_ome,
    write_set,
)

from cellbundle.errors import ImageReadError
from cellbundle.io import find_ome_set, read_image

from ..words import Like

SIZE = 'PhysicalSizeX="0.5" PhysicalSizeY="250" PhysicalSizeYUnit="nm"'
FOUR = [[(c, 0, 0, "ab"[c // 2] + ".tif", c % 2) for c in range(4)]]  # two channels in each of two files


def along(axis, n=3):
    """Planes along an axis, each in a file."""
    return [[(*(i if a == axis else 0 for a in range(3)), f"{i}.tif", 0) for i in range(n)]]


def files(n=3):
    return {f"{i}.tif": [cells(i + 1)] for i in range(n)}


def shapes(folder, **options):
    """Shape and axes of each file, or the start of its error."""
    found = {}
    for path in sorted(folder.glob("*.tif")):
        try:
            image = read_image(path, **options)
            found[path.name] = (len(image.data), image.axes)
        except ImageReadError as error:
            found[path.name] = str(error).removeprefix(f"{path}: ")
    return found


def test_one_file_a_channel(tmp_path):
    channels(tmp_path, attributes=SIZE)
    for name, plane in {"a.ome.tif": OWN, "b.ome.tif": OTHER}.items():
        image = read_image(tmp_path / name)
        assert np.array_equal(image.data, plane[None])
        assert (image.axes, image.pixel_size_um) == ("YX", (0.25, 0.5))


def test_the_result_does_not_depend_on_what_is_beside_the_file(tmp_path):
    channels(tmp_path)
    before = read_image(tmp_path / "b.ome.tif").data
    (tmp_path / "a.ome.tif").unlink()
    assert np.array_equal(read_image(tmp_path / "b.ome.tif").data, before)
    tifffile.imwrite(tmp_path / "a.ome.tif", cells(9))
    assert np.array_equal(read_image(tmp_path / "b.ome.tif").data, before)


def test_one_file_a_position(tmp_path):
    images = [[(0, 0, 0, name, 0)] for name in files()]
    write_set(tmp_path, images, files())
    for options in ({}, {"join": True}):
        assert shapes(tmp_path, **options) == dict.fromkeys(files(), (1, "YX"))
        assert [np.array_equal(read_image(tmp_path / n, **options).data, p) for n, p in files().items()] == [True] * 3
    assert find_ome_set(tmp_path / "1.tif") == ()


@pytest.mark.parametrize(("axis", "stack"), [(1, "a z-stack"), (2, "a time series")])
def test_one_file_a_plane_of_a_stack(tmp_path, axis, stack):
    write_set(tmp_path, along(axis), files())
    assert shapes(tmp_path) == dict.fromkeys(files(), (1, "YX"))
    assert list(shapes(tmp_path, join=True).values()) == 3 * [Like(rf"{stack}.*\(3, 24, 32\)")]
    assert shapes(tmp_path, join=True, axes="CYX") == dict.fromkeys(files(), (3, "CYX"))


def test_a_stack_in_each_file_is_not_taken_for_channels(tmp_path):
    write_set(tmp_path, [[(c, z, 0, f"{c}.tif", z) for c in range(2) for z in range(2)]], {"0.tif": [OWN, OTHER]})
    with pytest.raises(ImageReadError, match=r"0\.tif.*z-stack.*\(2, 24, 32\)"):
        read_image(tmp_path / "0.tif")


def test_several_channels_in_each_file(tmp_path):
    write_set(tmp_path, FOUR, {"a.tif": [cells(1), cells(2)], "b.tif": [cells(3), cells(4)]})
    assert np.array_equal(read_image(tmp_path / "b.tif").data, [cells(3), cells(4)])
    expected = [cells(n) for n in (1, 2, 3, 4)]
    assert np.array_equal(read_image(tmp_path / "b.tif", join=True).data, expected)


def test_channels_that_alternate_between_files(tmp_path):
    images = [[(0, 0, 0, "b.tif", 0), (1, 0, 0, "a.tif", 0), (2, 0, 0, "b.tif", 1)]]
    write_set(tmp_path, images, {"a.tif": [cells(2)], "b.tif": [cells(1), cells(3)]})
    assert np.array_equal(read_image(tmp_path / "b.tif").data, [cells(1), cells(3)])
    assert np.array_equal(read_image(tmp_path / "a.tif", join=True).data, [cells(1), cells(2), cells(3)])
    assert [path.name for path in find_ome_set(tmp_path / "a.tif")] == ["b.tif", "a.tif"]


@pytest.mark.parametrize("holder", ["a.tif", "x.companion.ome"])
def test_metadata_in_another_file(tmp_path, caplog, holder):
    """Without it, nobody knows what several planes are."""
    write_set(tmp_path, FOUR, {"a.tif": [cells(1), cells(2)], "b.tif": [cells(3), cells(4)]}, main=holder)
    if holder != "a.tif":
        (tmp_path / holder).write_text(ome_xml(FOUR, holder))
    with pytest.raises(ImageReadError, match=r"b\.tif.*planes.*metadata.*\(2, 24, 32\)"):
        read_image(tmp_path / "b.tif")
    assert re.search(rf"another file.*\({re.escape(holder)}\)", caplog.text)
    assert len(read_image(tmp_path / "b.tif", axes="CYX").data) == 2
    assert np.array_equal(read_image(tmp_path / "b.tif", join=True).data, [cells(n) for n in (1, 2, 3, 4)])
    write_ome(tmp_path / "c.tif", [OTHER], binary_only("c.tif", holder))
    assert np.array_equal(read_image(tmp_path / "c.tif").data, OTHER[None]), "one plane needs no description"
    assert np.array_equal(read_image(tmp_path / "c.tif", join=True).data, OTHER[None]), "it is not in the set"


@pytest.mark.parametrize("names", [["a.tif"], ["a.tif", "b.tif"]])
def test_a_file_with_fewer_planes_than_its_metadata_name(tmp_path, names):
    image = [(c, 0, 0, "a.tif", c) for c in range(2)] + [(2 + i, 0, 0, name, 0) for i, name in enumerate(names[1:])]
    write_ome(tmp_path / "a.tif", [OWN], ome_xml([image], "a.tif"))
    with pytest.raises(ImageReadError, match=r"a\.tif.*planes.*metadata.*incomplete"):
        read_image(tmp_path / "a.tif")


def test_planes_that_make_no_image_of_their_own(tmp_path):
    image = [(0, 0, 0, "a.tif", 0), (1, 1, 0, "a.tif", 1), (1, 0, 0, "b.tif", 0), (0, 1, 0, "b.tif", 1)]
    write_ome(tmp_path / "a.tif", [OWN, OTHER], ome_xml([image], "a.tif"))
    with pytest.raises(ImageReadError, match=r"a\.tif.* 2 planes.*one file"):
        read_image(tmp_path / "a.tif")


def test_a_channel_of_each_position_in_a_file(tmp_path):
    write_set(tmp_path, [[(c, 0, 0, f"{c}.tif", p) for c in range(2)] for p in range(2)], {"0.tif": [OWN, OTHER]})
    for options in ({}, {"join": True}):
        with pytest.raises(ImageReadError, match=r"0\.tif.* 2 separate images"):
            read_image(tmp_path / "0.tif", **options)


def test_colours_and_resolutions_of_a_part_of_a_set(tmp_path):
    rgb = np.stack([OWN, OTHER, cells(1)], -1)
    channel = '<Channel SamplesPerPixel="3"/><TiffData'
    xml = ome_xml([[(0, 0, 0, "a.tif", 0), (1, 0, 0, "b.tif", 0)]], "a.tif").replace("<TiffData", channel, 1)
    xml = xml.replace('SizeC="2"', 'SizeC="6"')
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        options = {"photometric": "rgb", "metadata": None, "tile": (16, 16)}
        tiff.write(rgb, description=xml, subifds=1, **options)
        tiff.write(rgb[::2, ::2], subfiletype=1, **options)
    image = read_image(tmp_path / "a.tif")
    assert np.array_equal(image.data, rgb.transpose(2, 0, 1))
    assert image.axes == "YXS"


def test_files_that_are_joined(tmp_path):
    channels(tmp_path, ("c.tif", "a.tif", "b.tif"), (cells(1), cells(2), cells(3)), attributes=SIZE)
    for name in ("a.tif", "b.tif", "c.tif"):
        with opened() as paths:
            image = read_image(tmp_path / name, join=True)
        assert np.array_equal(image.data, [cells(1), cells(2), cells(3)])
        assert (image.axes, image.pixel_size_um, image.path.name) == ("CYX", (0.25, 0.5), name)
        assert {Path(path).name for path in paths if str(tmp_path) in path} == {"a.tif", "b.tif", "c.tif"}
        assert [path.name for path in find_ome_set(tmp_path / name)] == ["c.tif", "a.tif", "b.tif"]


def test_files_of_no_set(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", OWN)
    tifffile.imwrite(tmp_path / "b.ome.tif", OWN, ome=True)
    for name in ("a.tif", "b.ome.tif"):
        assert find_ome_set(tmp_path / name) == ()
        assert np.array_equal(read_image(tmp_path / name, join=True).data, OWN[None])


def test_the_joined_image_is_too_large_before_anything_is_decoded(tmp_path, monkeypatch):
    names = [f"{i}.tif" for i in range(5)]
    channels(tmp_path, names, [OWN] * 5)
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", None)
    with pytest.raises(ImageReadError, match=rf"{2 * OWN.size} pixels.*max_pixels={OWN.size}"):
        read_image(tmp_path / "0.tif", join=True, max_pixels=OWN.size)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "beside"])
def test_other_names_are_refused_and_not_opened(tmp_path, kind):
    path = referring(tmp_path / "images", kind)
    expected = {
        "absolute": "'secret.tif'.*another folder",
        "relative": "'secret.tif'.*another folder",
        "fifo": "'pipe'.*no regular file",
        "missing": "'missing'.*is missing",
        "text": r"text.*not a TIFF file",
    }
    with opened() as paths, pytest.raises(ImageReadError, match=expected[kind]):
        read_image(path, join=True)
    allowed = {str(path), str(path.with_name("text"))}
    assert {name for name in paths if str(tmp_path) in name} <= allowed


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/../b.tif", "sub/b.tif", "..\\b.tif", "link.tif", "folder", "b" * 300]
)
def test_names_that_lead_elsewhere(tmp_path, name):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "folder").mkdir()
    write_ome(tmp_path / "other.tif", [OTHER], ome_xml([[(0, 0, 0, "x", 0)]], "x"))
    (folder / "link.tif").symlink_to(tmp_path / "other.tif")
    xml = ome_xml([[(0, 0, 0, "a.tif", 0), (1, 0, 0, name, 0)]], "a.tif")
    write_ome(folder / "a.tif", [OWN], xml)
    with (
        opened() as paths,
        pytest.raises(
            ImageReadError,
            match=r"metadata.*(folder|regular file)|File name too long",
        ),
    ):
        read_image(folder / "a.tif", join=True)
    assert {path for path in paths if str(tmp_path) in path} == {str(folder / "a.tif")}


def test_links_inside_the_folder_are_followed(tmp_path):
    channels(tmp_path)
    (tmp_path / "b.ome.tif").rename(tmp_path / "stored")
    (tmp_path / "b.ome.tif").symlink_to("stored")
    assert np.array_equal(read_image(tmp_path / "a.ome.tif", join=True).data, [OWN, OTHER])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("foreign", r"b\.ome\.tif.*UUID.*expected 'urn:uuid:b\.ome\.tif'"),
        ("other uuid", r"b\.ome\.tif.*UUID.*'urn:uuid:x'"),
        ("size", r"b\.ome\.tif.*planes.*\(24, 30\) uint8.*\(24, 32\)"),
        ("type", r"b\.ome\.tif.*planes.*\(24, 32\) uint16"),
        ("planes", r"b\.ome\.tif.*planes.*\(24, 32, 3\)"),
        ("not listed", r"plane C=2, Z=0, T=0.* 0 files"),
        ("one uuid", r"two files.*UUID"),
    ],
)
def test_files_that_do_not_fit(tmp_path, change, message):
    image = [(0, 0, 0, "a.ome.tif", 0), (1, 0, 0, "b.ome.tif", 0)]
    xml = {name: ome_xml([image], name) for name in ("a.ome.tif", "b.ome.tif", "x")}
    plane = {"size": OTHER[:, :30], "type": OTHER.astype(np.uint16)}.get(change, OTHER)
    if change == "planes":
        plane = np.stack([OTHER] * 3, -1)
    if change == "not listed":
        xml["a.ome.tif"] = xml["a.ome.tif"].replace('SizeC="2"', 'SizeC="3"')
    if change == "one uuid":
        xml["a.ome.tif"] = xml["a.ome.tif"].replace(uuid("b.ome.tif"), uuid("a.ome.tif"))
    write_ome(tmp_path / "a.ome.tif", [OWN], xml["a.ome.tif"])
    if change == "foreign":
        tifffile.imwrite(tmp_path / "b.ome.tif", OTHER)
    else:
        write_ome(tmp_path / "b.ome.tif", [plane], xml["x" if change == "other uuid" else "b.ome.tif"])
    with pytest.raises(ImageReadError, match=message):
        read_image(tmp_path / "a.ome.tif", join=True)
    with pytest.raises(ImageReadError, match=message):
        find_ome_set(tmp_path / "a.ome.tif")


def test_too_many_files(tmp_path):
    write_ome(tmp_path / "a.tif", [OWN], ome_xml([[(c, 0, 0, f"{c}.tif", 0) for c in range(300)]], "0.tif"))
    with pytest.raises(ImageReadError, match=r"300 files.* 256"):
        read_image(tmp_path / "a.tif", join=True)
