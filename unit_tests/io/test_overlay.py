"""Outlines: each instance has one, in a colour of its own, however many there are."""

import imagecodecs
import numpy as np
import pytest

from cellbundle.errors import ArrayError
from cellbundle.io import draw_outlines, write_overlay
from cellbundle.io.overlay import OUTLINE_COLOURS

BLACK = np.zeros((1, 6, 8), np.float32)


def squares(rows, columns, size=3):
    """(rows * size, columns * size) touching squares with ids 1..N."""
    ids = 1 + np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    return ids.repeat(size, 0).repeat(size, 1)


def outlined(labels):
    return draw_outlines(np.zeros((1, *labels.shape)), labels).any(axis=-1)


def test_outline_is_the_inner_boundary():
    labels = np.zeros((6, 8), np.int32)
    labels[1:5, 2:6] = 5
    expected = labels > 0
    expected[2:4, 3:5] = False
    picture = draw_outlines(BLACK, labels)
    assert picture.shape == (6, 8, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture.any(axis=-1), expected)
    assert (picture[expected] == OUTLINE_COLOURS[5]).all()


def test_touching_cells_have_an_outline_each():
    labels = squares(1, 2, size=4)
    picture = draw_outlines(np.zeros((1, *labels.shape)), labels)
    assert (picture[:, 3] == OUTLINE_COLOURS[1]).all()
    assert (picture[:, 4] == OUTLINE_COLOURS[2]).all()


def test_an_instance_that_fills_the_image_is_outlined_at_the_edge():
    expected = np.ones((4, 5), bool)
    expected[1:-1, 1:-1] = False
    np.testing.assert_array_equal(outlined(np.ones((4, 5), np.int32)), expected)


@pytest.mark.parametrize(("rows", "columns"), [(18, 18), (256, 280)])
@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_every_instance_is_drawn(rows, columns, dtype):
    labels = squares(rows, columns).astype(dtype)  # 324 and 71,680 instances
    assert len(np.unique(labels[outlined(labels)])) == rows * columns


def test_ids_that_follow_each_other_differ_in_colour():
    assert len(np.unique(OUTLINE_COLOURS, axis=0)) == len(OUTLINE_COLOURS)
    steps = np.abs(np.diff(OUTLINE_COLOURS.astype(int), axis=0, append=OUTLINE_COLOURS[:1]))
    assert steps.max(axis=1).min() > 50


def test_one_pixel_and_no_instance():
    assert outlined(np.ones((1, 1), np.int32)).all()
    assert not outlined(np.zeros((3, 4), np.int32)).any()


@pytest.mark.parametrize("scale", [1e-6, 1, 60_000])
def test_contrast_does_not_depend_on_the_range(scale):
    ramp = np.linspace(-1, 1, 4000).reshape(1, 40, 100)
    ramp[0, 0, 0] = 1000  # an outlier, such as a hot pixel
    picture = draw_outlines(ramp * scale, np.zeros((40, 100), int))
    assert (picture[..., 0] == picture[..., 2]).all()
    assert picture[0, 1, 0] == 0
    assert picture[-1, -1, 0] == 255
    assert abs(int(picture[20, 0, 0]) - 128) <= 2


def test_sparse_and_constant_images_are_shown():
    sparse = np.zeros((1, 100, 100))
    sparse[0, 50, 50] = 3
    assert draw_outlines(sparse, np.zeros((100, 100), int))[50, 50].tolist() == [255, 255, 255]
    assert not draw_outlines(sparse + 7 - sparse, np.zeros((100, 100), int)).any()


def test_channels():
    image = np.zeros((5, 4, 4))
    image[np.arange(5), 0, np.array([0, 1, 2, 3, 3])] = 10
    empty = np.zeros((4, 4), int)
    assert draw_outlines(image[:2], empty)[0, :2].tolist() == [[0, 255, 0], [255, 0, 255]]
    assert draw_outlines(image[:3], empty)[0, :3].tolist() == np.diag([255] * 3).tolist()
    np.testing.assert_array_equal(draw_outlines(image, empty), draw_outlines(image[:3], empty))
    weak = image[:3] * np.array([1, 1, 0.5])[:, None, None]  # one contrast keeps the hue of a colour picture
    assert 120 <= draw_outlines(weak, empty)[0, 2, 2] <= 130


@pytest.mark.parametrize(
    ("image", "labels", "message"),
    [
        (np.zeros((4, 5)), np.zeros((4, 5), int), r"image \(C, H, W\)"),
        (np.zeros((1, 4, 5)), np.zeros((5, 4), int), r"\(C, H, W\).*\(1, 4, 5\) and \(5, 4\)"),
        (np.zeros((0, 4, 5)), np.zeros((4, 5), int), r"\(C, H, W\).*\(0, 4, 5\)"),
        (np.zeros((1, 4, 5)), np.zeros((4, 5)), "integer"),
    ],
)
def test_refusals(image, labels, message):
    with pytest.raises(ArrayError, match=message):
        draw_outlines(image, labels)


def test_overlay_file_is_the_picture(tmp_path):
    labels = squares(7, 9)
    image = np.random.default_rng(0).random((3, *labels.shape))
    write_overlay(tmp_path / "a.png", image, labels)
    written = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(written, draw_outlines(image, labels))
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]
