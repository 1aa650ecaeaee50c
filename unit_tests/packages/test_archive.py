"""Bundle packages that are refused: the installed version stays as it was."""

import json
import shutil
import stat
from contextlib import suppress

import pytest
from unit_tests.packages.installing import content, make_package, names, prepare, read_zip, with_metadata, write_zip

from cellbundle.packages import archive as module
from cellbundle.packages.archive import PackageError, missing_packages
from cellbundle.packages.install import install_bundle


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    return prepare(tmp_path, monkeypatch)


@pytest.fixture
def archive(tmp_path):
    return make_package(tmp_path)


@pytest.fixture
def newer(tmp_path):
    return make_package(tmp_path / "newer", with_metadata(version="2.0.0"))


def stamped(members, **changes):
    """Members with another ``BUILD.json``."""
    return members | {"tiny/BUILD.json": json.dumps(json.loads(members["tiny/BUILD.json"]) | changes)}


def refused(archive, home, message):
    """Check that an archive is refused and that the older version stays."""
    before = content(home)
    with pytest.raises(PackageError, match=message) as caught:
        install_bundle(archive, overwrite=True)
    assert str(caught.value).startswith(f"{archive}: ")
    assert "\n" not in str(caught.value)
    assert content(home) == before
    assert names(home) == ["tiny"]


@pytest.fixture
def installed(archive, home):
    """Archive of another version than the installed one."""
    install_bundle(archive)
    return archive.parent / "refused.zip"


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04 text", b"<html>Sign in</html>"])
def test_no_zip(installed, home, data):
    installed.write_bytes(data)
    refused(installed, home, "is damaged or incomplete .File is not a zip file.; download it again")


def test_a_truncated_archive(installed, newer, home):
    data = newer.read_bytes()
    for length in range(1, len(data), 199):
        installed.write_bytes(data[:length])
        refused(installed, home, "is damaged or incomplete")


