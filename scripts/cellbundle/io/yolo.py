"""YOLO segmentation labels: a line for each instance, its class and its outline in shares of width and height."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ArrayError, LabelReadError
from ..painting import Painted, paint_contours, paint_rings
from ..polygons import contours, outlines
from ._named import named
from .write import atomic_path

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


def write_yolo(path: str | Path, labels: NDArray[np.integer], classes: Sequence[int] | None = None) -> int:
    """Write the outlines of all instances, as ``read_yolo`` reads them.

    A line holds one outline. Of an instance in several 4-connected parts it is that of the largest, and holes are
    filled; what comes back is the same for all other instances. Outlines of one or two pixels repeat the last one, as
    a line is read as an outline from three points on. Ids without pixels have no line.

    Args:
        path: the file to write; its folder must exist.
        labels: (H, W) integers, ids 1..N, 0 background.
        classes: of each id, from 0; by default all are 0.

    Returns:
        The number of instances that lose holes or parts.

    Raises:
        ArrayError: if ``labels`` is not a map of non-negative integers, or classes are not one number for each id.
        OSError: if the file cannot be written.
    """
    outlined = contours(labels)
    classes = [0] * len(outlined) if classes is None else classes
    if len(classes) != len(outlined) or min(classes, default=0) < 0:
        raise ArrayError(f"classes must be {len(outlined)} numbers from 0 up, one for each id, got {list(classes)}")
    size = np.array(labels.shape[::-1])
    lines = [_line(number, parts[0] / size) for number, parts in zip(classes, outlined, strict=True) if parts]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return sum(len(parts) > 1 or any(part.holes for part in parts) for parts in outlines(labels))


def _line(number: int, corners: NDArray[np.float64]) -> str:
    shown = np.minimum(np.arange(max(len(corners), MIN_POINTS)), len(corners) - 1)
    return " ".join([str(int(number)), *(f"{value:.6f}" for value in corners[shown].ravel().tolist())]) + "\n"


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
