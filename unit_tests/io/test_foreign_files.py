"""Metadata of a TIFF file that name other files: only the file itself is opened."""

import os
import sys

import numpy as np
import pytest
import tifffile

from cellbundle.io import read_image

OWN, OTHER = np.full((12, 17), 40, np.uint8), np.full((12, 17), 200, np.uint8)
_opened: list[list[str]] = []


@pytest.fixture(scope="module", autouse=True)
def audit():
    def hook(event, arguments):
        if _opened and event == "open":
            _opened[-1].append(str(arguments[0]))

    sys.addaudithook(hook)  # there is no way to remove one


@pytest.fixture
def opened():
    """Paths that are opened while the fixture is in use."""
    _opened.append([])
    yield _opened[-1]
    _opened.pop()


def ome_set(path, other, size_c=2):
    """Write a file that is the first of two channels; the second is in ``other``."""
    planes = [(0, path.name, "urn:uuid:1"), (1, other, "urn:uuid:2")]
    data = "".join(
        f'<TiffData FirstC="{c}" FirstT="0" FirstZ="0" IFD="0" PlaneCount="1"><UUID FileName="{name}">{uuid}</UUID>'
        "</TiffData>"
        for c, name, uuid in planes[:size_c]
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0">'
        f'<Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeC="{size_c}" SizeT="1" SizeX="17" SizeY="12" SizeZ="1" '
        f'Type="uint8">{data}</Pixels></Image></OME>'
    )
    tifffile.imwrite(path, OWN, description=xml, metadata=None)


def refer(tmp_path, kind):
    """Name of another file as the metadata give it; the file itself where there is one."""
    (tmp_path / "images").mkdir()
    other = tmp_path / "secret.tif"
    tifffile.imwrite(other, OTHER)
    if kind == "absolute":
        return str(other)
    if kind == "relative":
        return "../secret.tif"
    if kind == "beside":
        tifffile.imwrite(tmp_path / "images" / "b.ome.tif", OTHER)
        return "b.ome.tif"
    if kind == "fifo":
        os.mkfifo(tmp_path / "images" / "pipe")  # reading it would wait for ever
        return "pipe"
    if kind == "text":
        (tmp_path / "images" / "text").write_text("no image")
        return "text"
    return "missing.tif"


@pytest.mark.parametrize("kind", ["absolute", "relative", "beside", "fifo", "text", "missing"])
def test_an_ome_file_is_read_as_itself(tmp_path, opened, caplog, kind):
    path = tmp_path / "images" / "a.ome.tif"
    ome_set(path, refer(tmp_path, kind))
    opened.clear()
    image = read_image(path)
    assert np.array_equal(image.data, OWN[None])
    assert {name for name in opened if str(tmp_path) in name} == {str(path)}
    assert "other files" in caplog.text, "the reader says that it is a part of a set"


def test_a_file_that_refers_to_itself_only(tmp_path, caplog):
    ome_set(tmp_path / "a.ome.tif", "none", size_c=1)
    assert np.array_equal(read_image(tmp_path / "a.ome.tif").data, OWN[None])
    assert "other files" not in caplog.text


def test_an_index_beside_the_file_is_not_read(tmp_path, opened, monkeypatch):
    """The files of an NDTiff acquisition are named in an index beside them."""
    monkeypatch.setattr(tifffile.TiffFile, "micromanager_metadata", {"MajorVersion": 3})
    tifffile.imwrite(tmp_path / "a.tif", OWN, metadata=None)
    (tmp_path / "NDTiff.index").write_bytes(bytes(64))
    opened.clear()
    assert np.array_equal(read_image(tmp_path / "a.tif").data, OWN[None])
    assert {name for name in opened if str(tmp_path) in name} == {str(tmp_path / "a.tif")}
