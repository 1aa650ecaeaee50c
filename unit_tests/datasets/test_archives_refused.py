"""Archives that are damaged, no archives or dangerous are refused, and leave nothing behind."""

import gzip
import stat
import tarfile

import pytest

from cellbundle.datasets import archive_members
from cellbundle.datasets.archives import extract
from cellbundle.errors import DatasetError

from .packing import FILES, KINDS, contents, make, make_tar, make_zip


def assert_refused(archive, message):
    with pytest.raises(DatasetError, match=message) as caught:
        extract(archive, archive.parent / "out")
    assert str(archive) in str(caught.value)
    assert [path for path in archive.parent.iterdir() if path != archive] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty.*download"),
        (b"\n <!DOCTYPE html><p>Sign in", "web page.*log in"),
        (b"\xef\xbb\xbf<HTML lang=en>", "web page.*log in"),
        (b"<?xml version='1.0'?><Error>AccessDenied", "web page.*log in"),
        (b"id,pixels\n" * 100, "not a zip or tar.*download"),
        (b"PK\x03\x04" + bytes(500), "is damaged.*not a zip.*download"),
        (gzip.compress(b"id,pixels\n" * 100, mtime=0), "is damaged.*header"),
    ],
)
def test_no_archive(tmp_path, content, message):
    (tmp_path / "a.zip").write_bytes(content)
    assert_refused(tmp_path / "a.zip", message)


def test_missing_archive(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.zip.*No such file"):
        extract(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_archive(tmp_path, kind):
    archive = make(tmp_path / "a", FILES, kind)
    content = archive.read_bytes()
    end = 6144 if kind == "tar" else len(content)  # what follows in a plain tar is padding
    for length in {*range(600, end, 512), *range(4, end, 97), end - 1}:
        archive.write_bytes(content[:length])
        assert_refused(archive, "is damaged|not a zip or tar")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_damaged_content_never_gets_a_name(tmp_path, kind):
    archive = make(tmp_path / "a", {name: bytes(range(256)) * 9 for name in "abc"}, kind)
    content = bytearray(archive.read_bytes())
    content[len(content) // 3] ^= 255
    archive.write_bytes(content)
    with pytest.raises(DatasetError, match="is damaged"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert set(contents(tmp_path / "out.incomplete").values()) <= {bytes(range(256)) * 9}


@pytest.mark.parametrize(
    "name", ["../a", "b/../../a", "/a", "C:\\a", "c:a", "..\\a", "b\\..\\a", "\\a", "b/.. /a", ".."]
)
def test_paths_that_leave_are_refused(tmp_path, name):
    for kind in ("zip", "tar"):
        assert_refused(make(tmp_path / "a", {"good.png": b"1", name: b"2"}, kind), "not safe.*'.*'.*outside")


def test_links_and_devices_are_refused(tmp_path):
    for kind in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO):
        archive = make_zip(tmp_path / "a.zip", external_attr=(kind | 0o777) << 16)
        assert_refused(archive, "'a.png'.*link or device")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        assert_refused(make_tar(tmp_path / "a.zip", kind=kind), "'a.png'.*link or device")


@pytest.mark.parametrize("names", [("a/b.png", "a/./b.png"), ("a", "a/b.png"), ("a//b.png", "a/b.png")])
def test_two_files_at_one_place_are_refused(tmp_path, names):
    assert_refused(make(tmp_path / "a.zip", dict.fromkeys(names, b"1")), "twice")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_size": 10 * 2**30}, r"0\.1 KiB.*10\.0 GiB"),
        ({"file_size": 300 * 2**20}, r"'a.png'.*0\.0 KiB.*300\.0 MiB"),
        ({"flag_bits": 1}, "password.*'a.png'"),
        ({"compress_type": 9}, "'a.png'.*method 9"),
    ],
)
def test_zips_that_are_refused(tmp_path, changes, message):
    assert_refused(make_zip(tmp_path / "a.zip", **changes), message)


@pytest.mark.parametrize("size", [4999, 5001])
def test_member_of_another_size_than_declared(tmp_path, size):
    archive = make_zip(tmp_path / "a.zip", file_size=size)
    with pytest.raises(DatasetError, match="is damaged"):
        extract(archive, tmp_path / "out")
    assert contents(tmp_path / "out.incomplete") == {}


def test_tars_that_are_refused(tmp_path, monkeypatch):
    assert_refused(make_tar(tmp_path / "a", size=2 * 2**30), r"0\.1 KiB.*2\.0 GiB")
    assert_refused(make_tar(tmp_path / "a", size=2 * 2**20, kind=tarfile.XHDTYPE), "header.*2097152 bytes")
    assert_refused(make_tar(tmp_path / "a", pax={"size": "-1024"}), "'a.png'.*-1024 bytes")
    assert_refused(make_tar(tmp_path / "a", pax={"path": "a\0b"}), r"names a file 'a\\x00b'")
    monkeypatch.setattr(archive_members, "MAX_SIZE", 2**20)
    assert_refused(make_tar(tmp_path / "a", end=bytes(3 * 2**20)), r"KiB.*2\.0 MiB")


@pytest.mark.parametrize("kind", KINDS)
def test_number_of_members(tmp_path, kind, monkeypatch):
    archive = make(tmp_path / "a", FILES, kind)
    monkeypatch.setattr(archive_members, "MAX_MEMBERS", len(FILES) - 1)
    assert_refused(archive, "not safe.*3 members")
    monkeypatch.setattr(archive_members, "MAX_MEMBERS", len(FILES))
    assert contents(extract(archive, tmp_path / "out")) == FILES


def test_headers_count_as_content(tmp_path, monkeypatch):
    archive = make(tmp_path / "a", dict.fromkeys(map(str, range(50)), b""), "tar.gz")
    monkeypatch.setattr(archive_members, "MAX_SIZE", 10_000)
    monkeypatch.setattr(archive_members, "MAX_RATIO", 1)
    assert_refused(archive, r"not safe.*10\.0 KiB")
