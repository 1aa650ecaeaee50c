"""Draw the curves of a training, with Pillow only."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..io.write import atomic_path

SIZE = 640, 400  # pixels of a panel
LEFT, TOP, RIGHT, BOTTOM = 64, 16, 12, 30  # pixels around the axes
TEXT, LEGEND_ROW = 13, 17  # pixels: size of the font, height of a line of the legend
INK, FRAME = (20, 20, 20), (190, 190, 190)
COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))
NOT_DRAWN = ("phase", "epoch", "seconds", "learning_rate")  # prefixes of columns that are neither losses nor scores

Curve = list[tuple[float, float]]


def write_curves(rows: Sequence[Mapping[str, float]], path: str | Path) -> None:
    """Draw losses on the left and validation scores on the right, over the epochs.

    Args:
        rows: rows of a history; the epochs of several phases follow each other.
        path: PNG file.

    Raises:
        OSError: if the file cannot be written.
    """
    curves = _history_curves(rows)
    panels = [{k: v for k, v in curves.items() if k.startswith("val_") == right} for right in (False, True)]
    figure = Image.new("RGB", (2 * SIZE[0], SIZE[1]), "white")
    for index, panel in enumerate(panels):
        figure.paste(_draw(panel), (index * SIZE[0], 0))
    with atomic_path(path) as temporary:
        figure.save(temporary)


def _history_curves(rows: Sequence[Mapping[str, float]]) -> dict[str, Curve]:
    """Return the finite values of each loss and score, as (epoch, value) by name."""
    curves: dict[str, Curve] = {}
    for epoch, row in enumerate(rows, start=1):
        for name, value in row.items():
            if not name.startswith(NOT_DRAWN) and math.isfinite(value):
                curves.setdefault(name, []).append((epoch, float(value)))
    return curves


def _draw(curves: Mapping[str, Curve]) -> Image.Image:
    """Draw a panel: frame, range of both axes, curves, legend."""
    image = Image.new("RGB", SIZE, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(TEXT)
    box = LEFT, TOP, SIZE[0] - RIGHT, SIZE[1] - BOTTOM
    draw.rectangle(box, outline=FRAME)
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return image
    (first, last), (lowest, highest) = (_range([point[axis] for point in points]) for axis in (0, 1))
    labels = (
        (highest, (box[0] - 6, box[1]), "ra"),
        (lowest, (box[0] - 6, box[3]), "rd"),
        (first, (box[0], box[3] + 6), "la"),
        (last, (box[2], box[3] + 6), "ra"),
    )
    for value, position, anchor in labels:
        draw.text(position, f"{value:.3g}", INK, font, anchor=anchor)
    draw.text(((box[0] + box[2]) / 2, box[3] + 6), "epoch", INK, font, anchor="ma")
    for index, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        line = [
            (
                box[0] + (x - first) / (last - first) * (box[2] - box[0]),
                box[3] - (y - lowest) / (highest - lowest) * (box[3] - box[1]),
            )
            for x, y in curve
        ]
        draw.line(line, colour, 2)
        if len(line) == 1:
            draw.circle(line[0], 3, colour)
        draw.text((box[2] - 6, box[1] + 6 + index * LEGEND_ROW), name, colour, font, anchor="ra")
    return image


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest value; a range of width 1 around equal values."""
    lowest, highest = min(values), max(values)
    return (lowest, highest) if highest > lowest else (lowest - 0.5, highest + 0.5)
