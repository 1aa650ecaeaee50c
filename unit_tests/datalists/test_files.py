"""Checks of a data set: its list, its paths and its images."""

import os

import numpy as np
import pytest
import tifffile

from cellbundle.datalists.validate import SplitCounts, inspect_datalist
from cellbundle.errors import ConfigError
from cellbundle.io import read_labels, write_labels

from ..words import Like
from .conftest import SIZE, blank


def test_sound(data):
    result = inspect_datalist(data.list, data.folder)
    assert result.findings == []
    assert list(result.counts) == ["fold 0", "fold 1", "fold 2", "fold 3", "testing"]
    instances = sum(int(read_labels(data.path("label", i, "testing")).max()) for i in range(2))
    assert result.counts["testing"] == SplitCounts(2, instances)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSON"),
        ("[]", "'training' or 'testing'.* list"),
        ('{"training": []}', "no entries"),
        ('{"training": {}}', "'training'.* dict;.* list"),
        ('{"validation": [], "training": []}', "'validation'.*'fold'"),
    ],
)
def test_malformed_list(data, content, message):
    data.list.write_text(content)
    result = inspect_datalist(data.list, data.folder)
    (finding,) = result.findings
    assert (finding.severity, finding.kind, finding.path) == ("error", "malformed-list", str(data.list))
    assert finding.message == Like(message)
    assert not finding.message.startswith(str(data.list))
    assert result.counts == {}


def test_no_list_and_no_basedir(data):
    (finding,) = inspect_datalist(data.folder / "other.json", data.folder).findings
    assert finding.kind == "malformed-list"
    (finding,) = inspect_datalist(data.list, data.folder / "other").findings
    assert (finding.kind, finding.path) == ("missing-file", str(data.folder / "other"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fold": "x"}, "'fold'.*'x'.*whole number"),
        ({"label": None}, "'label'.*missing"),
        ({"image": 3}, "'image'.* 3;"),
    ],
)
def test_malformed_entry_leaves_the_others_checked(data, values, message):
    data.change(1, **values)
    data.path("image", 3).unlink()
    first, second = data.findings()
    assert (first.severity, first.kind, first.path) == ("error", "malformed-entry", "training[1]")
    assert first.message == Like(message)
    assert second.kind == "missing-file"


def test_entry_that_is_no_object(data):
    data.content["testing"][0] = ["a.png"]
    data.change()
    assert data.found() == [("error", "malformed-entry", "testing[0]")]


def test_labels_may_be_left_out(data):
    for section, entries in data.content.items():
        for i in range(len(entries)):
            data.change(i, section, label=None)
    assert data.findings(require_labels=False) == []
    assert {f.kind for f in data.findings()} == {"malformed-entry"}


@pytest.mark.parametrize("name", ["../other.png", "/etc/hosts", "images/../../other.png", "."])
def test_path_escapes(data, name):
    data.change(2, image=name, label=name)
    findings = data.findings()
    assert [(f.severity, f.kind, f.path) for f in findings] == [("error", "path-escapes", "training[2]")] * 2
    assert "'label' is" in findings[1].message


def test_link_out_of_the_basedir(data, tmp_path):
    image = data.path("image")
    image.rename(tmp_path / "elsewhere.tif")
    image.symlink_to(tmp_path / "elsewhere.tif")
    (finding,) = data.findings()
    assert (finding.severity, finding.kind, finding.path) == (
        "warning",
        "path-escapes",
        data.content["training"][0]["image"],
    )
    assert str(tmp_path / "elsewhere.tif") in finding.message


def test_link_inside_the_basedir_and_linked_basedir(data, tmp_path):
    image = data.path("image")
    image.rename(image.with_name("real.tif"))
    image.symlink_to("real.tif")
    (tmp_path / "link").symlink_to(data.folder)
    assert inspect_datalist(data.list, tmp_path / "link").findings == []


def test_missing_files(data):
    data.path("image").unlink()
    data.path("label", 1, "testing").unlink()
    data.change(1, label="labels/" + "x" * 300 + ".tif")
    data.change(2, label="labels/nul\0.tif")
    assert [kind for _, kind, _ in data.found()] == ["missing-file"] * 4
    assert data.found()[0] == ("error", "missing-file", data.content["training"][0]["image"])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file(data):
    data.path("image").chmod(0)
    assert data.found() == [("error", "unreadable-image", data.content["training"][0]["image"])]


def test_unreadable_image(data):
    path = data.path("image")
    path.write_bytes(path.read_bytes()[:200])
    (finding,) = data.findings()
    assert (finding.severity, finding.kind, finding.path) == (
        "error",
        "unreadable-image",
        data.content["training"][0]["image"],
    )
    assert "truncated" in finding.message


def test_blank_image(data):
    for number in (0, 1):
        tifffile.imwrite(data.path("image", number), np.full(SIZE, 7, np.uint16))
    assert [(f.severity, f.kind) for f in data.findings()] == [("warning", "blank-image")] * 2, "equal, but no leak"


def test_order_and_progress_do_not_depend_on_workers(data):
    for number in (3, 1):
        data.path("image", number).write_bytes(b"")
        write_labels(data.path("label", number), blank() * 0)
    calls = []
    expected = data.findings(workers=1, progress=lambda *call: calls.append(call))
    assert calls == [(i, 6) for i in range(1, 7)]
    assert [f.kind for f in expected] == ["unreadable-image", "empty-label"] * 2
    assert expected[0].path == data.content["training"][1]["image"]
    assert data.findings(workers=3) == expected


def test_interruption_stops_soon(data):
    calls = []

    def stop(done, total):
        calls.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.findings(workers=1, progress=stop)
    assert calls == [1]


def test_bad_workers(data):
    with pytest.raises(ConfigError, match=r"workers.* 0"):
        data.findings(workers=0)
