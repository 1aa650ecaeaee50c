"""YOLO segmentation labels: a line for each instance, its class and its outline in shares of width and height."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ArrayError, LabelReadError
from ...instances.painting import Painted, paint_contours, paint_rings
from ...instances.polygons import outlines
from ..images.errors import named
from ..write import atomic_path
from ._outline import one_outline

MIN_POINTS = 3
NUMBERS_OF_A_BOX = 5  # class, centre, width and height: the labels of detectors
TOLERANCE = 0.01  # outlines of some tools leave the image a little, by rounding; in shares of its side


def read_yolo(
    path: str | Path, shape: tuple[int, int], *, corners: Literal["centres", "edges"] = "centres"
) -> tuple[Painted, list[int]]:
    """Read and paint the outlines of one image; an empty file is an image without instances.

    The format does not say where in a pixel a corner is. By default outlines run through the centres of the outermost
    pixels, which belong to the instance: so OpenCV's ``findContours`` gives them, with which such files are usually
    made; corners between pixels are rounded.

    Args:
        path: a text file of lines ``class x1 y1 x2 y2 …``; blank lines do not count.
        shape: (H, W) of the image.
        corners: ``"edges"`` if outlines run along the edges of pixels, as those made from COCO or drawn by hand.

    Returns:
        The label map, with the ids 1, 2 … in the order of the lines, and what is lost in it; the class of each line.

    Raises:
        LabelReadError: if the file cannot be read or a line is no outline; the message names the line.

    Source: https://docs.ultralytics.com/datasets/segment/. In the YOLO files of NuInsSeg all coordinates are whole
    numbers of pixels, the last pixel occurs and its outer edge does not.
    """
    path = Path(path)
    with named(path, LabelReadError):
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        rows = [_read_line(line, number) for number, line in lines if line.strip()]
        outlined = [row[1:].reshape(-1, 2) * (shape[1], shape[0]) for row in rows]
        classes = [int(row[0]) for row in rows]
        if corners == "edges":
            return paint_rings([[outline] for outline in outlined], shape), classes
        return paint_contours(outlined, shape), classes


class Written(NamedTuple):
    """What ``write_yolo`` has written.

    Attributes:
        lines: instances; ids without pixels have no line.
        with_holes: those that have holes.
        in_parts: those that have several 4-connected parts.
    """

    lines: int
    with_holes: int
    in_parts: int


def write_yolo(path: str | Path, labels: NDArray[np.integer], classes: Sequence[int] | None = None) -> Written:
    """Write one outline for each instance, as ``read_yolo`` with ``corners="edges"`` and ultralytics read it.

    Outlines run along the edges of pixels, a tenth of a pixel within the instance. Whoever fills them by the centres of
    pixels, or rounds corners down and fills them with what is on the outline (OpenCV's ``fillPoly``, and so
    ultralytics), gets the pixels of the instance. Boxes around them have an area, even that of one pixel.

    A line holds one outline, so parts and holes are joined to one by a path there and back between their nearest
    points. Within an instance it changes nothing; between parts it may be filled, one pixel wide.

    Args:
        path: the file to write; its folder must exist.
        labels: (H, W) integers, ids 1..N, 0 background.
        classes: of each id, from 0; by default all are 0.

    Raises:
        ArrayError: if ``labels`` is not a map of non-negative integers, or classes are not one number for each id.
        OSError: if the file cannot be written.
    """
    outlined = outlines(labels)
    classes = [0] * len(outlined) if classes is None else classes
    if len(classes) != len(outlined) or min(classes, default=0) < 0:
        raise ArrayError(f"classes must be {len(outlined)} numbers from 0 up, one for each id, got {list(classes)}")
    size = np.array(labels.shape[::-1])
    lines = [_line(number, one_outline(parts) / size) for number, parts in zip(classes, outlined, strict=True) if parts]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    with_holes = sum(any(part.holes for part in parts) for parts in outlined)
    return Written(len(lines), with_holes, sum(len(parts) > 1 for parts in outlined))


def _line(number: int, corners: NDArray[np.float64]) -> str:
    return " ".join([str(int(number)), *(f"{value:.6f}" for value in corners.ravel().tolist())]) + "\n"


def _read_line(line: str, number: int) -> NDArray[np.float64]:
    """The numbers of a line, checked."""
    try:
        values = np.array(line.split(), np.float64)
    except ValueError as error:
        raise LabelReadError(f"line {number} is no YOLO label ({error}); expected class x1 y1 x2 y2 …") from error
    if len(values) == NUMBERS_OF_A_BOX:
        raise LabelReadError(f"line {number} is a box, not an outline; export the labels for segmentation")
    if len(values) < 1 + 2 * MIN_POINTS or len(values) % 2 == 0:
        raise LabelReadError(
            f"line {number} has {len(values)} numbers, expected a class and at least {MIN_POINTS} points x y"
        )
    if values[0] < 0 or not values[0].is_integer():
        raise LabelReadError(f"line {number} has the class {values[0]:g}, expected a whole number from 0 up")
    if not (np.abs(values[1:] - 0.5) <= 0.5 + TOLERANCE).all():
        raise LabelReadError(
            f"line {number} has coordinates from {values[1:].min():g} to {values[1:].max():g}, expected 0 to 1; "
            "divide x by the width and y by the height of the image"
        )
    return values
