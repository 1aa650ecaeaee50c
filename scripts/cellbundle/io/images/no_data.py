"""Pixels that hold no measurement: fill values of instruments and of other programs, and constant frames.

Such a value is far from all others. It would decide about contrast and intensities, so it is replaced, as values that
are not numbers are: by the smallest value of the image; in narrow gaps by the nearest one, so that cells have no holes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...errors import ImageReadError
from ...instances.labels import label_components

HUGE = 1e30  # no intensity; the fill values of netCDF (9.97e36) and of floats (3.4e38) are larger
FILLS = (-9999.0, -99999.0, -999999.0, -32768.0)  # of geographic and other programs
APART = 0.5  # all other values are at most this fraction of a fill value
FRAME_SHARES = (0.002, 0.6)  # of the pixels: a smaller frame changes nothing, a larger one may be the background
GRID = 5  # pixels between those that are looked at first; a frame has some of them
SOLID = 0.98  # fraction of its bounding box that a rectangle covers
CONNECTED = 0.95  # fraction of the other pixels that are in one piece; cells on a background of one value are not
MAX_SAMPLES = 1 << 14  # values that a median is taken of
LARGE = 7  # side of a square; a part that holds none is a gap within a cell or between two
NEAREST_FIRST = sorted(
    ((y, x) for y in range(-LARGE, LARGE + 1) for x in range(-LARGE, LARGE + 1)), key=lambda at: (math.hypot(*at), at)
)
MIN_AREA = 16  # pixels of a part of a frame
WIDE = 4  # bytes of a type whose largest value no detector reaches
CLIPPED = 0.03  # of the pixels of a channel, at its largest value
MIN_LEVELS = 16  # values of a channel besides the frame: an image of fewer was drawn, not measured


class NoData(NamedTuple):
    """A value that stands for no data.

    Attributes:
        value: NaN also stands for infinite values.
        share: of the values of the image, 0..1.
    """

    value: float
    share: float

    def __str__(self) -> str:
        name = "NaN or infinite" if math.isnan(self.value) else f"{self.value:g}"
        return f"{100 * self.share:.3g} % of the values are {name}"


def sentences(no_data: Sequence[NoData], data: NDArray[np.float32]) -> list[str]:
    """Sentences about what was replaced in an image, for logs and remarks; ``data`` is the result."""
    by = f"{data.min():g}, or the nearest value in narrow gaps"
    return [f"{one}, which stands for no data; replaced by {by}" for one in no_data]


def replace_no_data(
    data: NDArray[np.float32], dtype: np.dtype, declared: float | None = None
) -> tuple[NDArray[np.float32], list[NoData]]:
    """Replace values that stand for no data by the smallest other value, in narrow gaps by the nearest.

    These are NaN and infinite values; the value that the file declares; floats beyond 1e30; the smallest value of a
    signed type and the fill values of geographic programs, if all other values are far from them; and a constant frame
    or rectangle, if its value is far from all others and the rest of the image is in one piece.

    Args:
        data: (C, H, W) float32, as the file holds it.
        dtype: of the values in the file.
        declared: value that the file says to be no data.

    Returns:
        The image, the same array if there is nothing to replace; and what was replaced.

    Raises:
        ImageReadError: if nothing else is in the image.
    """
    bad, found = _not_finite(data) if dtype.kind == "f" else (None, [])
    for value in _fill_values(data if bad is None else data[~bad], dtype, declared):
        own = data == np.float32(value)
        found.append(NoData(value, float(own.mean())))
        bad = own if bad is None else bad | own
    if bad is not None and bad.all():
        raise ImageReadError(
            f"holds only values that stand for no data ({'; '.join(map(str, found))}); export it again"
        )
    known: NDArray[np.bool_] | None = None if bad is None else np.logical_or.reduce(bad)
    frame = _find_frame(data, known)
    if frame is not None:
        found.append(NoData(float(data[0][frame][0]), float(frame.mean())))
        bad = np.broadcast_to(frame, data.shape) if bad is None else bad | frame
    return _filled(data, bad), found


def clipped_channels(data: NDArray[np.float32]) -> dict[int, NoData]:
    """Find channels of bright objects on a dark background whose detector was at its limit.

    Args:
        data: (C, H, W) float32.

    Returns:
        For each clipped channel its largest value, and the share of its pixels that have it.
    """
    found = {}
    for number, channel in enumerate(data):
        few = channel[::GRID, ::GRID]
        if np.count_nonzero(few == few.max()) < CLIPPED / 2 * few.size:  # so in most images, and fast
            continue
        highest = channel.max()
        share = float(np.count_nonzero(channel == highest) / channel.size)
        if share > CLIPPED:
            sample = _sample(channel.ravel())
            low, median = sample.min(), np.median(sample)
            if highest - median > median - low and len(np.unique(sample)) >= MIN_LEVELS:
                found[number] = NoData(float(highest), share)
    return found


def replace_not_finite(data: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[NoData]]:
    """Replace only NaN and infinite values; arguments and results as ``replace_no_data``."""
    bad, found = _not_finite(data)
    return _filled(data, bad), found


def _filled(data: NDArray[np.float32], bad: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """The image with other values where ``bad``."""
    if bad is None:
        return data
    filled = np.where(bad, data[~bad].min(), data)
    for channel, own in zip(filled, bad, strict=True):
        box = tuple(_extent(own.any(axis=axis)) for axis in (1, 0))
        _fill_gaps(channel[box], own[box])
    return filled


def _extent(present: NDArray[np.bool_]) -> slice:
    """From the first to the last place that is set, with a margin."""
    places = np.flatnonzero(present)
    return slice(max(0, places[0] - LARGE), places[-1] + 1 + LARGE) if places.size else slice(0)


def _fill_gaps(channel: NDArray[np.float32], own: NDArray[np.bool_]) -> None:
    """Give pixels without data that are in no large part the nearest value, in place."""
    y, x = np.nonzero(own & ~_has_squares(own))
    for dy, dx in NEAREST_FIRST:
        if not y.size:
            return
        v, u = y + dy, x + dx
        good = (v >= 0) & (v < own.shape[0]) & (u >= 0) & (u < own.shape[1])
        good[good] = ~own[v[good], u[good]]
        channel[y[good], x[good]] = channel[v[good], u[good]]
        y, x = y[~good], x[~good]


def _has_squares(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask that are in a square of ``LARGE`` pixels; what is outside of the image belongs to it."""
    padded = np.pad(mask, LARGE, constant_values=True)
    opened = ndimage.maximum_filter(ndimage.minimum_filter(padded, LARGE), LARGE)
    return opened[LARGE:-LARGE, LARGE:-LARGE]


