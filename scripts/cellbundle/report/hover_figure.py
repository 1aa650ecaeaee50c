"""One picture an image of what a HoVer network sees: instances and errors, its maps, and classes if there are any."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ArrayError
from ..instances.labels import check_labels
from ..io import draw_outlines
from ..io.overlay import OKABE_ITO, to_picture
from ..metrics import match, overlap_table
from .sheets import Colour, Legend, Panel, Picture, compose, write_picture

GREEN, RED, BLUE = (0, 170, 0), (220, 0, 0), (0, 0, 220)
BOTH = (220, 0, 220)
HEAT = ((0, 0, 0), (110, 20, 110), (220, 60, 50), (250, 170, 40), (255, 255, 200))  # 0..1
DIVERGING = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))  # -1..1, 0 is white
N_MAPS = 3  # probability, horizontal and vertical distance; classes follow
MIN_SIDE, MAX_SIDE = 256, 1024  # pixels of a panel: small images are enlarged, large ones reduced
ERRORS = ((GREEN, "matched"), (RED, "false positive"), (BLUE, "missed"), (BOTH, "both: unmatched overlap"))


def draw_hover_figure(
    image: NDArray,
    true: NDArray[np.integer],
    pred: NDArray[np.integer],
    maps: NDArray[np.floating],
    *,
    true_classes: NDArray[np.integer] | None = None,
    pred_classes: NDArray[np.integer] | None = None,
    class_names: Sequence[str] = (),
) -> Picture:
    """Draw the figure: image, outlines, errors; probability and distances; class maps.

    Args:
        image: (C, H, W) finite, any range, shown as by ``draw_outlines``.
        true: (H, W) integers, 0 background.
        pred: the same for the prediction.
        maps: (3 + K, H, W) float: probability of a nucleus in 0..1, horizontal and vertical distance in -1..1,
            probabilities of K >= 0 classes. What is beyond these ranges, or not a number, is shown as their ends.
        true_classes: (H, W) integers, 0 background; None where unknown.
        pred_classes: the same for the prediction.
        class_names: of the classes 1.., for the legend; others are numbered.

    Returns:
        (height, width, 3) uint8; the third row is there if one of the class maps is.

    Raises:
        ArrayError: if shapes or types do not fit.
    """
    _check(true, image=image, maps=maps, pred=pred, true_classes=true_classes, pred_classes=pred_classes)
    rows: list[list[Panel]] = [
        [
            ("image", to_picture(image)),
            ("ground truth", draw_outlines(image, true)),
            ("prediction", draw_outlines(image, pred)),
            ("errors", error_map(true, pred)),
        ],
        [
            ("nucleus probability, 0 to 1", colour(maps[0], HEAT, 0, 1)),
            ("horizontal distance, -1 to 1", colour(maps[1], DIVERGING, -1, 1)),
            ("vertical distance, -1 to 1", colour(maps[2], DIVERGING, -1, 1)),
        ],
    ]
    legends: list[Legend] = [[], list(ERRORS)]
    given = [("true classes", true_classes), ("predicted classes", pred_classes)]
    classes = [(title, values) for title, values in given if values is not None]
    if classes:
        rows.append([(title, _class_colours(values)) for title, values in classes])
        if len(maps) > N_MAPS:
            best = maps[N_MAPS:].max(axis=0)
            rows[2].append(("best class probability, 0 to 1", colour(best, HEAT, 0, 1)))
        legends.append(_class_legend([values for _, values in classes], class_names))
    return compose([[(title, _scale(picture)) for title, picture in row] for row in rows], legends)


def write_hover_figure(
    path: str | Path,
    image: NDArray,
    true: NDArray[np.integer],
    pred: NDArray[np.integer],
    maps: NDArray[np.floating],
    **options: Any,
) -> None:
    """Write ``draw_hover_figure`` as a PNG file.

    Args:
        path: the file to write; its folder must exist.
        image: as for ``draw_hover_figure``.
        true: as for ``draw_hover_figure``.
        pred: as for ``draw_hover_figure``.
        maps: as for ``draw_hover_figure``.
        **options: as for ``draw_hover_figure``.

    Raises:
        ArrayError: as ``draw_hover_figure``.
        OSError: if the file cannot be written.
    """
    write_picture(path, draw_hover_figure(image, true, pred, maps, **options))


def error_map(true: NDArray[np.integer], pred: NDArray[np.integer]) -> Picture:
    """What is right and wrong in every pixel, as the matching at IoU >= 0.5 sees it.

    Args:
        true: (H, W) integers, 0 background.
        pred: the same for the prediction.

    Returns:
        (H, W, 3) uint8: green where a true instance and its match share a pixel; elsewhere red in predicted and blue in
        true instances, both at once (magenta) where two that do not match overlap, as in nuclei that are merged; black
        outside of all.
    """
    overlap = overlap_table(true, pred)
    matches = match(overlap, 0.5)
    partner = np.zeros(overlap.true_ids.size + 1, np.int64)
    partner[matches.true_index + 1] = matches.pred_index + 1
    true_number, pred_number = (
        np.where(labels > 0, np.searchsorted(ids, labels) + 1, 0)
        for labels, ids in ((true, overlap.true_ids), (pred, overlap.pred_ids))
    )
    picture = np.zeros((*true.shape, 3), np.uint8)
    picture[pred > 0] += np.array(RED, np.uint8)
    picture[true > 0] += np.array(BLUE, np.uint8)
    picture[(true > 0) & (pred > 0) & (partner[true_number] == pred_number)] = GREEN
    return picture


def colour(values: NDArray[np.floating], scale: Sequence[Colour], low: float, high: float) -> Picture:
    """Colour a map.

    Args:
        values: (H, W) float; NaN counts as ``low``.
        scale: colours at equal distances from ``low`` to ``high``, linear between them.
        low: value of the first colour; smaller ones have it too.
        high: value of the last colour.

    Returns:
        (H, W, 3) uint8.
    """
    clipped = np.clip(np.nan_to_num(values.astype(np.float64), nan=low), low, high)
    places = (clipped - low) / (high - low) * (len(scale) - 1)
    channels = [np.interp(places, np.arange(len(scale)), channel) for channel in np.transpose(scale)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _check(true: NDArray, *, image: NDArray, maps: NDArray, **labels: NDArray | None) -> None:
    """Raise ``ArrayError`` unless all belong together."""
    check_labels(true, "true")
    for name, values in labels.items():
        if values is not None:
            check_labels(values, name)
    shapes = {"image": image.shape[1:], "maps": maps.shape[1:]}
    shapes |= {name: values.shape for name, values in labels.items() if values is not None}
    wrong = [f"{name} {shape}" for name, shape in shapes.items() if shape != true.shape]
    if wrong or len(maps) < N_MAPS or maps.dtype.kind != "f":
        raise ArrayError(
            f"expected maps (3 + K, H, W) floating point and all of the height and width {true.shape} of the labels, "
            f"got maps {maps.shape} {maps.dtype}{', and ' if wrong else ''}{', '.join(wrong)}"
        )


def _class_colours(classes: NDArray[np.integer]) -> Picture:
    """(H, W, 3) with one colour a class and a black background."""
    colours: Picture = np.where(
        classes[..., None] > 0, OKABE_ITO[(classes.astype(np.int64) - 1) % len(OKABE_ITO)], 0
    ).astype(np.uint8)
    return colours


def _class_legend(maps: Sequence[NDArray[np.integer]], names: Sequence[str]) -> Legend:
    """All classes with a name, and those in the maps without one."""
    numbers = set(range(1, len(names) + 1)).union(*(np.unique(classes).tolist() for classes in maps)) - {0}
    return [
        (
            _as_colour(OKABE_ITO[(number - 1) % len(OKABE_ITO)]),
            names[number - 1] if number <= len(names) else str(number),
        )
        for number in sorted(numbers)
    ]


def _as_colour(values: NDArray) -> Colour:
    red, green, blue = values.tolist()
    return red, green, blue


def _scale(picture: Picture) -> Picture:
    """Enlarge small pictures by a whole number and average pixels of large ones."""
    side = max(picture.shape[:2])
    if side > MAX_SIDE:
        return np.asarray(Image.fromarray(picture).reduce(-(-side // MAX_SIDE)))
    times = -(-MIN_SIDE // side)
    return picture.repeat(times, 0).repeat(times, 1)
