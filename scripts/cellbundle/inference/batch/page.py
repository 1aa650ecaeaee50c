"""From the results of a batch to its page."""

from collections.abc import Sequence

import numpy as np

from ...report.page import ImageResult
from .formats import FORMATS
from .store import Result, summarise

BINS = 24
LARGEST_PERCENTILE = 99.5  # of the cell areas: the last bin also counts the few beyond, which would squeeze the others


def size_bins(results: Sequence[Result]) -> tuple[str, list[float], str]:
    """Column of the cell area that all images have, (25,) edges of its histogram, and its unit."""
    tables = [result.table for result in results if result.table is not None and len(result.table)]
    column, unit = ("area_um2", "µm²") if tables and all("area_um2" in table for table in tables) else ("area", "px")
    areas = np.concatenate([table[column].to_numpy() for table in tables]) if tables else np.ones(1)
    width = _round_up(max(float(np.percentile(areas, LARGEST_PERCENTILE)), 1.0) / BINS)
    return column, [float(edge) for edge in width * np.arange(BINS + 1)], unit


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 and 10 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * next(step for step in (1, 2, 2.5, 5, 10) if step * power >= value))


def image_result(result: Result, column: str, edges: Sequence[float]) -> ImageResult:
    """What the page shows of one image."""
    if result.table is None:
        return ImageResult(result.job.name, None, {}, None, None, {}, [], error=result.error)
    shown = {kind: path.as_posix() for kind, path in result.files.items()}
    areas = result.table[column].to_numpy() if column in result.table else np.empty(0)
    summary = {k: v for k, v in summarise(result).items() if k not in ("image", "cells", "seconds")}
    unused = "area_median" if column == "area_um2" else "area_um2_median"
    summary.pop(unused, None)
    return ImageResult(
        result.job.name,
        len(result.table),
        {kind: path for kind, path in shown.items() if kind in FORMATS},
        shown.get("picture"),
        shown.get("outlines"),
        {name.replace("area_um2", "area"): float(value) for name, value in summary.items()},
        np.histogram(np.minimum(areas, edges[-1]), edges)[0].tolist(),
        seconds=result.seconds,
    )
