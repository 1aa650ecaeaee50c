"""Checks of a data set: what stands in two places."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellbundle.datalists.validate import Finding
from cellbundle.io import read_image

from ..words import Like


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
    assert finding.message == Like(
        r"\(fold 0\).*images/002_fluorescence\.tif \(fold 2\), images/005_fluorescence\.tif \(testing\)"
    )


def test_grey_as_rgb_leaks_and_channels_differ(data):
    copy_image(data, 0, "testing", lambda path, p: tifffile.imwrite(path, np.stack([p] * 3, -1), photometric="rgb"))
    findings = data.findings()
    assert [(f.severity, f.kind) for f in findings] == [("error", "leakage"), ("warning", "channels")]
    assert findings[1].path == data.content["testing"][0]["image"]
    assert findings[1].message == Like(r"5 with 1 channels.*images/000_fluorescence\.tif.* 1 with 3 channels")


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
    assert findings[0].message == Like(r"image 'images/000_fluorescence\.tif' .*fold 0 and fold 1")


@pytest.mark.parametrize(("section", "places"), [("training", "fold 0 and fold 1"), ("testing", "fold 0 and testing")])
def test_group_leakage(data, section, places):
    data.change(1, section, group=data.content["training"][0]["group"])
    assert data.findings() == [
        Finding(
            "error",
            "group-leakage",
            str(data.list),
            Like(f"group '000_fluorescence' .*{places}"),
        )
    ]
