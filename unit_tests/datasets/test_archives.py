import errno
import io
import shutil
import stat
import tarfile
import zipfile
from collections import namedtuple

import pytest

from cellbundle.datasets import archive_members, archives
from cellbundle.datasets.archives import archive_stem, extract, first_names, is_archive
from cellbundle.errors import DatasetError

KINDS = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")
FILES = {"images/a.png": b"A" * 700, "images/Zürich 細胞.png": b"B" * 900, "labels/a.tif": b"C" * 1100, "empty": b""}


def make(path, files=FILES, kind="zip"):
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in files.items():
                file.writestr(name, content)
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as file:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path


def make_zip(path, **changes):
    """A zip with one member, "a.png", whose entry in the directory is changed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", b"A" * 5000)
        for key, value in changes.items():
            setattr(file.infolist()[0], key, value)
    return path


def make_tar(path, size=0, kind=tarfile.REGTYPE, end=bytes(1024), pax=None):
    """A compressed tar with the header of one member, "a.png", and nothing but the end after it."""
    info = tarfile.TarInfo("a.png")
    info.type, info.size, info.linkname, info.pax_headers = kind, size, "target", pax or {}
    path.write_bytes(archive_members.gzip.compress(info.tobuf() + end))
    return path


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stop_after(count):
    """A progress that stops the extraction when that many bytes are done."""

    def progress(done, _total):
        if done >= count:
            raise KeyboardInterrupt

    return progress


def assert_refused(archive, message):
    with pytest.raises(DatasetError, match=message) as caught:
        extract(archive, archive.parent / "out")
    assert str(archive) in str(caught.value)
    assert [path for path in archive.parent.iterdir() if path != archive] == []


@pytest.mark.parametrize("kind", KINDS)
def test_extracts_all_kinds_by_content(tmp_path, kind):
    calls = []
    archive = make(tmp_path / "wrong_suffix.zip", FILES, kind)
    target = extract(archive, tmp_path / "new" / "out", progress=lambda *call: calls.append(call))
    assert contents(target) == FILES
    assert calls == [(0, 2700), (700, 2700), (1600, 2700), (2700, 2700)]
    assert sorted(path.name for path in target.parent.iterdir()) == ["out"]


def test_names_without_unicode_flag(tmp_path):
    archive = make(tmp_path / "a.zip", {"X.png": b"1"})
    archive.write_bytes(archive.read_bytes().replace(b"X.png", b"\x82.png"))
    assert contents(extract(archive, tmp_path / "out")) == {"é.png": b"1"}


def test_backslashes_are_separators(tmp_path):
    archive = make(tmp_path / "a.zip", {"images\\": b"", "images\\a.png": b"1"})
    assert contents(extract(archive, tmp_path / "out")) == {"images/a.png": b"1"}


def test_what_macos_adds_is_left_out(tmp_path):
    files = {"a.png": b"1", "__MACOSX/a.png": b"2", ".DS_Store": b"3", "b/._a.png": b"4"}
    assert contents(extract(make(tmp_path / "a.zip", files), tmp_path / "out")) == {"a.png": b"1"}


def test_existing_target_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    assert extract(tmp_path / "none.zip", tmp_path / "out") == tmp_path / "out"
    assert contents(tmp_path / "out") == {}


def test_selection(tmp_path):
    archive = make(tmp_path / "a.tar", FILES, "tar")
    target = extract(archive, tmp_path / "out", members=lambda name: name.startswith("labels/"))
    assert contents(target) == {"labels/a.tif": FILES["labels/a.tif"]}


def test_archive_without_wanted_files(tmp_path):
    with pytest.raises(DatasetError, match="has none of the files that are needed"):
        extract(make(tmp_path / "a.zip"), tmp_path / "out", members=lambda _: False)


@pytest.mark.parametrize("kind", KINDS)
def test_goes_on_after_a_stop(tmp_path, kind):
    archive, target, work = make(tmp_path / "a", FILES, kind), tmp_path / "out", tmp_path / "out.incomplete"
    with pytest.raises(KeyboardInterrupt):
        extract(archive, target, progress=stop_after(2000))
    assert set(contents(work)) == {"images/a.png", "images/Zürich 細胞.png"}
    times = {path.name: path.stat().st_mtime_ns for path in work.glob("images/*")}
    (work / "labels" / ".0123.tif").write_bytes(b"of a run that was killed")
    (work / "labels" / "a.tif").write_bytes(b"C" * 1099)
    calls = []
    extract(archive, target, progress=lambda *call: calls.append(call))
    assert contents(target) == FILES
    assert {path.name: path.stat().st_mtime_ns for path in target.glob("images/*")} == times
    assert calls == [(1600, 2700), (2700, 2700)]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "out"}


def test_another_archive_is_not_mixed_with_the_first(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        extract(make(tmp_path / "a.zip"), target, progress=stop_after(2000))
    corrected = {"images/a.png": b"X" * 700, "labels/a.tif": b"Y"}
    assert contents(extract(make(tmp_path / "a.zip", corrected), target)) == corrected


def test_full_disk_loses_nothing(tmp_path):
    def fill(done, _total):
        if done >= 2000:
            raise OSError(errno.ENOSPC, "No space left on device")

    archive, target = make(tmp_path / "a.zip"), tmp_path / "out"
    with pytest.raises(DatasetError, match="No space left on device; put that right, and the same command goes on"):
        extract(archive, target, progress=fill)
    assert set(contents(tmp_path / "out.incomplete")) == {"images/a.png", "images/Zürich 細胞.png"}
    assert contents(extract(archive, target)) == FILES


def test_too_little_space_is_seen_before_writing(tmp_path, monkeypatch):
    def leave(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(free))

    archive, target = make(tmp_path / "a.zip"), tmp_path / "new" / "out"
    monkeypatch.setattr(archives, "SPARE", 1000)
    leave(2700)
    with pytest.raises(DatasetError, match=r"out\.incomplete: needs 3\.6 KiB, but only 2\.6 KiB are free there"):
        extract(archive, target)
    assert not target.parent.exists()
    leave(3700)
    with pytest.raises(KeyboardInterrupt):
        extract(archive, target, progress=stop_after(2000))
    leave(2100)  # what is there already needs no more space
    assert contents(extract(archive, target)) == FILES


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"cannot be unpacked: .*file.*: Not a directory"):
        extract(make(tmp_path / "a.zip"), tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; download it again"),
        (b"\n <!DOCTYPE html><p>Sign in", "is a web page, not an archive"),
        (b"\xef\xbb\xbf<HTML lang=en>", "is a web page, not an archive"),
        (b"<?xml version='1.0'?><Error>AccessDenied", "is a web page, not an archive"),
        (b"id,pixels\n" * 100, "is not a zip or tar archive"),
        (b"PK\x03\x04" + bytes(500), r"is damaged or incomplete \(File is not a zip file\); download it again"),
        (archive_members.gzip.compress(b"id,pixels\n" * 100), "is damaged or incomplete"),
    ],
)
def test_no_archive(tmp_path, content, message):
    (tmp_path / "a.zip").write_bytes(content)
    assert_refused(tmp_path / "a.zip", message)


def test_missing_archive(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.zip: No such file or directory"):
        extract(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_archive(tmp_path, kind):
    archive = make(tmp_path / "a", FILES, kind)
    content = archive.read_bytes()
    end = 6144 if kind == "tar" else len(content)  # what follows in a plain tar is padding
    for length in {*range(600, end, 512), *range(4, end, 97), end - 1}:
        archive.write_bytes(content[:length])
        assert_refused(archive, "is damaged or incomplete|is not a zip or tar archive")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_damaged_content_never_gets_a_name(tmp_path, kind):
    archive = make(tmp_path / "a", {name: bytes(range(256)) * 9 for name in "abc"}, kind)
    content = bytearray(archive.read_bytes())
    content[len(content) // 3] ^= 255
    archive.write_bytes(content)
    with pytest.raises(DatasetError, match="is damaged or incomplete"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert set(contents(tmp_path / "out.incomplete").values()) <= {bytes(range(256)) * 9}


def test_goes_on_when_a_damaged_archive_was_replaced(tmp_path):
    archive, target = make(tmp_path / "a.zip"), tmp_path / "out"
    content = archive.read_bytes()
    position = content.index("細胞.png".encode()) + 15
    archive.write_bytes(content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :])
    with pytest.raises(DatasetError, match="is damaged or incomplete"):
        extract(archive, target)
    time = (tmp_path / "out.incomplete" / "images" / "a.png").stat().st_mtime_ns
    archive.write_bytes(content)
    assert contents(extract(archive, target)) == FILES
    assert (target / "images" / "a.png").stat().st_mtime_ns == time


@pytest.mark.parametrize(
    "name", ["../a", "b/../../a", "/a", "C:\\a", "c:a", "..\\a", "b\\..\\a", "\\a", "b/.. /a", ".."]
)
def test_paths_that_leave_are_refused(tmp_path, name):
    for kind in ("zip", "tar"):
        assert_refused(make(tmp_path / "a", {"good.png": b"1", name: b"2"}, kind), "would be written outside")


def test_names_that_only_look_bad(tmp_path):
    files = {"a..b/c...png": b"1", "x/..y": b"2"}
    assert contents(extract(make(tmp_path / "a.zip", files), tmp_path / "out")) == files


def test_links_and_devices_are_refused(tmp_path):
    for kind in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO):
        archive = make_zip(tmp_path / "a.zip", external_attr=(kind | 0o777) << 16)
        assert_refused(archive, "'a.png' is a link or device")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        assert_refused(make_tar(tmp_path / "a.zip", kind=kind), "'a.png' is a link or device")


@pytest.mark.parametrize("names", [("a/b.png", "a/./b.png"), ("a", "a/b.png"), ("a//b.png", "a/b.png")])
def test_two_files_at_one_place_are_refused(tmp_path, names):
    assert_refused(make(tmp_path / "a.zip", dict.fromkeys(names, b"1")), "twice")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_size": 10 * 2**30}, r"0\.1 KiB would become at least 10\.0 GiB"),
        ({"file_size": 300 * 2**20}, r"'a.png' would grow from 0\.0 KiB to 300\.0 MiB"),
        ({"flag_bits": 1}, "needs a password"),
        ({"compress_type": 9}, "compressed by method 9, which Python cannot read"),
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
    assert_refused(make_tar(tmp_path / "a", size=2 * 2**30), r"would become at least 2\.0 GiB")
    assert_refused(make_tar(tmp_path / "a", size=2 * 2**20, kind=tarfile.XHDTYPE), "a header declares 2097152 bytes")
    assert_refused(make_tar(tmp_path / "a", pax={"size": "-1024"}), "'a.png' declares -1024 bytes")
    assert_refused(make_tar(tmp_path / "a", pax={"path": "a\0b"}), "it names a file")
    monkeypatch.setattr(archive_members, "MAX_SIZE", 2**20)
    assert_refused(make_tar(tmp_path / "a", end=bytes(3 * 2**20)), r"would become at least 2\.0 MiB")


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.zip", "a"), ("a.b.tar.gz", "a.b"), ("A.TGZ", "A"), ("a.tar.bz2", "a"), ("a.tar.xz", "a"), ("a.tar", "a")],
)
def test_archive_names(tmp_path, name, stem):
    assert is_archive(tmp_path / name)
    assert archive_stem(name) == stem


@pytest.mark.parametrize("name", ["a.npz", "a.gz", "a.zip.incomplete", "zip"])
def test_other_names(tmp_path, name):
    assert not is_archive(tmp_path / name)
    assert archive_stem(name) == name


@pytest.mark.parametrize("kind", KINDS)
def test_first_names(tmp_path, kind):
    archive = make(tmp_path / "a", {"__MACOSX/a": b""} | FILES, kind)
    assert first_names(archive, 2) == ["images/a.png", "images/Zürich 細胞.png"]
    assert first_names(archive, 9) == list(FILES)


def test_first_names_of_archives_that_cannot_be_extracted(tmp_path):
    assert first_names(make_zip(tmp_path / "a.zip", compress_type=9), 5) == ["a.png"]
    (tmp_path / "b.zip").write_text("<html>")
    assert first_names(tmp_path / "b.zip", 5) == []
    assert first_names(tmp_path / "none.zip", 5) == []
