"""Colour-coded masks: what is found in them, class and label maps, and masks that were blurred."""

import numpy as np
import pytest
from PIL import Image

from cellbundle.errors import ConfigError, LabelReadError
from cellbundle.io.formats.colour_masks import colour_classes, find_colours, read_colour_mask

WHITE, RED, GREEN = (255, 255, 255), (255, 0, 0), (0, 255, 0)
TABLE = {"255,255,255": "background", "#FF0000": "red", "0, 255, 0": "green"}


def picture(background=WHITE):
    """(12, 20): two red squares that touch at a corner, a red one and a green one that touches it."""
    pixels = np.full((12, 20, 3), background, np.uint8)
    pixels[1:4, 1:4] = pixels[4:7, 4:7] = pixels[1:5, 12:15] = RED
    pixels[1:5, 15:18] = GREEN
    return pixels


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def discs(tmp_path, name, **options):
    """Red and green discs on white, large enough for JPEG to blur."""
    y, x = np.mgrid[:80, :160]
    pixels = np.full((80, 160, 3), 255, np.uint8)
    pixels[(y - 40) ** 2 + (x - 40) ** 2 < 700] = RED
    pixels[(y - 40) ** 2 + (x - 110) ** 2 < 900] = GREEN
    return save(tmp_path / name, pixels, **options)


def test_class_and_label_maps(tmp_path):
    classes, labels = read_colour_mask(save(tmp_path / "a.png", picture()), TABLE)
    assert (classes.dtype, labels.dtype) == (np.uint8, np.int32)
    expected = np.zeros((2, 12, 20), int)
    expected[:, 1:4, 1:4] = expected[:, 4:7, 4:7] = 1
    expected[:, 1:5, 12:15] = [[[1]], [[2]]]
    expected[:, 1:5, 15:18] = [[[2]], [[3]]]
    np.testing.assert_array_equal(classes, expected[0])
    np.testing.assert_array_equal(labels, expected[1])
    assert colour_classes(TABLE) == ["red", "green"]


def test_several_colours_of_one_class_are_one_cell(tmp_path):
    path = save(tmp_path / "a.png", picture())
    classes, labels = read_colour_mask(path, {"255,255,255": None, "255,0,0": "cell", "0,255,0": "cell"})
    assert classes.max() == 1
    assert labels.max() == 2


def test_black_is_background_unless_the_table_says_otherwise(tmp_path):
    path = save(tmp_path / "a.png", picture((0, 0, 0)))
    table = {"255,0,0": "red", "0,255,0": "green"}
    classes, _ = read_colour_mask(path, table)
    assert classes[0, 0] == 0
    classes, labels = read_colour_mask(path, table | {"#000000": "black"})
    assert (classes[0, 0], labels[0, 0]) == (3, 4)


@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.bmp", {}), ("a.tif", {"compression": "tiff_lzw"})])
def test_formats(tmp_path, name, options):
    path = save(tmp_path / name, picture(), **options)
    assert find_colours(path).pixels == {"255,255,255": 198, "255,0,0": 30, "0,255,0": 12}
    assert read_colour_mask(path, TABLE)[1].max() == 3


def test_palette_transparency_and_grey(tmp_path):
    palette = Image.fromarray(picture()).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "p.png")
    assert find_colours(tmp_path / "p.png").pixels["255,0,0"] == 30
    opaque = np.dstack([picture(), np.full((12, 20), 9, np.uint8)])
    assert find_colours(save(tmp_path / "t.png", opaque)).pixels["0,255,0"] == 12
    grey = picture()[..., 1]
    classes, _ = read_colour_mask(save(tmp_path / "g.png", grey), {"255,255,255": "bright"})
    assert classes.tolist() == (grey == 255).astype(int).tolist()


def test_proposal_takes_the_most_frequent_colour_or_black_for_background(tmp_path):
    white = find_colours(save(tmp_path / "w.png", picture()))
    assert white.proposal == {"255,255,255": "background", "255,0,0": "class 1", "0,255,0": "class 2"}
    assert list(white.pixels) == ["255,255,255", "255,0,0", "0,255,0"]
    pixels = picture()
    pixels[9:12] = 0
    black = find_colours(save(tmp_path / "b.png", pixels))
    assert black.proposal["0,0,0"] == "background"
    assert black.proposal["255,255,255"] == "class 1"


def test_a_proposal_is_a_table(tmp_path):
    path = save(tmp_path / "a.png", picture())
    found = find_colours(path)
    for mine, given in zip(read_colour_mask(path, found.proposal), read_colour_mask(path, TABLE), strict=True):
        np.testing.assert_array_equal(mine, given)


