"""The results page of a prediction: one HTML file that opens from disk, without a network and without a server."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ..errors import ArrayError
from ..io.write import atomic_path
from .template import render

MINI_HEIGHT = 20  # units of the small histograms; whole ones keep a page of 1,000 images small
MAX_TICKS = 5  # intervals between the labels of the size axis; more would touch on a phone
MISSING = "\N{EN DASH}"  # a value that an image does not have

Column = tuple[str, list[str]]  # heading, and the text of every image


@dataclass(frozen=True)
class ImageResult:
    """What became of one image; every path is relative to the page, with ``/`` between its parts.

    Attributes:
        name: relative path of the input.
        n_instances: how many cells were found; None if the image failed.
        files: kind (``labels``, ``geojson``, ...) to the path of a file that was written.
        picture: the image without outlines (JPEG or PNG), or None.
        overlay: the image with outlines, or outlines on a transparent ground, or None. Where there is a picture as
            well, the two must have the same proportions: they are stacked.
        statistics: column to value; not finite is shown as missing. A column whose name starts with ``area`` is in
            the ``size_unit`` of the run.
        sizes: histogram of the cell areas over the bins of the run; may be empty if the image failed.
        error: the reason, one line, if the image failed.
        seconds: time that the image took.
    """

    name: str
    n_instances: int | None
    files: dict[str, str]
    picture: str | None
    overlay: str | None
    statistics: dict[str, float]
    sizes: Sequence[int]
    error: str | None = None
    seconds: float | None = None

    @property
    def failed(self) -> bool:
        """Whether there is no result."""
        return self.error is not None or self.n_instances is None


@dataclass(frozen=True)
class Run:
    """What was run, as a reader of the page should know it.

    Attributes:
        title: heading of the page.
        command: the command line, quoted for a shell.
        bundle: name and version of the bundle.
        device: what the network ran on.
        versions: package to version.
        started: date and time, as it shall be shown.
        seconds: time from start to end.
        size_edges: N + 1 ascending edges of the N bins of cell area; the bins are drawn equally wide, and the last
            one also counts the cells beyond it.
        size_unit: unit of the edges, ``px`` or ``µm²``.
        ignored: how many files were passed over because their suffix is not one of an image.
        notes: settings worth knowing, such as ``tile size 1024``.
        tables: files about all images, relative to the page, such as ``measurements.csv``.
    """

    title: str
    command: str
    bundle: str
    device: str
    versions: dict[str, str]
    started: str
    seconds: float
    size_edges: Sequence[float]
    size_unit: str
    ignored: int
    notes: Sequence[str]
    tables: Sequence[str] = ()


def write_page(path: str | Path, run: Run, results: Sequence[ImageResult]) -> None:
    """Write the results page: one HTML file with everything in it but the pictures and the other results.

    Args:
        path: the file to write; its folder must exist. The paths in ``results`` are relative to this folder.
        run: what was run.
        results: one entry an image, in the order to show.

    Raises:
        ArrayError: if the edges do not ascend, or a histogram does not have one count a bin.
        OSError: if the file cannot be written.
    """
    _check(run, results)
    filters = {"url": _url, "duration": _duration, "number": _number}
    page = render("page.html", _context(run, results), filters)
    with atomic_path(path) as temporary:
        # A file name that is not UTF-8 arrives with lone surrogates; its link keeps the bytes, its text cannot.
        temporary.write_bytes(page.encode("utf-8", "replace"))


def _check(run: Run, results: Sequence[ImageResult]) -> None:
    edges = list(run.size_edges)
    if len(edges) < 2 or not all(low < high for low, high in pairwise(edges)):
        raise ArrayError(f"size_edges must be at least two ascending numbers, got {edges}")
    for result in results:
        if len(result.sizes) != len(edges) - 1 and not (result.failed and len(result.sizes) == 0):
            raise ArrayError(f"sizes of {result.name} must have {len(edges) - 1} counts, got {len(result.sizes)}")


def _context(run: Run, results: Sequence[ImageResult]) -> dict[str, Any]:
    """The variables of the template."""
    counts = [result.n_instances or 0 for result in results if not result.failed]
    columns = _columns(run, results)
    return {
        "run": run,
        "images": [_image(index, result, columns) for index, result in enumerate(results)],
        "n_failed": len(results) - len(counts),
        "n_done": len(counts),
        "n_cells": sum(counts),
        "n_empty": counts.count(0),
        "columns": [label for label, _ in columns],
        "has_outlines": any(result.picture and result.overlay for result in results if not result.failed),
        "sizes": _total_sizes(run, results),
        "mini_height": MINI_HEIGHT,
        "size_range": f"{_number(run.size_edges[0])} to {_number(run.size_edges[-1])} {run.size_unit}",
    }


def _image(index: int, result: ImageResult, columns: list[Column]) -> dict[str, Any]:
    """One image as the template wants it."""
    folder, slash, name = result.name.rpartition("/")
    layers = [layer for layer in (result.picture, result.overlay) if layer]
    return {
        "id": f"i{index}",
        "path": result.name,
        "folder": folder + slash,
        "name": name,
        "failed": result.failed,
        "reason": result.error or "no reason was recorded",
        "count": result.n_instances,
        "files": result.files,
        "layers": layers,
        "shape": _silhouette(result.sizes) if not result.failed else "",
        "values": [texts[index] for _, texts in columns],
    }


def _columns(run: Run, results: Sequence[ImageResult]) -> list[Column]:
    """The columns after the name and the count: each statistic that any image has, and the time."""
    keys = dict.fromkeys(key for result in results for key in result.statistics)
    columns = []
    for key in keys:
        unit = f" ({run.size_unit})" if key.startswith("area") else ""
        texts = _column([result.statistics.get(key, math.nan) for result in results])
        columns.append((key.replace("_", " ") + unit, texts))
    if any(result.seconds is not None for result in results):
        seconds = [math.nan if result.seconds is None else result.seconds for result in results]
        columns.append(("seconds", _column(seconds)))
    return columns


def _column(values: Sequence[float]) -> list[str]:
    """Texts of values, all with as many decimals as the largest needs, so that the points stand below each other."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    decimals = min(8, max(0, 2 - math.floor(math.log10(largest)))) if largest > 0 else 0
    return [f"{value:,.{decimals}f}" if math.isfinite(value) else MISSING for value in values]


