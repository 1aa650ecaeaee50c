"""Archives are extracted whatever their kind, and extraction goes on after a stop."""

import errno

import pytest

from cellbundle.datasets import archives
from cellbundle.datasets.archives import archive_stem, extract, first_names, is_archive
from cellbundle.errors import DatasetError

from .packing import FILES, KINDS, contents, make, make_zip, stop_after


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
    with pytest.raises(DatasetError, match=r"a\.zip.*none of the files"):
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
    with pytest.raises(DatasetError, match=r"No space left.*same command"):
        extract(archive, target, progress=fill)
    assert set(contents(tmp_path / "out.incomplete")) == {"images/a.png", "images/Zürich 細胞.png"}
    assert contents(extract(archive, target)) == FILES


def test_too_little_space_is_seen_before_writing(tmp_path, monkeypatch, leave_free):
    archive, target = make(tmp_path / "a.zip"), tmp_path / "new" / "out"
    monkeypatch.setattr(archives, "SPARE", 1000)
    leave_free(2700)
    with pytest.raises(DatasetError, match=r"out\.incomplete.*3\.6 KiB.*2\.6 KiB"):
        extract(archive, target)
    assert not target.parent.exists()
    leave_free(3700)
    with pytest.raises(KeyboardInterrupt):
        extract(archive, target, progress=stop_after(2000))
    leave_free(2100)  # what is there already needs no more space
    assert contents(extract(archive, target)) == FILES


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"a\.zip.*file.*Not a directory"):
        extract(make(tmp_path / "a.zip"), tmp_path / "file" / "out")


def test_goes_on_when_a_damaged_archive_was_replaced(tmp_path):
    archive, target = make(tmp_path / "a.zip"), tmp_path / "out"
    content = archive.read_bytes()
    position = content.index("細胞.png".encode()) + 15
    archive.write_bytes(content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :])
    with pytest.raises(DatasetError, match="is damaged"):
        extract(archive, target)
    time = (tmp_path / "out.incomplete" / "images" / "a.png").stat().st_mtime_ns
    archive.write_bytes(content)
    assert contents(extract(archive, target)) == FILES
    assert (target / "images" / "a.png").stat().st_mtime_ns == time


def test_names_that_only_look_bad(tmp_path):
    files = {"a..b/c...png": b"1", "x/..y": b"2"}
    assert contents(extract(make(tmp_path / "a.zip", files), tmp_path / "out")) == files


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