def test_several_masks_are_counted_together(tmp_path):
    other = np.full((4, 4, 3), GREEN, np.uint8)
    paths = [save(tmp_path / "a.png", picture()), save(tmp_path / "b.png", other)]
    found = find_colours(paths)
    assert found.pixels == {"255,255,255": 198, "255,0,0": 30, "0,255,0": 28}
    assert str(found).splitlines() == [
        "3 colours in 256 pixels",
        "255,255,255           198 pixels  77.344%  background",
        "255,0,0                30 pixels  11.719%  class 1",
        "0,255,0                28 pixels  10.938%  class 2",
    ]


def test_jpeg_is_refused_under_any_name(tmp_path):
    path = discs(tmp_path, "a.jpg")
    renamed = path.rename(tmp_path / "a.png")
    for call in (lambda: find_colours(renamed), lambda: read_colour_mask(renamed, TABLE)):
        with pytest.raises(LabelReadError, match=r"a\.png.*JPEG.*PNG or TIFF"):
            call()


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_a_jpeg_saved_as_png_is_refused(tmp_path, quality):
    with Image.open(discs(tmp_path, "a.jpg", quality=quality)) as image:
        image.save(tmp_path / "b.png")
    for call in (lambda: find_colours(tmp_path / "b.png"), lambda: read_colour_mask(tmp_path / "b.png", TABLE)):
        with pytest.raises(LabelReadError, match=r"b\.png.*3x3 pixels.*JPEG"):
            call()


def test_a_resized_mask_is_refused(tmp_path):
    with Image.open(discs(tmp_path, "a.png")) as image:
        image.resize((100, 50), Image.Resampling.BILINEAR).save(tmp_path / "b.png")
        image.resize((100, 50), Image.Resampling.NEAREST).save(tmp_path / "c.png")
    with pytest.raises(LabelReadError, match=r"b\.png.*3x3 pixels.*resizing"):
        find_colours(tmp_path / "b.png")
    assert len(find_colours(tmp_path / "c.png").pixels) == 3


def test_thin_classes_are_not_taken_for_blur(tmp_path):
    pixels = picture()
    pixels[11, :6, 0] = np.arange(6)
    assert len(find_colours(save(tmp_path / "a.png", pixels)).pixels) == 9


def test_unknown_colours_are_named(tmp_path):
    path = save(tmp_path / "a.png", picture())
    with pytest.raises(LabelReadError, match=r"a\.png.* 2 .*255,255,255 \(198 pixels\).*0,255,0 \(12 pixels\)"):
        read_colour_mask(path, {"255,0,0": "red"})


def test_a_colour_for_each_instance_is_refused(tmp_path):
    pixels = np.zeros((4 * 17, 4 * 17, 3), np.uint8)
    pixels[..., 0] = np.arange(289).reshape(17, 17).repeat(4, 0).repeat(4, 1) % 200
    pixels[..., 1] = np.arange(289).reshape(17, 17).repeat(4, 0).repeat(4, 1) // 200
    with pytest.raises(LabelReadError, match=r"289 colours.* 255"):
        find_colours(save(tmp_path / "a.png", pixels))


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.uint16), np.zeros((4, 4), bool)])
def test_other_depths_are_refused(tmp_path, pixels):
    with pytest.raises(LabelReadError, match=r"1 channels.*(uint16|bool).*uint8"):
        find_colours(save(tmp_path / "a.png", pixels))


def test_files_that_are_no_masks(tmp_path):
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(LabelReadError, match=r"a\.png.*not a PNG"):
        find_colours(tmp_path / "a.png")
    with pytest.raises(LabelReadError, match="got no mask"):
        find_colours([])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "table of colours.*{}.*such as"),
        ("red", "table of colours.*'red'.*such as"),
        ({"255,0": "a"}, "'255,0'.*#ff0000"),
        ({"256,0,0": "a"}, "'256,0,0'.*#ff0000"),
        ({(255, 0, 0): "a"}, r"\(255, 0, 0\).*#ff0000"),
        ({"#ff00": "a"}, "'#ff00'.*#ff0000"),
        ({"255,0,0": 1}, r"class.*'255,0,0'.* 1;.*name"),
        ({"255,0,0": "a", "#ff0000": "b"}, "'#ff0000'.*twice"),
        ({"255,0,0": None}, " 0 classes.* 1 to 255"),
        ({f"{i % 256},{i // 256},9": f"c{i}" for i in range(256)}, " 256 classes.* 1 to 255"),
    ],
)
def test_bad_tables(tmp_path, table, message):
    with pytest.raises(ConfigError, match=message):
        read_colour_mask(tmp_path / "none.png", table)
