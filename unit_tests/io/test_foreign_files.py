"""Metadata of TIFF files that name other files: only the file itself is opened."""

import os
import re

import numpy as np
import pytest
import tifffile
from unit_tests.io.ome_files import KINDS, OWN, cells, ome_xml, opened, referring, uuid, write_ome

from cellbundle.errors import ImageReadError
from cellbundle.io import read_image


@pytest.mark.parametrize("kind", KINDS)
def test_an_ome_file_is_read_as_itself(tmp_path, caplog, kind):
    path = referring(tmp_path / "images", kind)
    with opened() as paths:
        image = read_image(path)
    assert np.array_equal(image.data, OWN[None])
    assert {name for name in paths if str(tmp_path) in name} == {str(path)}
    name = {"absolute": "secret.tif", "relative": "secret.tif", "beside": "b.tif", "fifo": "pipe"}.get(kind, kind)
    assert re.search(rf"other files.*\({re.escape(name)}\)", caplog.text)


def test_a_file_that_refers_to_itself_only(tmp_path, caplog):
    write_ome(tmp_path / "a.tif", [OWN], ome_xml([[(0, 0, 0, "a.tif", 0)]], "a.tif"))
    (tmp_path / "a.tif").rename(tmp_path / "renamed.tif")
    assert np.array_equal(read_image(tmp_path / "renamed.tif").data, OWN[None])
    assert not caplog.text


@pytest.mark.parametrize(
    ("own", "change"),
    [
        ("a.tif", [(uuid("b.tif"), uuid("a.tif"))]),  # one UUID for two files
        (None, []),
        (None, [(uuid("a.tif"), ""), (uuid("b.tif"), "")]),
        ("x", []),
    ],
)
def test_the_name_tells_which_planes_are_its_own_where_no_uuid_does(tmp_path, own, change):
    xml = ome_xml([[(0, 0, 0, "a.tif", 0), (1, 0, 0, "b.tif", 0)]], own)
    for before, after in change:
        xml = xml.replace(before, after)
    write_ome(tmp_path / "a.tif", [OWN], xml)
    assert np.array_equal(read_image(tmp_path / "a.tif").data, OWN[None])
    (tmp_path / "a.tif").rename(tmp_path / "c.tif")
    with pytest.raises(ImageReadError, match=r"c\.tif.*other files.*\(a\.tif, b\.tif\)"):
        read_image(tmp_path / "c.tif")


def test_metadata_of_other_files_only(tmp_path):
    write_ome(tmp_path / "a.tif", [OWN], ome_xml([[(0, 0, 0, "/data/b.tif", 0)]], "a.tif"))
    with pytest.raises(ImageReadError, match=r"a\.tif.*other files.*\(b\.tif\)"):
        read_image(tmp_path / "a.tif")


def test_names_in_a_warning_are_few_short_and_printable(tmp_path, caplog):
    names = ["a.tif", "b\u202e.tif", "x" * 500, "d.tif", "e.tif"]
    xml = ome_xml([[(c, 0, 0, name, 0) for c, name in enumerate(names)]], "a.tif")
    write_ome(tmp_path / "a.tif", [OWN], xml.encode())
    read_image(tmp_path / "a.tif")
    assert f"(b?.tif, {'x' * 80}, d.tif and 1 more)" in caplog.text


def test_an_index_beside_the_file_is_not_read(tmp_path, monkeypatch):
    """The files of an NDTiff acquisition are named in an index beside them."""
    monkeypatch.setattr(tifffile.TiffFile, "micromanager_metadata", {"MajorVersion": 3})
    tifffile.imwrite(tmp_path / "a.tif", OWN, metadata=None)
    (tmp_path / "NDTiff.index").write_bytes(bytes(64))
    with opened() as paths:
        assert np.array_equal(read_image(tmp_path / "a.tif").data, OWN[None])
    assert {name for name in paths if str(tmp_path) in name} == {str(tmp_path / "a.tif")}


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(ImageReadError, match=r"a\.tif.*FIFO"):
        read_image(tmp_path / "a.tif")


def test_a_link_is_read_as_the_file_that_it_leads_to(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", cells(3))
    (tmp_path / "link.tif").symlink_to(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "link.tif").data, cells(3)[None])
