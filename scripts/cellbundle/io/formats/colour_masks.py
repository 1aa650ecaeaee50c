"""Masks whose colours are classes: what colours there are, and class and label maps by a table of them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import CellBundleError, ConfigError, LabelReadError
from ...instances.labels import label_components
from ..images.read import read_image

BACKGROUND = "background"
BLACK = 0x000000
JPEG_START = b"\xff\xd8\xff"
MAX_CLASSES = 255
MAX_BLENDS = 8  # colours without a patch of 3 x 3 pixels that a mask may have whatever else is in it
MAX_SHOWN = 3

ColourTable = Mapping[str, str | None]
"""Class by colour, ``"255,0,0"`` or ``"#ff0000"``; None or ``"background"`` for background, as black is by default."""


@dataclass(frozen=True)
class FoundColours:
    """The colours of some masks, and what they may mean.

    Attributes:
        pixels: number of pixels by colour as ``"red,green,blue"``, the most frequent first.
        proposal: a table for ``read_colour_mask``: black is background, else the most frequent colour; the others are
            ``"class 1"`` and so on by frequency. Rename the classes, and give those that are one the same name.
    """

    pixels: dict[str, int]
    proposal: dict[str, str]

    def __str__(self) -> str:
        """One line a colour: pixels, share, what is proposed."""
        total = sum(self.pixels.values())
        rows = [
            f"{colour:<13}{n:>12} pixels {n / total:>8.3%}  {self.proposal[colour]}"
            for colour, n in self.pixels.items()
        ]
        return "\n".join([f"{len(rows)} colours in {total} pixels", *rows])


def find_colours(paths: str | Path | Sequence[str | Path]) -> FoundColours:
    """Count the colours of colour-coded masks and propose a table of classes.

    Args:
        paths: a mask, or several with the same colours: PNG, BMP or TIFF of 8 bits, RGB or grey or with a palette.

    Returns:
        The colours of all masks together.

    Raises:
        LabelReadError: if a file cannot be read, is compressed as JPEG, has other than 8-bit colours or colours that
            blurring made, or if all together have more colours than there can be classes.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    counts: Counter[int] = Counter()
    for path in files:
        colours = _read_colours(Path(path))
        present, pixels = np.unique(colours, return_counts=True)
        _refuse_blends(Path(path), colours, present)
        counts.update(dict(zip(present.tolist(), pixels.tolist(), strict=True)))
    if not counts:
        raise LabelReadError("got no mask to find colours in; give at least one")
    if len(counts) > MAX_CLASSES + 1:
        raise LabelReadError(
            f"{files[0]}: with the other {len(files) - 1} masks it holds {len(counts)} colours, expected one for each "
            f"class and at most {MAX_CLASSES}; if each instance has a colour of its own, save ids instead"
        )
    ordered = sorted(counts, key=lambda colour: (-counts[colour], colour))
    background = BLACK if BLACK in counts else ordered[0]
    classes = [colour for colour in ordered if colour != background]
    names = {background: BACKGROUND} | {colour: f"class {i}" for i, colour in enumerate(classes, start=1)}
    return FoundColours(
        {_show(colour): counts[colour] for colour in ordered}, {_show(colour): names[colour] for colour in ordered}
    )


def colour_classes(table: ColourTable) -> list[str]:
    """Names of the classes 1..K of a table, in the order in which they first stand in it.

    Raises:
        ConfigError: if it is no table of colours and classes.
    """
    return list(dict.fromkeys(name for name in _parse(table).values() if name is not None))