def _total_sizes(run: Run, results: Sequence[ImageResult]) -> dict[str, Any] | None:
    """Histogram of all cells: bars, labels of the axis, and quartiles as (value, place 0..1); None without cells."""
    n_bins = len(run.size_edges) - 1
    done = [result.sizes for result in results if not result.failed]
    counts = np.array(done, dtype=np.int64).reshape(-1, n_bins).sum(axis=0)
    if not counts.any():
        return None
    edges = [_number(edge) for edge in run.size_edges]
    ranges = [f"{low} to {high}" for low, high in pairwise(edges[:-1])]
    below = np.concatenate([[0], np.cumsum(counts)])
    quartiles = np.array([0.25, 0.5, 0.75]) * below[-1]
    step = next(s for s in range(math.ceil(n_bins / MAX_TICKS), n_bins + 1) if n_bins % s == 0)
    return {
        "bars": [
            {"range": text, "count": int(count), "height": round(100 * int(count) / int(counts.max()), 2)}
            for text, count in zip([*ranges, f"{edges[-2]} and more"], counts, strict=True)
        ],
        "ticks": [{"label": edges[i], "place": i / n_bins} for i in range(0, n_bins + 1, step)],
        "quartiles": [_number(value) for value in np.interp(quartiles, below, run.size_edges)],
        "median_place": float(np.interp(quartiles[1], below, np.arange(n_bins + 1))) / n_bins,
    }


def _silhouette(counts: Sequence[int]) -> str:
    """SVG path of a histogram, one unit a bin and ``MINI_HEIGHT`` units high; a count above zero is always seen."""
    largest = max(counts, default=0)
    if largest <= 0:
        return ""
    tops = [MINI_HEIGHT - math.ceil(MINI_HEIGHT * count / largest) for count in counts]
    return f"M0 {MINI_HEIGHT}" + "".join(f"V{top}h1" for top in tops) + f"V{MINI_HEIGHT}z"


def _url(path: str) -> str:
    """Relative URL of a path: nothing in it can be read as a scheme, a host, a query or a fragment."""
    return quote(os.fsencode(path), safe="/").replace("//", "/").lstrip("/")


def _duration(seconds: float) -> str:
    """``40 ms``, ``4.2 s``, ``3 min 07 s`` or ``2 h 05 min``."""
    if seconds < 0.995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _number(value: float) -> str:
    """Three digits of a number, or all of a larger one, with commas at the thousands: 0.25, 83.1, 12,345."""
    if not math.isfinite(value):
        return "∞" if value > 0 else MISSING
    return f"{round(value):,}" if abs(value) >= 100 else f"{value:.3g}"
