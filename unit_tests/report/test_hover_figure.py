"""The figure of a HoVer prediction: exact colours of errors and maps, rows and titles, the file."""

import imagecodecs
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from cellbundle.errors import ArrayError
from cellbundle.io import draw_outlines
from cellbundle.io.overlay import OKABE_ITO
from cellbundle.report.hover_figure import (
    BLUE,
    BOTH,
    DIVERGING,
    GREEN,
    HEAT,
    RED,
    colour,
    draw_hover_figure,
    error_map,
    write_hover_figure,
)
from cellbundle.transforms.figures import SaveHoverFigured

SIDE, TITLE, GAP = 256, 24, 8
BLACK = (0, 0, 0)
IMAGE = np.random.default_rng(0).random((3, 64, 64), np.float32)
TRUE, PRED = np.zeros((2, 64, 64), np.int32)
TRUE[8:24, 8:24] = 300
PRED[8:24, 10:26] = 2
MAPS = np.zeros((3, 64, 64), np.float32)
MAPS[0, :, 32:], MAPS[1, :, :32], MAPS[1, :, 32:] = 1, -1, 1
CLASSES = np.where(TRUE > 0, 2, 0)


def panel(figure, row, column):
    """A panel of 64 x 64 pixels, brought back to its own size."""
    top, left = GAP + TITLE + row * (TITLE + SIDE + GAP), GAP + column * (SIDE + GAP)
    return figure[top : top + SIDE : 4, left : left + SIDE : 4]


def row_of_colours(true, pred):
    return [tuple(pixel) for pixel in error_map(np.array([true]), np.array([pred]))[0].tolist()]


def test_errors_of_a_shifted_cell():
    assert row_of_colours([0, 5, 5, 5, 0, 0], [0, 0, 9, 9, 9, 0]) == [BLACK, BLUE, GREEN, GREEN, RED, BLACK]


def test_errors_of_missed_and_extra_cells():
    assert row_of_colours([7, 7, 0, 0, 3], [0, 0, 0, 4, 3]) == [BLUE, BLUE, BLACK, RED, GREEN]
    assert row_of_colours([1, 1], [0, 0]) == [BLUE, BLUE]
    assert row_of_colours([0, 0], [0, 0]) == [BLACK, BLACK]


def test_merged_cells_are_no_match():
    # Both are cell in both maps, but no pair reaches an IoU of 0.5.
    assert row_of_colours([1, 1, 2, 2, 3, 3], [4, 4, 4, 4, 4, 4]) == [BOTH] * 6


def test_a_match_is_green_only_with_its_own_partner():
    assert row_of_colours([1, 1, 1, 2, 0], [8, 8, 8, 8, 0]) == [GREEN, GREEN, GREEN, BOTH, BLACK]
    assert row_of_colours([1, 1, 1, 1, 0], [8, 8, 8, 9, 9]) == [GREEN, GREEN, GREEN, BOTH, RED]


def test_colour_scales():
    values = np.array([[-2, -1, 0, 1, 2, np.nan, 0.25]])
    assert colour(values, DIVERGING, -1, 1)[0, :6].tolist() == [list(DIVERGING[i]) for i in (0, 0, 2, 4, 4, 0)]
    assert colour(values, DIVERGING, -1, 1)[0, 6].tolist() == [246, 206, 188]  # half way from white
    assert colour(values, HEAT, 0, 1)[0].tolist() == [list(HEAT[i]) for i in (0, 0, 0, 4, 4, 0, 1)]


def test_panels():
    figure = draw_hover_figure(IMAGE, TRUE, PRED, MAPS)
    assert figure.shape == (GAP + 2 * (TITLE + SIDE + GAP), GAP + 4 * (SIDE + GAP), 3)
    assert figure.dtype == np.uint8
    nothing = np.zeros_like(TRUE)
    for place, expected in {
        (0, 0): draw_outlines(IMAGE, nothing),
        (0, 1): draw_outlines(IMAGE, TRUE),
        (0, 2): draw_outlines(IMAGE, PRED),
        (0, 3): error_map(TRUE, PRED),
        (1, 0): colour(MAPS[0], HEAT, 0, 1),
        (1, 1): colour(MAPS[1], DIVERGING, -1, 1),
        (1, 2): colour(MAPS[2], DIVERGING, -1, 1),
    }.items():
        np.testing.assert_array_equal(panel(figure, *place), expected, err_msg=str(place))


