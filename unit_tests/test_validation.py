"""Checks of a data set: a sound one, broken in one way at a time."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellbundle.errors import ConfigError
from cellbundle.io import read_image, read_labels, write_labels
from cellbundle.synthetic import write_dataset
from cellbundle.validation import Finding, SplitCounts, inspect_datalist

SIZE = (48, 40)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Four training images in folds 0 to 3 and two testing images, all right."""
    folder = tmp_path_factory.mktemp("sound")
    write_dataset(folder, n_training=4, n_testing=2, kinds=("fluorescence",), size=SIZE)
    return folder


class Data:
    """A copy of the sound data set to break."""

    def __init__(self, folder):
        self.folder, self.list = folder, folder / "datalist.json"
        self.content = json.loads(self.list.read_text())

    def path(self, key, number=0, section="training"):
        return self.folder / self.content[section][number][key]

    def change(self, number=0, section="training", **values):
        self.content[section][number].update(values)
        self.list.write_text(json.dumps(self.content))

    def found(self, **options):
        return [(f.severity, f.kind, f.path) for f in self.findings(**options)]

    def findings(self, **options):
        return inspect_datalist(self.list, self.folder, **options).findings


@pytest.fixture
def data(sound, tmp_path):
    return Data(Path(shutil.copytree(sound, tmp_path / "data")))


def blank(*spots):
    """Labels with an instance of 36 pixels, id 1, and rectangles (id, top, left, height, width)."""
    labels = np.zeros(SIZE, np.int32)
    labels[2:8, 2:8] = 1
    for number, top, left, height, width in spots:
        labels[top : top + height, left : left + width] = number
    return labels


def test_sound(data):
    result = inspect_datalist(data.list, data.folder)
    assert result.findings == []
    assert list(result.counts) == ["fold 0", "fold 1", "fold 2", "fold 3", "testing"]
    instances = sum(int(read_labels(data.path("label", i, "testing")).max()) for i in range(2))
    assert result.counts["testing"] == SplitCounts(2, instances)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected an object with 'training' or 'testing', got list"),
        ('{"training": []}', "has no entries"),
        ('{"training": {}}', "expected a list of entries"),
        ('{"validation": [], "training": []}', "section 'validation'"),
    ],
)
def test_malformed_list(data, content, message):
    data.list.write_text(content)
    result = inspect_datalist(data.list, data.folder)
    (finding,) = result.findings
    assert (finding.severity, finding.kind, finding.path) == ("error", "malformed-list", str(data.list))
    assert message in finding.message
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
        ({"fold": "x"}, "'fold' is 'x'"),
        ({"label": None}, "'label' is missing"),
        ({"image": 3}, "'image' is 3"),
    ],
)
def test_malformed_entry_leaves_the_others_checked(data, values, message):
    data.change(1, **values)
    data.path("image", 3).unlink()
    first, second = data.findings()
    assert (first.severity, first.kind, first.path) == ("error", "malformed-entry", "training[1]")
    assert message in first.message
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
    assert finding.message.startswith("is truncated")


def test_blank_image(data):
    for number in (0, 1):
        tifffile.imwrite(data.path("image", number), np.full(SIZE, 7, np.uint16))
    assert [(f.severity, f.kind) for f in data.findings()] == [("warning", "blank-image")] * 2, "equal, but no leak"


def save(path, array):
    tifffile.imwrite(path, array, photometric="minisblack")


@pytest.mark.parametrize(
    ("array", "kind", "message"),
    [
        (blank().astype(np.uint8) * 255, "binary-mask", "looks like a binary mask"),
        (blank().astype(np.float32) / 2, "label-dtype", "not whole numbers"),
        (-blank(), "unreadable-label", "negative ids"),
        (
            blank()[:-1],
            "size-mismatch",
            f"label is 47x40, its image images/000_fluorescence.tif is {SIZE[0]}x{SIZE[1]}",
        ),
    ],
)
def test_label_errors(data, array, kind, message):
    save(data.path("label"), array)
    (finding,) = data.findings()
    assert (finding.severity, finding.kind, finding.path) == ("error", kind, data.content["training"][0]["label"])
    assert message in finding.message
    assert str(data.folder) not in finding.message


def test_label_that_is_no_image(data):
    data.path("label").write_text("no image")
    assert data.found() == [("error", "unreadable-label", data.content["training"][0]["label"])]


