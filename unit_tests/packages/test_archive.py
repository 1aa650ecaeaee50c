"""Bundle packages that are refused: the installed version stays as it was."""

import json
import shutil
import stat
from contextlib import suppress

import pytest
from unit_tests.packages import installing
from unit_tests.packages.installing import content, make_package, names, read_zip, with_metadata, write_zip

from cellbundle.packages import archive as module
from cellbundle.packages.archive import PackageError, missing_packages
from cellbundle.packages.install import install_bundle


def stamped(members, **changes):
    """Members with another ``BUILD.json``."""
    return members | {"tiny/BUILD.json": json.dumps(json.loads(members["tiny/BUILD.json"]) | changes)}


def refused(archive, home, message):
    """Check that an archive is refused and that the older version stays."""
    with installing.refused(home, message, PackageError) as caught:
        install_bundle(archive, overwrite=True)
    assert str(caught.value).startswith(f"{archive}: ")
    assert "\n" not in str(caught.value)
    assert names(home) == ["tiny"]


@pytest.fixture
def installed(archive, home):
    """Archive of another version than the installed one."""
    install_bundle(archive)
    return archive.parent / "refused.zip"


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04 text", b"<html>Sign in</html>"])
def test_no_zip(installed, home, data):
    installed.write_bytes(data)
    refused(installed, home, "is damaged.*not a zip.*download")


