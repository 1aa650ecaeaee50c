"""From the scores of an evaluator to report files."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..io import atomic_path
from ..metrics import InstanceScores, pool

REPORTED = ("ap50", "ap75", "ap_mean", "precision50", "recall50", "f150", "pq", "aji", "dice")


def build_report(metric: InstanceScores, entries: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], pd.DataFrame]:
    """Summaries of all images and of each data list, and the table of the single images.

    Args:
        metric: after a run over ``entries``; call in all processes.
        entries: the data, in the order of their index.

    Returns:
        ``{"all": pool, "datalists": {name: pool}}`` and a table with one row an image.
    """
    scores = metric.images()
    rows = [
        {"image": str(entries[i]["image"]), "datalist": entries[i].get("datalist_name", ""), **s}
        for i, s in scores.items()
    ]
    table = pd.DataFrame(rows)
    members = defaultdict(list)
    for row, score in zip(rows, scores.values(), strict=True):
        members[row["datalist"]].append(score)
    lists = {name: pool(part) for name, part in sorted(members.items())}
    return {"all": pool(list(scores.values())), "datalists": lists}, table


def write_report(report: Mapping[str, Any], table: pd.DataFrame, folder: Path) -> None:
    """Write ``report.json`` and ``scores.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    with atomic_path(folder / "scores.csv") as temporary:
        table.to_csv(temporary, index=False)


def format_report(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table of per-image means, one row for each named result of ``pool``."""
    lines = ["| images | n | " + " | ".join(REPORTED) + " |", "|---|---|" + "---|" * len(REPORTED)]
    for name, summary in groups.items():
        values = " | ".join(f"{summary['per_image_mean'][key]:.3f}" for key in REPORTED)
        lines.append(f"| {name} | {summary['n_images']} | {values} |")
    return "\n".join(lines)