def test_titles_and_legend_are_there():
    figure = draw_hover_figure(IMAGE, TRUE, PRED, MAPS)
    for column in range(4):
        left = GAP + column * (SIDE + GAP)
        assert figure[GAP : GAP + TITLE, left : left + SIDE].min() < 100
    legend = panel(figure, 1, 3).reshape(-1, 3)
    assert all((legend == np.array(entry)).all(axis=1).any() for entry in (GREEN, RED, BLUE, BOTH))


def test_classes_add_a_row():
    maps = np.concatenate([MAPS, np.full((2, 64, 64), [[[0.2]], [[0.75]]])])
    options = {"true_classes": CLASSES, "pred_classes": CLASSES * 0 + 1, "class_names": ["a", "b"]}
    figure = draw_hover_figure(IMAGE, TRUE, PRED, maps, **options)
    assert figure.shape[0] == GAP + 3 * (TITLE + SIDE + GAP)
    true, pred, best = (panel(figure, 2, column) for column in range(3))
    assert (true[TRUE > 0] == OKABE_ITO[1]).all()
    assert not true[TRUE == 0].any()
    assert (pred == OKABE_ITO[0]).all()
    assert (best == HEAT[3]).all()
    legend = panel(figure, 2, 3).reshape(-1, 3)
    assert [bool((legend == OKABE_ITO[i]).all(axis=1).any()) for i in range(3)] == [True, True, False]


def test_classes_of_the_prediction_alone():
    figure = draw_hover_figure(IMAGE, TRUE, PRED, MAPS, pred_classes=CLASSES)
    assert (panel(figure, 2, 0)[TRUE > 0] == OKABE_ITO[1]).all()


def test_large_images_are_reduced():
    labels = np.zeros((40, 2100), np.int32)
    figure = draw_hover_figure(np.zeros((1, 40, 2100)), labels, labels, np.zeros((3, 40, 2100), np.float32))
    assert figure.shape == (GAP + 2 * (TITLE + 14 + GAP), GAP + 4 * (700 + GAP), 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": MAPS[:2]}, r"maps \(2, 64, 64\)"),
        ({"maps": MAPS.astype(int)}, "maps.*floating point.*int64"),
        ({"maps": MAPS[:, :5]}, r"maps \(3, 5, 64\)"),
        ({"image": IMAGE[:, :, :5]}, r"image \(64, 5\)"),
        ({"pred": PRED[:5]}, r"pred \(5, 64\)"),
        ({"true_classes": CLASSES[:5]}, r"true_classes \(5, 64\)"),
        ({"true_classes": CLASSES - 1}, "true_classes.*negative.* -1 "),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ArrayError, match=message):
        draw_hover_figure(**{"image": IMAGE, "true": TRUE, "pred": PRED, "maps": MAPS} | change)


def test_file(tmp_path):
    write_hover_figure(tmp_path / "a.png", IMAGE, TRUE, PRED, MAPS, pred_classes=CLASSES)
    written = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(written, draw_hover_figure(IMAGE, TRUE, PRED, MAPS, pred_classes=CLASSES))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_transform(tmp_path):
    image = MetaTensor(torch.from_numpy(IMAGE), meta={"filename_or_obj": "/x/b.c.png"})
    probabilities = np.full((3, 64, 64), [[[0.7]], [[0.2]], [[0.1]]], np.float32)  # background, a, b
    item = {"image": image, "label": torch.from_numpy(TRUE[None]), "pred": torch.from_numpy(PRED[None])}
    item |= {"maps": torch.from_numpy(np.concatenate([MAPS, probabilities]))}
    item |= {"class_label": torch.from_numpy(CLASSES[None])}
    result = SaveHoverFigured(output_dir=tmp_path / "new" / "figures", class_names=["a", "b"])(item)
    assert result.keys() == item.keys()
    written = imagecodecs.png_decode((tmp_path / "new" / "figures" / "b.c.png").read_bytes())
    maps = np.concatenate([MAPS, probabilities[1:]])
    expected = draw_hover_figure(IMAGE, TRUE, PRED, maps, true_classes=CLASSES, class_names=["a", "b"])
    np.testing.assert_array_equal(written, expected)


def test_transform_without_classes(tmp_path):
    image = MetaTensor(torch.from_numpy(IMAGE), meta={"filename_or_obj": "a.png"})
    item = {"image": image, "label": torch.from_numpy(TRUE[None]), "pred": torch.from_numpy(PRED[None])}
    SaveHoverFigured(output_dir=tmp_path)(item | {"maps": torch.from_numpy(MAPS)})
    written = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(written, draw_hover_figure(IMAGE, TRUE, PRED, MAPS))


def test_transform_without_labels(tmp_path):
    SaveHoverFigured(output_dir=tmp_path / "new")({"pred": torch.zeros(1, 4, 4)})
    assert list(tmp_path.iterdir()) == []
