"""Sheets: where panels, captions, outlines and boxes are, to the pixel."""

import imagecodecs
import numpy as np
import pytest

from cellbundle.errors import ArrayError, ConfigError
from cellbundle.io.overlay import OUTLINE_COLOURS
from cellbundle.report.sheets import draw_sheet, to_panel, write_picture

GAP, GROUP_GAP, TITLE, WIDTH = 8, 20, 30, 256
GREY = np.full((8, 8, 3), 100, np.uint8)
SQUARE = np.zeros((8, 8), np.int32)
SQUARE[2:6, 2:6] = 5


def plain(height, width, value):
    return np.full((height, width, 3), value, np.uint8)


def has_ink(region):
    return bool(region.min() < 100)


def test_panels_are_in_rows_from_left_to_right():
    panels = [("a", plain(40, 300, 1)), ("b", plain(60, 20, 2)), ("c", plain(50, 300, 3))]
    sheet = draw_sheet(panels, 2)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (GAP + (TITLE + 60 + GAP) + (TITLE + 50 + GAP), GAP + 2 * (300 + GAP), 3)
    top, second = GAP + TITLE, GAP + (TITLE + 60 + GAP) + TITLE
    left = GAP + 300 + GAP
    expected = np.full_like(sheet, 255)
    expected[top : top + 40, GAP : GAP + 300] = 1
    expected[top : top + 60, left : left + 20] = 2
    expected[second : second + 50, GAP : GAP + 300] = 3
    for start, stop in ((top, top + 60), (second, second + 50)):
        np.testing.assert_array_equal(sheet[start:stop], expected[start:stop])
    first = sheet[GAP:top]
    assert [has_ink(first[:, GAP : GAP + 300]), has_ink(first[:, left:])] == [True, True]
    last = sheet[second - TITLE : second]
    assert [has_ink(last[:, GAP : GAP + 300]), has_ink(last[:, left:])] == [True, False]


def test_small_panels_have_columns_with_room_for_captions():
    assert draw_sheet([("a", plain(5, 5, 0))] * 3, 3).shape == (GAP + TITLE + 5 + GAP, GAP + 3 * (WIDTH + GAP), 3)
    assert draw_sheet([("a", plain(5, 5, 0))] * 2, 3).shape == (GAP + TITLE + 5 + GAP, GAP + 2 * (WIDTH + GAP), 3)


def test_groups_have_a_wider_gap_between_them():
    sheet = draw_sheet([("", plain(9, WIDTH, 0))] * 4, 4, group=2)
    row = sheet[GAP + TITLE, :, 0]
    starts = np.flatnonzero(np.diff((row == 0).astype(int)) == 1) + 1
    assert starts.tolist() == [GAP, 2 * GAP + WIDTH, 3 * GAP + GROUP_GAP + 2 * WIDTH, 4 * GAP + GROUP_GAP + 3 * WIDTH]
    assert sheet.shape[1] == 5 * GAP + GROUP_GAP + 4 * WIDTH


def test_a_long_caption_stays_in_its_column_and_keeps_its_ends():
    picture = plain(5, WIDTH, 255)
    sheets = [
        draw_sheet([(caption, picture), ("", picture)], 2)
        for caption in ("slide 1" + "n" * 200 + " 77", "slide 1" + "n" * 300 + " 77", "slide 1" + "n" * 200 + " 78")
    ]
    assert not has_ink(sheets[0][:, GAP + WIDTH :])
    np.testing.assert_array_equal(sheets[0], sheets[1])
    assert (sheets[0] != sheets[2]).any()


def test_captions_of_any_file_name():
    spaced, odd, same = (draw_sheet([(name, GREY)], 1) for name in ("a ? b", "a\n\udcff\tb", "a b"))
    np.testing.assert_array_equal(spaced, odd)
    assert (same != odd).any()


def test_outlines_are_two_pixels_wide_at_any_magnification():
    panel = to_panel(GREY, SQUARE, side=32)
    expected = plain(32, 32, 100)
    expected[8:24, 8:24] = OUTLINE_COLOURS[5]
    expected[10:22, 10:22] = 100
    np.testing.assert_array_equal(panel, expected)
    reduced = to_panel(GREY.repeat(8, 0).repeat(8, 1), SQUARE.repeat(8, 0).repeat(8, 1), side=32)
    np.testing.assert_array_equal(reduced, expected)


def test_touching_instances_have_an_outline_each():
    labels = np.ones((8, 8), np.int64)
    labels[:, 4:] = 2
    panel = to_panel(GREY, labels, side=16)
    assert (panel[3, 6:8] == OUTLINE_COLOURS[1]).all()
    assert (panel[3, 8:10] == OUTLINE_COLOURS[2]).all()
    assert (panel[3, [2, 5, 10, 13]] == 100).all()


def test_boxes_are_half_open_and_half_transparent():
    panel = to_panel(GREY, boxes_xyxy=np.array([[1, 2, 4, 7], [5, 5, 5, 8]], np.float32), side=16)
    expected = plain(16, 16, 100)
    expected[4:14, 2:8] = 177  # half way to white
    expected[5:13, 3:7] = 100
    np.testing.assert_array_equal(panel, expected)


def test_boxes_outside_of_the_picture_are_cut():
    panel = to_panel(GREY, boxes_xyxy=[[-2, -2, 4, 4], [9, 9, 20, 20]], side=8)
    expected = plain(8, 8, 100)
    expected[:4, 3] = expected[3, :4] = 177
    np.testing.assert_array_equal(panel, expected)


def test_large_and_thin_pictures_keep_their_proportions():
    assert to_panel(plain(300, 1200, 0)).shape == (128, 512, 3)
    assert to_panel(plain(1, 5000, 7), np.ones((1, 5000), np.uint16)).shape == (1, 512, 3)
    assert to_panel(plain(3000, 1, 7), side=30).shape == (30, 1, 3)


def test_arguments_are_not_changed():
    picture, labels = GREY.copy(), SQUARE.copy()
    to_panel(picture, labels, [[0, 0, 4, 4]], side=8)
    np.testing.assert_array_equal(picture, GREY)
    np.testing.assert_array_equal(labels, SQUARE)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: draw_sheet([], 2), ArrayError, "no panel"),
        (lambda: draw_sheet([("a", GREY)], 0), ConfigError, "columns.* 0;"),
        (lambda: draw_sheet([("a", GREY / 255)], 1), ArrayError, r"\(H, W, 3\) uint8.*\(8, 8, 3\) float64"),
        (lambda: to_panel(GREY[..., 0]), ArrayError, r"\(8, 8\) uint8"),
        (lambda: to_panel(GREY[:0]), ArrayError, r"\(0, 8, 3\)"),
        (lambda: to_panel(GREY, np.zeros((8, 9), int)), ArrayError, r"labels.*\(8, 8\).*\(8, 9\)"),
        (lambda: to_panel(GREY, -SQUARE), ArrayError, "negative.* -5 "),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_file(tmp_path):
    sheet = draw_sheet([("a", GREY), ("b", to_panel(GREY, SQUARE, side=64))], 2)
    write_picture(tmp_path / "a.png", sheet)
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "a.png").read_bytes()), sheet)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
