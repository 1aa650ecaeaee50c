"""The tables of the page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .overlaps import OverlapRow
from .paths import BATCH
from .stages import LARGEST_ERROR, SMALLEST_F1, STAGES, Row

ALL_BUT_NETWORK = tuple(stage for stage in STAGES if stage != "network")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of Markdown."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def end_to_end(rows: Sequence[Row], has_weights: bool) -> list[str]:
    """One row a path: windows, seconds of every stage, ratios to the reference paths, and whether it is right."""
    references = [row for row in rows if row.path.variant.is_reference and row.is_good]
    ratios = [f"ratio to {row.path.variant.name}" for row in references]
    header = ["path", "windows", *(f"{stage}, s" for stage in STAGES), "total, s", *ratios]
    header += ["instances", "F1@.5", "network, difference"]
    lines = []
    for row in rows:
        times = [""] * (1 + len(STAGES) + 1 + len(references))
        if row.is_good:
            windows = f"{row.n_windows}" if row.n_timed >= row.n_windows else f"{row.n_timed} of {row.n_windows} timed"
            times = [windows, *(seconds(row.median(stage)) for stage in STAGES), seconds(row.median("total"))]
            times += [f"{other.median('total') / row.median('total'):.2f}" for other in references]
        lines.append(
            [row.path.variant.name, *times, str(row.n_instances), verdict(row), network_error(row, has_weights)]
        )
    return table(header, lines)


def everything_else(rows: Sequence[Row]) -> list[str]:
    """One row a path without the network: windows, seconds of every stage, ratio to the reference, instances."""
    header = ["path", "windows", *(f"{stage}, s" for stage in ALL_BUT_NETWORK), "all of these, s", "ratio"]
    base = rows[0].median(*ALL_BUT_NETWORK)
    lines = []
    for row in rows:
        times = [""] * (len(header) - 1)
        if row.is_good:
            total = row.median(*ALL_BUT_NETWORK)
            times = [f"{row.n_windows}", *(f"{row.median(stage):.4f}" for stage in ALL_BUT_NETWORK)]
            times += [f"{total:.3f}", f"{base / total:.1f}"]
        lines.append([row.path.variant.name, *times, str(row.n_instances), verdict(row)])
    return table([*header, "instances", "F1@.5"], lines)


def overlaps(rows: Sequence[OverlapRow], sizes: Sequence[str]) -> list[str]:
    """One row an overlap."""
    header = ["overlap", *(f"windows of {size}" for size in sizes), "F1@.5 to 0.625", "lowest", "AP@.5 to the labels"]
    lines = [
        [f"{row.overlap:g}", *map(str, row.n_windows), score(row.f1), score(row.lowest), score(row.ap)] for row in rows
    ]
    return table(header, lines)


def memory(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """One row a kind of attention, with the share of plain attention in the same precision, which stands above it."""
    lines = []
    for plain, fused in zip(runs[::2], runs[1::2], strict=True):
        for run in (plain, fused):
            share = f"{run['peak'] / plain['peak']:.2f}"
            lines.append([str(run["name"]), f"{run['before']:.2f}", f"{run['peak']:.2f}", share])
    return table([f"1024², {BATCH} windows a call", "before, GiB", "peak, GiB", "share of plain"], lines)


def seconds(value: float) -> str:
    """Three figures, and no more than milliseconds."""
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def score(value: float) -> str:
    """Four figures, because the goal is 0.99; nothing for NaN."""
    return "" if np.isnan(value) else f"{value:.4f}"


def verdict(row: Row) -> str:
    """F1, and that the path differs where it does."""
    return score(row.f1) if row.f1 >= SMALLEST_F1 else f"**differs**: {score(row.f1)}"


def network_error(row: Row, has_weights: bool) -> str:
    """Difference of the network's answers, and whether it says anything about the instances."""
    if row.path.precision is None:
        return f"{row.error:.1e}" if row.error <= LARGEST_ERROR else f"**differs**: {row.error:.1e}"
    return f"{row.error:.1e}" if has_weights else f"{row.error:.1e}, not gated without weights"
