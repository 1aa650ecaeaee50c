"""Sheets: pictures with captions in a grid, as one picture."""

from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from ..errors import ArrayError, ConfigError
from ..instances.labels import check_labels
from ..io import atomic_path, draw_outlines
from ..io.overlay import PNG_OPTIONS

Picture = NDArray[np.uint8]  # (H, W, 3)
Panel = tuple[str, Picture]  # caption and picture
Colour = tuple[int, int, int]
Legend = list[tuple[Colour, str]]

MIN_WIDTH = 256  # pixels of a column at least, so that captions have room
MAX_SIDE = 512  # pixels of a panel of a sheet
GAP, GROUP_GAP, SWATCH = 8, 20, 14  # pixels
TEXT, SHEET_TEXT = 14, 20  # pixels: height of the letters
LEADING = 10  # pixels of a line of text beside its letters
OUTLINE = 2  # pixels
BACKGROUND, INK = (255, 255, 255), (20, 20, 20)
BOX, BOX_OPACITY = (255, 255, 255), 0.5


def to_panel(
    picture: Picture, labels: NDArray[np.integer] | None = None, boxes_xyxy: ArrayLike = (), side: int = MAX_SIDE
) -> Picture:
    """Bring a picture to the size of a panel and draw instances onto it.

    Outlines (two pixels) and boxes (one, half transparent) are drawn after the scaling.

    Args:
        picture: (H, W, 3) uint8.
        labels: (H, W) integers, 0 background; instances get outlines in the colours of ``draw_outlines``.
        boxes_xyxy: (N, 4) x0, y0, x1, y1 in pixels of the picture, half-open; those without an area are left out.
        side: pixels of the longer side of the result.

    Returns:
        (h, w, 3) uint8 with the proportions of the picture.

    Raises:
        ArrayError: if the picture is none, or labels or boxes do not belong to it.
    """
    _check_picture(picture)
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    panel = np.array(Image.blend(image, _with_boxes(image, boxes_xyxy, (width, height)), BOX_OPACITY))
    if labels is not None:
        check_labels(labels)
        if labels.shape != (height, width):
            raise ArrayError(f"expected labels of the shape {(height, width)} of the picture, got {labels.shape}")
        rows, columns = (_nearest(shown, given) for shown, given in zip(panel.shape, labels.shape, strict=False))
        shown = labels[np.ix_(rows, columns)]
        for _ in range(OUTLINE):
            outlines = draw_outlines(np.zeros((1, *shown.shape)), shown)
            drawn = outlines.any(axis=-1)  # the ground is black, and none of the colours is
            panel[drawn] = outlines[drawn]
            shown = np.where(drawn, 0, shown)
    return panel


def draw_sheet(panels: Sequence[Panel], columns: int, group: int | None = None) -> Picture:
    """Put panels into a grid, row by row, each below its caption.

    Args:
        panels: captions and (H, W, 3) uint8 pictures. Columns are as wide as the widest, rows as high as their highest;
            smaller ones are at the top left. A caption that is too long for its column loses its middle.
        columns: panels a row.
        group: so many columns belong together; a wider gap is between two such groups.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ArrayError: if there is no panel, or a picture is none.
        ConfigError: if there are no columns.
    """
    if columns < 1:
        raise ConfigError(f"columns is {columns}; give at least 1")
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    return compose(rows, text=SHEET_TEXT, group=group)


def compose(
    rows: Sequence[Sequence[Panel]], legends: Sequence[Legend] = (), *, text: int = TEXT, group: int | None = None
) -> Picture:
    """Put rows of panels below each other, and each legend behind the last panel of its row.

    Args:
        rows: as the panels of ``draw_sheet``; a row may be shorter than others.
        legends: colours and their meaning, one list for each row from the first one on.
        text: pixels, height of the letters.
        group: as for ``draw_sheet``.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ArrayError: if there is no panel, or a picture is none.
    """
    pictures = [picture for row in rows for _, picture in row]
    if not pictures:
        raise ArrayError("got no panel to draw, expected at least one")
    for picture in pictures:
        _check_picture(picture)
    width = max(MIN_WIDTH, *(picture.shape[1] for picture in pictures))
    columns, title = max(map(len, rows)), text + LEADING
    lefts = [GAP + x * (width + GAP) + (x // group * GROUP_GAP if group else 0) for x in range(columns + 1)]
    heights = [title + max(picture.shape[0] for _, picture in row) + GAP for row in rows]
    canvas = Image.new("RGB", (lefts[columns - 1] + width + GAP, GAP + sum(heights)), BACKGROUND)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(text)
    for y, row in enumerate(rows):
        top = GAP + sum(heights[:y])
        for left, (caption, picture) in zip(lefts, row, strict=False):
            draw.text((left, top), _fitting(caption, font, width), INK, font)
            canvas.paste(Image.fromarray(picture), (left, top + title))
        for line, (fill, meaning) in enumerate(legends[y] if y < len(legends) else ()):
            left, place = lefts[len(row)], top + title + line * (SWATCH + GAP)
            draw.rectangle((left, place, left + SWATCH, place + SWATCH), fill, INK)
            draw.text((left + SWATCH + GAP, place), meaning, INK, font)
    return np.asarray(canvas)


def write_picture(path: str | Path, picture: Picture) -> None:
    """Write a picture as a PNG file.

    Args:
        path: the file to write; its folder must exist.
        picture: (H, W, 3) uint8.

    Raises:
        OSError: if the file cannot be written.
    """
    data = imagecodecs.png_encode(picture, **PNG_OPTIONS)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _with_boxes(image: Image.Image, boxes_xyxy: ArrayLike, size: tuple[int, int]) -> Image.Image:
    """A copy of a scaled picture with boxes x0, y0, x1, y1, which are in pixels of one of this width and height."""
    image = image.copy()
    corners = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4) * np.tile(np.divide(image.size, size), 2)
    draw = ImageDraw.Draw(image)
    for x0, y0, x1, y1 in np.rint(corners).astype(int).tolist():
        if x1 > x0 and y1 > y0:
            draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=BOX)
    return image


def _nearest(shown: int, given: int) -> NDArray[np.int64]:
    """(shown,) index of the nearest of so many given pixels."""
    return ((np.arange(shown) + 0.5) * given / shown).astype(np.int64)


def _fitting(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The caption on one line, without as much of its middle as is needed for it to fit."""
    caption = " ".join(caption.encode("utf-8", "replace").decode().split())  # file names may hold anything
    shown, kept = caption, len(caption)
    while kept > 2 and font.getlength(shown) > width:
        kept -= 1
        shown = f"{caption[: -(-kept // 2)]}...{caption[-(kept // 2) :]}"
    return shown


def _check_picture(picture: Picture) -> None:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or picture.size == 0:
        raise ArrayError(f"expected a picture (H, W, 3) uint8 with pixels, got {picture.shape} {picture.dtype}")