def test_a_damaged_archive(installed, archive, newer, home):
    """A changed byte is found, or means nothing, such as that of a time: there is never a mixture."""
    data, before = newer.read_bytes(), content(home)
    after = read_zip(newer)
    for position in range(0, len(data), 61):
        installed.write_bytes(data[:position] + bytes([data[position] ^ 0x5A]) + data[position + 1 :])
        with suppress(PackageError):
            install_bundle(installed, overwrite=True)
        assert content(home) in (before, after)
        install_bundle(archive, overwrite=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {n: t for n, t in m.items() if "BUILD" not in n}, r"has no BUILD\.json.*not a bundle package"),
        (lambda m: {}, r"has no BUILD\.json"),
        (lambda m: m | {"tiny/BUILD.json": "{"}, r"its BUILD\.json cannot be read \(JSONDecodeError\)"),
        (lambda m: m | {"tiny/BUILD.json": b"\xff"}, r"its BUILD\.json cannot be read \(UnicodeDecodeError\)"),
        (lambda m: m | {"tiny/BUILD.json": "[" * 100_000}, r"its BUILD\.json cannot be read \(RecursionError\)"),
        (lambda m: m | {"tiny/BUILD.json": "[]"}, r"its BUILD\.json is a JSON list, expected an object"),
        (lambda m: m | {"tiny/BUILD.json": "{}"}, r"its BUILD\.json has the name None.*not a bundle package"),
        (lambda m: stamped(m, name="../tiny"), r"its BUILD\.json has the name '\.\./tiny'"),
        (lambda m: stamped(m, name=[1]), r"its BUILD\.json has the name \[1\]"),
        (lambda m: stamped(m, name="other"), r"its folder is 'tiny', but its BUILD\.json is of 'other'"),
        (lambda m: stamped(m, version="1 2"), r"its BUILD\.json has the version '1 2'"),
        (lambda m: stamped(m, core_version=None), r"its BUILD\.json has the core_version None"),
        (lambda m: stamped(m, files=["LICENSE"]), r"its BUILD\.json does not name files with their SHA-256"),
        (lambda m: stamped(m, files={}), r"its BUILD\.json does not name files"),
        (lambda m: stamped(m, files={"LICENSE": "1"}), r"its BUILD\.json does not name files"),
        (lambda m: stamped(m, version="9.9"), r"metadata\.json has the version '2\.0\.0', its BUILD\.json has '9\.9'"),
        (lambda m: {n: t for n, t in m.items() if n != "tiny/LICENSE"}, r"lacks 'LICENSE', which its BUILD\.json"),
        (lambda m: m | {"tiny/scripts/x.py": ""}, r"has 'scripts/x\.py', which its BUILD\.json does not name"),
        (lambda m: m | {"tiny/.DS_Store": ""}, r"has '\.DS_Store', which its BUILD\.json does not name"),
        (lambda m: m | {"tiny/LICENSE": "Apache-2.0\r"}, r"'LICENSE' has another SHA-256 than its BUILD\.json says"),
        (lambda m: m | {"other/LICENSE": ""}, "'other/LICENSE' is outside its folder 'tiny'"),
        (lambda m: m | {"tiny": ""}, "'tiny' is outside its folder 'tiny'"),
        (lambda m: m | {"LICENSE": ""}, "'LICENSE' is outside its folder 'tiny'"),
        (lambda m: m | {"tiny/../../x.py": ""}, r"is not safe: it has 'tiny/\.\./\.\./x\.py'"),
        (lambda m: m | {"tiny/./x.py": ""}, r"is not safe: it has 'tiny/\./x\.py'"),
        (lambda m: m | {"tiny//x.py": ""}, "is not safe: it has 'tiny//x.py'"),
        (lambda m: m | {"/tmp/x.py": ""}, "is not safe: it has '/tmp/x.py'"),
        (lambda m: m | {"..\\x.py": ""}, r"is not safe: it has '\.\.\\\\x\.py'"),
        (lambda m: m | {"tiny\\x.py": ""}, r"is not safe: it has 'tiny\\\\x\.py'"),
        (lambda m: m | {"C:/x.py": ""}, "is not safe: it has 'C:/x.py'"),
        (lambda m: m | {"tiny/C:x.py": ""}, "is not safe: it has 'tiny/C:x.py'"),
        (lambda m: m | {"tiny/a b.py": ""}, "is not safe: it has 'tiny/a b.py', expected names of letters, digits"),
        (lambda m: m | {"tiny/ä.py": ""}, "is not safe: it has 'tiny/ä.py'"),
        (lambda m: m | {"tiny/a\x1b.py": ""}, r"is not safe: it has 'tiny/a\\x1b\.py'"),
        (lambda m: m | {"tiny/license": ""}, "has 'tiny/license' twice"),
        (lambda m: m | {"tiny/LICENSE/": ""}, "has 'tiny/LICENSE/' twice"),
        (lambda m: m | {"tiny/LICENSE/a": ""}, "'tiny/LICENSE"),
    ],
)
def test_a_package_that_is_not_as_it_was_written(installed, newer, home, change, message):
    write_zip(installed, change(read_zip(newer)).items())
    refused(installed, home, message)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"external_attr": (stat.S_IFLNK | 0o777) << 16}, "'tiny/scripts/cellbundle/__init__.py' is a link or device"),
        ({"flag_bits": 1}, "needs a password .'tiny/scripts/cellbundle/__init__.py' is encrypted"),
        ({"file_size": 600 * 2**20}, r"is not safe: it would become 600\.0 MiB, expected at most 512\.0 MiB"),
        ({"file_size": 400 * 2**20}, r"is not safe: 'tiny/scripts/cellbundle/__init__.py' would grow"),
        ({"compress_type": 9}, "compressed by method 9"),
    ],
)
def test_odd_members(installed, newer, home, entries, message):
    write_zip(installed, read_zip(newer).items(), **entries)
    refused(installed, home, message)


def test_the_same_name_twice(installed, newer, home):
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_zip(installed, [*read_zip(newer).items(), ("tiny/LICENSE", "other")])
    refused(installed, home, "has 'tiny/LICENSE' twice")


@pytest.mark.parametrize(
    ("limit", "message"),
    [("MAX_FILES", "has 8 files, expected at most 5"), ("MAX_ARCHIVE", r"has \d\.\d KiB, expected at most 0\.0 KiB")],
)
def test_limits(newer, installed, home, limit, message, monkeypatch):
    shutil.copyfile(newer, installed)
    monkeypatch.setattr(module, limit, 5)
    refused(installed, home, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"configs/inference.json": None}, r"has no configs/inference\.json"),
        (
            with_metadata(required_packages_version={"x; rm": "1"}),
            "has required_packages_version {'x; rm': '1'}, expected versions by name",
        ),
        (
            with_metadata(required_packages_version=["numpy"]),
            r"has required_packages_version \['numpy'\], expected versions by name",
        ),
    ],
)
def test_bundles_that_cannot_be_used(installed, home, tmp_path, changes, message):
    shutil.copyfile(make_package(tmp_path / "other", changes), installed)
    refused(installed, home, message)


def test_missing_packages():
    required = {"numpy": "1.0", "Scikit_Image": "1", "no-such-package": "1.2.3", "other.missing": "$(rm)"}
    assert missing_packages({"required_packages_version": required}) == ["no-such-package==1.2.3", "other.missing"]
    assert missing_packages({}) == []