def read_colour_mask(path: str | Path, table: ColourTable) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Read a colour-coded mask by a table of its colours.

    Args:
        path: PNG, BMP or TIFF of 8 bits, RGB or grey or with a palette; transparency is dropped.
        table: the class of each colour; several colours may be one class.

    Returns:
        Class map (H, W) uint8, 0 background, 1..K as ``colour_classes`` names them; label map (H, W) int32, the
        8-connected parts of every class numbered 1..N, class by class. Cells of one class that touch are one part.

    Raises:
        ConfigError: if the table is not valid, or has more than 255 classes.
        LabelReadError: if the file cannot be read, is compressed as JPEG, has other than 8-bit colours, or colours that
            are not in the table.
    """
    path, colour_of = Path(path), _parse(table)
    names = colour_classes(table)
    colours = _read_colours(path)
    present, inverse, pixels = np.unique(colours, return_inverse=True, return_counts=True)
    unknown = [
        (colour, n) for colour, n in zip(present.tolist(), pixels.tolist(), strict=True) if colour not in colour_of
    ]
    if unknown:
        _refuse_blends(path, colours, present)
        shown = "; ".join(f"{_show(c)} ({n} pixels)" for c, n in sorted(unknown, key=lambda one: -one[1])[:MAX_SHOWN])
        raise LabelReadError(
            f"{path}: {len(unknown)} colours are not in the table of colours: {shown}; add each with its class, or as "
            f"{BACKGROUND}"
        )
    numbers = {None: 0} | {name: number for number, name in enumerate(names, start=1)}
    class_of = np.array([numbers[colour_of[colour]] for colour in present.tolist()], np.uint8)
    classes = class_of[inverse.reshape(colours.shape)]
    labels = np.zeros(colours.shape, np.int32)
    for number in range(1, len(names) + 1):
        parts, _ = label_components(classes == number)
        labels = np.where(parts, parts + labels.max(), labels)
    return classes, labels


def _read_colours(path: Path) -> NDArray[np.int32]:
    """(H, W) 0xRRGGBB."""
    try:
        picture = read_image(path, as_stored=True)
        with path.open("rb") as file:
            is_jpeg = file.read(len(JPEG_START)) == JPEG_START
    except CellBundleError as error:
        raise LabelReadError(str(error)) from error
    if is_jpeg:
        raise LabelReadError(
            f"{path}: is compressed as JPEG, which blurs colours at all borders; get the mask as PNG or TIFF from "
            "where it was made (saving this file as PNG does not bring them back)"
        )
    if len(picture.data) not in (1, 3) or picture.dtype != np.uint8:
        raise LabelReadError(
            f"{path}: has {len(picture.data)} channels of {picture.dtype}, expected red, green, blue of uint8; export "
            "it as 8-bit RGB"
        )
    red, green, blue = np.broadcast_to(picture.data.astype(np.int32), (3, *picture.data.shape[1:]))
    return red << 16 | green << 8 | blue


def _refuse_blends(path: Path, colours: NDArray[np.int32], present: NDArray[np.int32]) -> None:
    """Raise ``LabelReadError`` if most colours never fill 3 x 3 pixels: they are blends at blurred borders."""
    from scipy import ndimage  # noqa: PLC0415 - slow import

    same = ndimage.minimum_filter(colours, 3) == ndimage.maximum_filter(colours, 3)
    n_blends = len(present) - len(np.unique(colours[same]))
    if n_blends > max(MAX_BLENDS, len(present) // 2):
        raise LabelReadError(
            f"{path}: holds {len(present)} colours, {n_blends} of which nowhere fill 3x3 pixels: JPEG, resizing or "
            "anti-aliasing has blurred it; export it again as PNG, with neither, and resize with nearest neighbour only"
        )


def _parse(table: ColourTable) -> dict[int, str | None]:
    """Class by 0xRRGGBB; None is background."""
    if not isinstance(table, Mapping) or not table:
        raise ConfigError(
            f"the table of colours is {table!r}; give the class of each, such as "
            '{"255,0,0": "tumour", "#00ff00": "stroma", "0,0,0": "background"}'
        )
    classes: dict[int, str | None] = {}
    for text, name in table.items():
        colour = _parse_colour(text)
        if name is not None and not (isinstance(name, str) and name):
            raise ConfigError(f"the class of colour {text!r} is {name!r}; give a name, or None for {BACKGROUND}")
        if colour in classes:
            raise ConfigError(f"colour {text!r} stands twice in the table; give each colour one class")
        classes[colour] = None if name == BACKGROUND else name
    n_classes = len(set(classes.values()) - {None})
    if not 0 < n_classes <= MAX_CLASSES:
        raise ConfigError(f"the table of colours has {n_classes} classes, expected 1 to {MAX_CLASSES}")
    classes.setdefault(BLACK, None)
    return classes


def _parse_colour(text: object) -> int:
    """0xRRGGBB of ``"255,0,0"`` or ``"#ff0000"``."""
    if isinstance(text, str) and re.fullmatch(r"\s*#[0-9a-fA-F]{6}\s*", text):
        return int(text.strip()[1:], 16)
    match = re.fullmatch(r"\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*", text) if isinstance(text, str) else None
    if match is None or max(parts := [int(part) for part in match.groups()]) > MAX_CLASSES:
        raise ConfigError(f'{text!r} is no colour; write red, green and blue as "255,0,0" or "#ff0000"')
    return parts[0] << 16 | parts[1] << 8 | parts[2]


def _show(colour: int) -> str:
    return f"{colour >> 16},{colour >> 8 & 255},{colour & 255}"
