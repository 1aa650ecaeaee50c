"""Checks of a data set: label maps that cannot be, and those that are odd."""

import numpy as np
import pytest
import tifffile

from cellbundle.io import write_labels

from ..words import Like
from .conftest import SIZE, blank


def save(path, array):
    tifffile.imwrite(path, array, photometric="minisblack")


@pytest.mark.parametrize(
    ("array", "kind", "message"),
    [
        (blank().astype(np.uint8) * 255, "binary-mask", "binary mask"),
        (blank().astype(np.float32) / 2, "label-dtype", "whole numbers"),
        (-blank(), "unreadable-label", "negative"),
        (
            blank()[:-1],
            "size-mismatch",
            rf"47x40.*images/000_fluorescence\.tif.*{SIZE[0]}x{SIZE[1]}",
        ),
    ],
)
def test_label_errors(data, array, kind, message):
    save(data.path("label"), array)
    (finding,) = data.findings()
    assert (finding.severity, finding.kind, finding.path) == ("error", kind, data.content["training"][0]["label"])
    assert finding.message == Like(message)
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
