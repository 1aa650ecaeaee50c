"""Limits on directories and metadata of TIFF files: damaged or hostile files end quickly and in little memory."""

import struct
import time

import numpy as np
import pytest
from unit_tests.io.ome_files import OWN, ome_xml, write_ome

from cellbundle.errors import ImageReadError
from cellbundle.io import read_image
from cellbundle.io.images import tiff_limits

SIDE = 8


def directory(tags, following, big=False):
    entries = b"".join(struct.pack("<HHQQ" if big else "<HHII", *tag) for tag in sorted(tags))
    return struct.pack("<Q" if big else "<H", len(tags)) + entries + struct.pack("<Q" if big else "<I", following)


def tiff(pages=1, loop_to=None, tags=(), content=b"", big=False):
    """Bytes of a TIFF of 8 × 8 zeros; ``tags`` of the first page refer to ``content`` at the offset 80."""
    plain = [(256, 3, 1, SIDE), (257, 3, 1, SIDE), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 16)]
    plain += [(277, 3, 1, 1), (278, 3, 1, SIDE), (279, 4, 1, SIDE * SIDE)]
    first = 80 + len(content)
    second = first + len(directory([*plain, *tags], 0, big))
    size = len(directory(plain, 0, big))
    starts = [first, *(second + size * i for i in range(pages - 1))]
    following = [*starts[1:], 0 if loop_to is None else starts[loop_to]]
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if big else struct.pack("<2sHIQ", b"II", 42, first, 0)
    parts = [directory(plain + list(tags if i == 0 else ()), after, big) for i, after in enumerate(following)]
    return b"".join([head, bytes(SIDE * SIDE), content, *parts])


def described(text):
    content = text.encode() + b"\0"
    return tiff(tags=[(270, 2, len(content), 80)], content=content)


def ome(images="", size_c=1, plane='IFD="0" PlaneCount="1"', more=""):
    pixels = f'SizeX="{SIDE}" SizeY="{SIDE}" SizeC="{size_c}" SizeZ="1" SizeT="1" DimensionOrder="XYCZT" Type="uint8"'
    return described(f"<OME>{more}<Image><Pixels {pixels}><TiffData {plane}/></Pixels></Image>{images}</OME>")


MODULO = (
    '<StructuredAnnotations><A ID="a" Namespace="modulo"><V><M><ModuloAlongC {}/></M></V></A></StructuredAnnotations>'
)
IMAGE = f'<Image><Pixels SizeX="{SIDE}" SizeY="{SIDE}" SizeC="{2**19}" SizeZ="1" SizeT="1" DimensionOrder="XYCZT">'
ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("pages", [1, 2])
def test_the_files_of_these_tests_are_good_ones(tmp_path, big, pages):
    (tmp_path / "a.tif").write_bytes(tiff(pages, big=big))
    assert read_image(tmp_path / "a.tif", axes="CYX"[-2 - (pages > 1) :]).data.shape == (pages, SIDE, SIDE)
    (tmp_path / "a.tif").write_bytes(ome(more=MODULO.format('Start="0" End="3" Step="1"')))
    assert read_image(tmp_path / "a.tif").data.shape == (1, SIDE, SIDE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: tiff(loop_to=0), "directories.*loop"),
        (lambda: tiff(150, loop_to=0), "directories.*loop"),  # tifffile follows it for ever
        (lambda: tiff(150, loop_to=120, big=True), "directories.*loop"),
        (lambda: tiff(10_001), "10000 pages"),
        (lambda: tiff(tags=[(330, 4, 20_000, 80)], content=bytes(80_000)), "10000 pages"),
        (
            lambda: tiff(tags=[(305, 2, 2**25 + 1, 80)], content=bytes(2**25 + 1)),
            "tags.*33554432 bytes",
        ),
        (lambda: described("a" * 2**24), "description.*16777217 bytes.* 16777216"),
        (lambda: ome(size_c=10**9), "OME metadata.*1048576 planes"),
        (lambda: ome(plane='IFD="0" PlaneCount="2000000000"'), "OME metadata.*1048576 planes"),
        (lambda: ome(plane='IFD="0" PlaneCount="-2000000000"'), "OME metadata.*1048576 planes"),
        (lambda: ome((IMAGE + "<TiffData/></Pixels></Image>") * 3), "OME metadata.*1048576 planes"),
        (lambda: ome(more=MODULO.format('Start="0" End="2e9"')), "OME metadata.*1048576 planes"),
        (lambda: ome(more=MODULO.format('Start="0" End="5" Step="0"')), "OME metadata.*1048576 planes"),
        (lambda: described(ENTITIES + "<OME>&b;</OME>"), "OME metadata.*document type"),
    ],
)
def test_what_would_take_long_or_much_memory_is_refused(tmp_path, content, message):
    (tmp_path / "a.tif").write_bytes(content())
    started = time.perf_counter()
    with pytest.raises(ImageReadError, match=message):
        read_image(tmp_path / "a.tif")
    assert time.perf_counter() - started < 5


def test_deep_and_wide_metadata(tmp_path):
    for more in ("<a>" * 10_000 + "</a>" * 10_000, "<a/>" * 100_000):
        (tmp_path / "a.tif").write_bytes(ome(more=more))
        assert read_image(tmp_path / "a.tif").data.shape == (1, SIDE, SIDE)


def test_tags_of_thumbnails_count_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_limits, "MAX_VALUES", 400)
    import tifffile

    image = np.zeros((512, 512), np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(image[:16, :16], subifds=1, metadata=None)
        file.write(image, rowsperstrip=8, metadata=None)
    with pytest.raises(ImageReadError, match=r"tags.* 400 bytes"):
        read_image(tmp_path / "a.tif")


def test_damaged_directories_are_left_to_the_reader(tmp_path):
    good = tiff(2)
    for content in (good[:90], good[:-10], good[:4] + b"\xff" * 4 + good[8:], good[:4] + bytes(4) + good[8:]):
        (tmp_path / "a.tif").write_bytes(content)
        with pytest.raises(ImageReadError):
            read_image(tmp_path / "a.tif")


def test_metadata_that_are_no_xml(tmp_path):
    write_ome(tmp_path / "a.tif", [OWN], ome_xml([[(0, 0, 0, "a.tif", 0)]], "a.tif").replace("<Image", "<Image <"))
    with pytest.raises(ImageReadError, match="cannot be decoded"):
        read_image(tmp_path / "a.tif")