def test_a_truncated_archive(installed, newer, home):
    data = newer.read_bytes()
    for length in range(1, len(data), 199):
        installed.write_bytes(data[:length])
        refused(installed, home, "is damaged")


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
        (lambda m: {n: t for n, t in m.items() if "BUILD" not in n}, r"no BUILD\.json.*'tiny'.*not a bundle package"),
        (lambda m: {}, r"no BUILD\.json.*''.*not a bundle package"),
        (lambda m: m | {"tiny/BUILD.json": "{"}, r"BUILD\.json.*JSONDecodeError"),
        (lambda m: m | {"tiny/BUILD.json": b"\xff"}, r"BUILD\.json.*UnicodeDecodeError"),
        (lambda m: m | {"tiny/BUILD.json": "[" * 100_000}, r"BUILD\.json.*RecursionError"),
        (lambda m: m | {"tiny/BUILD.json": "[]"}, r"BUILD\.json.*list.*object"),
        (lambda m: m | {"tiny/BUILD.json": "{}"}, r"BUILD\.json.*name None.*not a bundle package"),
        (lambda m: stamped(m, name="../tiny"), r"BUILD\.json.*name '\.\./tiny'"),
        (lambda m: stamped(m, name=[1]), r"BUILD\.json.*name \[1\]"),
        (lambda m: stamped(m, name="other"), r"folder.*'tiny'.*BUILD\.json.*'other'"),
        (lambda m: stamped(m, version="1 2"), r"BUILD\.json.*version '1 2'"),
        (lambda m: stamped(m, core_version=None), r"BUILD\.json.*core_version None"),
        (lambda m: stamped(m, files=["LICENSE"]), r"BUILD\.json.*files.*SHA-256"),
        (lambda m: stamped(m, files={}), r"BUILD\.json.*files.*SHA-256"),
        (lambda m: stamped(m, files={"LICENSE": "1"}), r"BUILD\.json.*files.*SHA-256"),
        (lambda m: stamped(m, version="9.9"), r"metadata\.json.*version '2\.0\.0'.*BUILD\.json.*'9\.9'"),
        (lambda m: {n: t for n, t in m.items() if n != "tiny/LICENSE"}, r"lacks 'LICENSE'.*BUILD\.json"),
        (lambda m: m | {"tiny/scripts/x.py": ""}, r"'scripts/x\.py'.*BUILD\.json.*do not use"),
        (lambda m: m | {"tiny/.DS_Store": ""}, r"'\.DS_Store'.*BUILD\.json.*do not use"),
        (lambda m: m | {"tiny/LICENSE": "Apache-2.0\r"}, r"'LICENSE'.*another SHA-256.*BUILD\.json"),
        (lambda m: m | {"other/LICENSE": ""}, "'other/LICENSE'.*outside.*'tiny'"),
        (lambda m: m | {"tiny": ""}, "'tiny'.*outside.*'tiny'"),
        (lambda m: m | {"LICENSE": ""}, "'LICENSE'.*outside.*'tiny'"),
        (lambda m: m | {"tiny/../../x.py": ""}, r"not safe.*'tiny/\.\./\.\./x\.py'"),
        (lambda m: m | {"tiny/./x.py": ""}, r"not safe.*'tiny/\./x\.py'"),
        (lambda m: m | {"tiny//x.py": ""}, "not safe.*'tiny//x.py'"),
        (lambda m: m | {"/tmp/x.py": ""}, "not safe.*'/tmp/x.py'"),
        (lambda m: m | {"..\\x.py": ""}, r"not safe.*'\.\.\\\\x\.py'"),
        (lambda m: m | {"tiny\\x.py": ""}, r"not safe.*'tiny\\\\x\.py'"),
        (lambda m: m | {"C:/x.py": ""}, "not safe.*'C:/x.py'"),
        (lambda m: m | {"tiny/C:x.py": ""}, "not safe.*'tiny/C:x.py'"),
        (lambda m: m | {"tiny/a b.py": ""}, "not safe.*'tiny/a b.py'.*letters, digits"),
        (lambda m: m | {"tiny/ä.py": ""}, "not safe.*'tiny/ä.py'"),
        (lambda m: m | {"tiny/a\x1b.py": ""}, r"not safe.*'tiny/a\\x1b\.py'"),
        (lambda m: m | {"tiny/license": ""}, "'tiny/license' twice"),
        (lambda m: m | {"tiny/LICENSE/": ""}, "'tiny/LICENSE/' twice"),
        (lambda m: m | {"tiny/LICENSE/a": ""}, "'tiny/LICENSE"),
    ],
)
def test_a_package_that_is_not_as_it_was_written(installed, newer, home, change, message):
    write_zip(installed, change(read_zip(newer)).items())
    refused(installed, home, message)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"external_attr": (stat.S_IFLNK | 0o777) << 16}, "'tiny/scripts/cellbundle/__init__.py'.*link or device"),
        ({"flag_bits": 1}, "password.*'tiny/scripts/cellbundle/__init__.py'"),
        ({"file_size": 600 * 2**20}, r"not safe.*600\.0 MiB.*512\.0 MiB"),
        ({"file_size": 400 * 2**20}, r"not safe.*'tiny/scripts/cellbundle/__init__.py'.*400\.0 MiB"),
        ({"compress_type": 9}, "'tiny/scripts/cellbundle/__init__.py'.*method 9"),
    ],
)
def test_odd_members(installed, newer, home, entries, message):
    write_zip(installed, read_zip(newer).items(), **entries)
    refused(installed, home, message)


def test_the_same_name_twice(installed, newer, home):
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_zip(installed, [*read_zip(newer).items(), ("tiny/LICENSE", "other")])
    refused(installed, home, "'tiny/LICENSE' twice")


@pytest.mark.parametrize(
    ("limit", "message"),
    [("MAX_FILES", " 8 files.* 5;"), ("MAX_ARCHIVE", r" \d\.\d KiB.* 0\.0 KiB")],
)
def test_limits(newer, installed, home, limit, message, monkeypatch):
    shutil.copyfile(newer, installed)
    monkeypatch.setattr(module, limit, 5)
    refused(installed, home, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"configs/inference.json": None}, r"no configs/inference\.json"),
        (
            with_metadata(required_packages_version={"x; rm": "1"}),
            "required_packages_version.*{'x; rm': '1'}",
        ),
        (
            with_metadata(required_packages_version=["numpy"]),
            r"required_packages_version.*\['numpy'\]",
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