def _not_finite(data: NDArray[np.float32]) -> tuple[NDArray[np.bool_] | None, list[NoData]]:
    finite = np.isfinite(data)
    if not finite.any():
        raise ImageReadError("holds only NaN or infinite values; export it again")
    return (None, []) if finite.all() else (~finite, [NoData(math.nan, float(1 - finite.mean()))])


def _fill_values(values: NDArray[np.float32], dtype: np.dtype, declared: float | None) -> list[float]:
    """Values among finite ones that stand for no data, at most three."""
    with np.errstate(over="ignore"):  # beyond float32 it is infinite, and was found already
        stated = None if declared is None else np.float32(declared)
    found = [] if declared is None or not (values == stated).any() else [declared]
    rest = values[values != stated] if found else values
    if dtype.kind not in "if" and dtype.itemsize < WIDE:
        return found
    known: list[float] = []
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        known = [limits.min, *([float(np.float32(limits.max))] if dtype.itemsize >= WIDE else [])]
    for extreme in (np.min, np.max):
        value = float(extreme(rest)) if rest.size else 0.0
        if value != 0 and (abs(value) >= HUGE or value in (*FILLS, *known)):
            others = rest[rest != np.float32(value)]
            nearest = float(extreme(others)) if others.size else 0.0
            if abs(value) >= HUGE or nearest / value <= APART:
                found.append(value)
                rest = others
    return found


