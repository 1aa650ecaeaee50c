"""Bundle packages, installed from files."""

import hashlib
import os
import stat
from pathlib import Path

import pytest
from unit_tests.packages.installing import content, make_package, names, read_zip, refused, with_metadata, write_zip
from unit_tests.packages.packaging import ROOT, write_files

from cellbundle import bundles
from cellbundle.bundles import find_bundle, list_bundles, search_folders
from cellbundle.errors import ConfigError
from cellbundle.packages.archive import PackageError
from cellbundle.packages.install import install_bundle


def test_search_folders(home, tmp_path, monkeypatch):
    assert search_folders() == [home, ROOT / "bundles"]
    monkeypatch.setattr(bundles, "REPOSITORY_BUNDLES", tmp_path / "none")
    assert search_folders() == [home]
    assert list_bundles() == []
    with pytest.raises(ConfigError, match=f"'tiny'.* none .*{home};.*CELLBUNDLE_BUNDLES"):
        find_bundle("tiny")
    monkeypatch.setenv("CELLBUNDLE_BUNDLES", os.pathsep.join(["a", "b"]))
    assert search_folders() == [Path("a"), Path("b"), home]


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_the_folder_of_the_user(value, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME")
    if value is not None:
        monkeypatch.setenv("XDG_DATA_HOME", value)
    assert bundles.install_folder() == tmp_path / ".local" / "share" / "cellbundle" / "bundles"


def test_install(archive, home):
    done = install_bundle(archive)
    assert done == ("tiny", "1.2.3", home / "tiny", True, [])
    assert content(home) == read_zip(archive)
    assert find_bundle("tiny") == home / "tiny"
    assert [(info.name, info.version) for info in list_bundles() if info.path == home / "tiny"] == [("tiny", "1.2.3")]
    assert names(home) == ["tiny"]
    assert stat.S_IMODE((home / "tiny").stat().st_mode) == stat.S_IMODE(home.stat().st_mode)


def test_install_in_the_first_folder_of_the_variable(archive, home, tmp_path, monkeypatch):
    monkeypatch.setenv("CELLBUNDLE_BUNDLES", os.pathsep.join([str(tmp_path / "first"), str(tmp_path / "second")]))
    assert install_bundle(archive).folder == tmp_path / "first" / "tiny"
    assert find_bundle("tiny") == tmp_path / "first" / "tiny"
    assert not home.exists()


def test_again(archive, home):
    install_bundle(archive)
    write_files(home / "tiny", {"eval/a.tif": "", "scripts/__pycache__/a.pyc": ""})
    before = content(home)
    for overwrite in (False, True):
        assert not install_bundle(archive, overwrite=overwrite).is_new
        assert content(home) == before


def test_folders_as_members(archive, home, tmp_path):
    """Other programs than package_bundle.py write them."""
    members = [("tiny/", b""), ("tiny/scripts/", b""), *read_zip(archive).items()]
    write_zip(tmp_path / "again.zip", members)
    install_bundle(tmp_path / "again.zip")
    assert content(home) == read_zip(archive)


def test_a_version_that_is_a_number(home, tmp_path):
    assert install_bundle(make_package(tmp_path, with_metadata(version=3))).version == "3"


def test_the_hash_of_the_archive(archive, home):
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(PackageError, match=f"tiny_v1.2.3.zip.* {digest}.* {'0' * 64}.*--sha256"):
        install_bundle(archive, sha256="0" * 64)
    assert names(home) == []
    assert install_bundle(archive, sha256=digest.upper()).is_new


@pytest.mark.parametrize(
    ("source", "sha256", "message"),
    [
        ("none.zip", None, r"none\.zip.*zip archive"),
        (".", None, r"^\. .*zip archive"),
        ("archive", "abc", "SHA-256.*'abc'.*64 hexadecimal"),
        ("s3://bucket/tiny.zip", None, "^s3:.*https://"),
        ("https:/me:secret@host/tiny.zip", None, "^https:.*%XX"),
        ("https://me:sec#ret@host/tiny.zip", None, "^https:.*%XX"),
        ("https://me:secret@host/ti ny.zip", None, "^https:.*%XX"),
        ("https://[me:secret@host/tiny.zip", None, "^https:.*%XX"),
    ],
)
def test_wrong_arguments(archive, home, source, sha256, message):
    with pytest.raises(ConfigError, match=message) as caught:
        install_bundle(archive if source == "archive" else source, sha256=sha256)
    assert "sec" not in str(caught.value)
    assert not home.exists()


def test_another_version(archive, newer, home):
    install_bundle(archive)
    with refused(home, rf"tiny 1\.2\.3 .*{home / 'tiny'}.* 2\.0\.0.*--overwrite"):
        install_bundle(newer)
    write_files(home / "tiny", {"scripts/__pycache__/a.pyc": "", ".DS_Store": ""})
    done = install_bundle(newer, overwrite=True)
    assert (done.version, done.is_new) == ("2.0.0", True)
    assert content(home) == read_zip(newer)
    assert names(home) == ["tiny"]


def test_another_build_of_the_same_version(archive, home, tmp_path):
    install_bundle(archive)
    other = make_package(tmp_path / "other", {"docs/README.md": "other"})
    with pytest.raises(ConfigError, match=r"tiny 1\.2\.3 .*other files.*--overwrite"):
        install_bundle(other)
    install_bundle(other, overwrite=True)
    assert (home / "tiny" / "docs" / "README.md").read_text() == "other"


@pytest.mark.parametrize("text", ["print('mine')", None])
def test_changed_files(archive, home, text):
    install_bundle(archive)
    file = home / "tiny" / "scripts" / "__init__.py"
    file.unlink() if text is None else file.write_text(text)
    with refused(home, r"'scripts/__init__\.py'.*changed.*--overwrite"):
        install_bundle(archive)
    install_bundle(archive, overwrite=True)
    assert file.read_text() == ""


@pytest.mark.parametrize("name", ["models/model.pt", ".env"])
def test_files_of_the_user_are_not_lost(archive, newer, home, name):
    install_bundle(archive)
    write_files(home / "tiny", {name: "weights"})
    with refused(home, f"tiny/{name} .*lost"):
        install_bundle(newer, overwrite=True)


@pytest.mark.parametrize(
    "files", [{"configs/inference.json": "{}"}, {"BUILD.json": "{}"}, {"BUILD.json": "[]"}, {"BUILD.json": "["}]
)
def test_a_folder_that_is_no_package_is_never_replaced(archive, home, files):
    write_files(home / "tiny", files)
    for overwrite in (False, True):
        with refused(home, r"tiny .*BUILD\.json.*never replaced"):
            install_bundle(archive, overwrite=overwrite)


def test_a_link_is_never_replaced(archive, home, tmp_path):
    home.mkdir(parents=True)
    (home / "tiny").symlink_to(tmp_path / "bundles" / "tiny")
    with pytest.raises(ConfigError, match=r"tiny .*never replaced"):
        install_bundle(archive, overwrite=True)
    assert (home / "tiny").is_symlink()


def test_an_error_while_renaming_brings_the_older_version_back(archive, newer, home, monkeypatch):
    install_bundle(archive)
    real = Path.rename

    def rename(path, target):
        if path.parent.name == "new":
            raise OSError("disk full")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with refused(home, "disk full", OSError):
        install_bundle(newer, overwrite=True)
    assert names(home) == ["tiny"]