def test_label_of_an_unreadable_image_is_checked_all_the_same(data):
    data.path("image").write_bytes(b"")
    save(data.path("label"), blank().astype(np.uint8) * 255)
    assert [kind for _, kind, _ in data.found()] == ["unreadable-image", "binary-mask"]


@pytest.mark.parametrize(
    ("labels", "kind", "number"),
    [
        (blank() * 0, "empty-label", None),
        (blank((5, 20, 20, 1, 3), (9, 30, 20, 1, 1)), "tiny-instances", "2 of 3"),
        (blank((1, 2, 30, 6, 6), (7, 20, 20, 2, 2)), "scattered-instances", "1 of 2"),
        (blank((2**31 - 1, 30, 30, 3, 1)), "tiny-instances", "1 of 2"),
    ],
)
def test_label_warnings(data, labels, kind, number):
    write_labels(data.path("label"), labels)
    (finding,) = data.findings()
    assert (finding.severity, finding.kind, finding.path) == ("warning", kind, data.content["training"][0]["label"])
    assert number is None or finding.message.startswith(f"{number} instances")


def test_parts_close_to_each_other_are_no_problem(data):
    # 36 pixels are a disc of diameter 6.8: a gap of 3 is below half of it, one of 4 is not.
    write_labels(data.path("label"), blank((1, 2, 11, 2, 2), (3, 8, 8, 4, 4), (3, 12, 12, 2, 2)))
    assert data.findings() == []
    write_labels(data.path("label"), blank((1, 2, 12, 2, 2)))
    assert [kind for _, kind, _ in data.found()] == ["scattered-instances"]


def copy_image(data, target, section, transform):
    """Give an image the pixels of the first training image, in another file."""
    pixels = read_image(data.path("image")).data[0].astype(np.uint16)
    transform(data.path("image", target, section), pixels)


@pytest.mark.parametrize(
    "write",
    [
        lambda path, pixels: tifffile.imwrite(path, pixels, compression="lzw", description="another file"),
        lambda path, pixels: tifffile.imwrite(path, pixels.astype(np.float32)),
        lambda path, pixels: Image.fromarray(pixels).save(path, format="PNG"),
    ],
)
def test_equal_pixels_leak(data, write):
    copy_image(data, 1, "testing", write)
    copy_image(data, 2, "training", write)
    (finding,) = data.findings()
    assert (finding.severity, finding.kind, finding.path) == ("error", "leakage", data.content["training"][0]["image"])
    assert finding.message == (
        "(fold 0) has the same pixels as images/002_fluorescence.tif (fold 2), images/005_fluorescence.tif (testing); "
        "keep one, or move all to one place"
    )


def test_grey_as_rgb_leaks_and_channels_differ(data):
    copy_image(data, 0, "testing", lambda path, p: tifffile.imwrite(path, np.stack([p] * 3, -1), photometric="rgb"))
    findings = data.findings()
    assert [(f.severity, f.kind) for f in findings] == [("error", "leakage"), ("warning", "channels")]
    assert findings[1].path == data.content["testing"][0]["image"]
    assert "5 with 1 channels (such as images/000_fluorescence.tif), 1 with 3 channels" in findings[1].message


def test_equal_pixels_in_one_fold(data):
    copy_image(data, 2, "training", tifffile.imwrite)
    data.change(2, fold=0)
    assert data.found() == [("warning", "duplicate-content", data.content["training"][0]["image"])]


def test_one_file_twice(data):
    data.change(1, **{key: data.content["training"][0][key] for key in ("image", "label", "fold")})
    assert data.found() == [("warning", "duplicate-content", data.content["training"][0]["image"])]
    data.change(1, fold=1)
    findings = data.findings()
    assert [f.kind for f in findings] == ["leakage", "leakage"], "image and label, named once each"
    assert findings[0].message.startswith("image 'images/000_fluorescence.tif' stands in fold 0 and fold 1")


@pytest.mark.parametrize(("section", "places"), [("training", "fold 0 and fold 1"), ("testing", "fold 0 and testing")])
def test_group_leakage(data, section, places):
    data.change(1, section, group=data.content["training"][0]["group"])
    assert data.findings() == [
        Finding(
            "error",
            "group-leakage",
            str(data.list),
            f"group '000_fluorescence' stands in {places}; move it to one place",
        )
    ]


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
    with pytest.raises(ConfigError, match="workers is 0"):
        data.findings(workers=0)
