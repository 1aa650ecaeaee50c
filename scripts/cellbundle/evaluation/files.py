"""Write an evaluation: tables, JSON and a page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..io import atomic_path
from ..io.ownership import Manifest
from ..io.table import write_csv
from .result import Evaluation, Failure, report_content

REPORTED = ("ap50", "ap75", "ap_mean", "precision50", "recall50", "f150", "pq", "aji", "dice")
REPORT_FILES = tuple(map(Path, ("report.html", "report.json", "scores.csv")))


def format_report(summaries: Mapping[str, Mapping[str, Any]], failures: Sequence[Failure] = ()) -> str:
    """A Markdown table of per-image means, one row for each result of ``pool``, and the failures below it."""
    binary = any("binary_iou" in summary["per_image_mean"] for summary in summaries.values())
    columns = (*REPORTED, "binary_iou") if binary else REPORTED
    lines = ["| images | n | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for name, summary in summaries.items():
        values = " | ".join(f"{summary['per_image_mean'][key]:.3f}" for key in columns)
        lines.append(f"| {_cell(name)} | {summary['n_images']} | {values} |")
    if failures:
        count = "1 image failed and is" if len(failures) == 1 else f"{len(failures)} images failed and are"
        lines += ["", f"{count} not in the table:"]
        lines += [f"- {_cell(failure.image)}: {_cell(failure.message)}" for failure in failures]
    return "\n".join(lines)


def check_report_folder(folder: str | Path, replace_foreign: bool = False) -> Manifest:
    """Return the list of the files in a folder that cellbundle wrote.

    Raises:
        ConfigError: if ``write_evaluation`` would replace other files; the message names them.
    """
    own = Manifest(Path(folder))
    own.check(REPORT_FILES, replace_foreign)
    return own


def write_evaluation(
    evaluation: Evaluation,
    folder: str | Path,
    *,
    title: str,
    notes: Sequence[str] = (),
    replace_foreign: bool = False,
) -> None:
    """Write ``report.json``, ``scores.csv`` and ``report.html``; the folder is made when needed.

    Args:
        evaluation: what to write.
        folder: where to; older reports that cellbundle wrote are replaced.
        title: heading of the page, such as the name of the predictions.
        notes: what a reader should know of them, such as the datalist and the split; each one line.
        replace_foreign: replace files of these names that cellbundle did not write.

    Raises:
        ConfigError: if there are such files, and they may not be replaced.
        OSError: if a file cannot be written.
    """
    from .page import render_evaluation  # noqa: PLC0415 - a training writes no pages

    folder = Path(folder)
    own = check_report_folder(folder, replace_foreign)
    page = render_evaluation(evaluation, title=title, notes=notes)
    own.add(REPORT_FILES)
    write_report(report_content(evaluation), evaluation.table, folder)
    with atomic_path(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")  # the title may be the name of a folder


def write_report(content: Mapping[str, Any], table: pd.DataFrame, folder: Path) -> None:
    """Write ``report.json`` and ``scores.csv``; the folder is made when needed.

    Raises:
        OSError: if a file cannot be written.
        ValueError: if ``content`` has NaN or infinite values, which JSON has not.
    """
    write_metrics(content, folder / "report.json")
    write_csv(folder / "scores.csv", table)


def write_metrics(content: Mapping[str, Any], path: str | Path) -> None:
    """Write scores as JSON; the folder is made when needed.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if ``content`` has NaN or infinite values, which JSON has not.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _cell(text: str) -> str:
    """Text for one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