def _find_frame(data: NDArray[np.float32], bad: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """(H, W) mask of a constant frame or rectangle of the smallest or the largest value; None if there is none.

    Args:
        data: (C, H, W) image.
        bad: (H, W), pixels that are known to hold no data.
    """
    if bad is not None and bad.all():
        return None
    few = np.concatenate([data[:, ::GRID, ::GRID].reshape(len(data), -1), data[:, -1], data[:, :, -1]], axis=1)
    if bad is not None:
        few = few[:, ~np.concatenate([bad[::GRID, ::GRID].ravel(), bad[-1], bad[:, -1]])]
    for darkest in (True, False):
        extremes = few.min(axis=1, initial=np.inf) if darkest else few.max(axis=1, initial=-np.inf)
        equal = (few == extremes[:, None]).all(axis=0)
        # Few values refute it in most images, and faster than all.
        if equal.mean() < FRAME_SHARES[0] / 2 or not _is_apart(few[:, ~equal], extremes):
            continue
        own = np.ones(data.shape[1:], np.bool_) if bad is None else ~bad
        for channel, extreme in zip(data, extremes, strict=True):
            own &= channel == extreme
        low, high = FRAME_SHARES
        if not low <= own.mean() <= high:
            continue
        others = ~own if bad is None else ~own & ~bad
        rest = data[:, others]
        if _is_apart(rest, extremes) and _has_levels(rest) and _is_solid(own, others, darkest):
            return own
    return None


def _is_apart(rest: NDArray[np.float32], extremes: NDArray[np.float32]) -> bool:
    """Whether the values of a frame are further from the nearest other value than that is from the median."""
    for values, extreme in zip(rest, extremes, strict=True):
        if not values.size:
            return False
        low, high = values.min(), values.max()
        if low < extreme < high:
            return False
        nearest = low if extreme < low else high
        if abs(nearest - extreme) <= abs(np.median(_sample(values)) - nearest):
            return False
    return True


def _has_levels(rest: NDArray[np.float32]) -> bool:
    """Whether each channel besides the frame was measured and not drawn."""
    return all(len(np.unique(_sample(values))) >= MIN_LEVELS for values in rest)


def _sample(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Enough of many values for a median."""
    return values[:: max(1, values.size // MAX_SAMPLES)]


def _is_solid(own: NDArray[np.bool_], others: NDArray[np.bool_], touches: bool) -> bool:
    """Whether the pixels of a value are parts of a frame, and all others are in one piece.

    Args:
        own: (H, W), pixels of the value.
        others: (H, W), pixels with a measurement.
        touches: whether a part of any form may be at the border, as in the corners of a turned image; otherwise it
            fills a side of the image, or is a rectangle.
    """
    padded = np.pad(own, 1)
    beside = padded[1:-1, :-2] | padded[1:-1, 2:] | padded[:-2, 1:-1] | padded[2:, 1:-1]
    if np.count_nonzero(own & beside) < CONNECTED * np.count_nonzero(own):  # scattered pixels
        return False
    pieces, _ = label_components(others, connectivity=4)
    sizes = np.bincount(pieces.ravel())[1:]
    if sizes.max(initial=0) < CONNECTED * sizes.sum():
        return False
    parts, n = label_components(own, connectivity=4)
    areas = np.bincount(parts.ravel(), minlength=n + 1)
    accepted = 0
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        part = parts[box] == number
        at_border = any(s.start == 0 or s.stop == size for s, size in zip(box, own.shape, strict=True))
        spans = any(s.start == 0 and s.stop == size for s, size in zip(box, own.shape, strict=True))
        whole = part.all(axis=0).any() or part.all(axis=1).any()
        is_part = part.mean() >= SOLID or (touches and at_border) or (spans and whole)
        accepted += int(areas[number]) * bool(is_part and areas[number] >= MIN_AREA)
    return accepted >= SOLID * int(areas[1:].sum())
