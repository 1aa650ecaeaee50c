"""The page of an evaluation: one HTML file that opens from disk, without a network and without a server."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..report.template import render
from .result import Evaluation

MAX_LINES = 7  # groups in the chart, besides all images: as many colours as people can tell apart
COUNTS = {"n_true": "true", "n_pred": "predicted", "tp50": "matched", "fn50": "missed", "fp50": "extra"}
SCORES = {"ap50": "AP50", "ap75": "AP75", "ap_mean": "mean AP", "precision50": "precision", "recall50": "recall"}
SCORES |= {"f150": "F1", "sq": "SQ", "pq": "PQ", "aji": "AJI", "dice": "Dice"}
IMAGE_COUNTS = {key: COUNTS[key] for key in ("n_true", "n_pred", "fn50", "fp50")}  # as few as show what is wrong
IMAGE_SCORES = {key: SCORES[key] for key in ("ap_mean", "ap50", "f150", "pq", "aji")}
MEASURED = "ap_mean"  # orders the images, and is drawn as a bar in the tables


def render_evaluation(evaluation: Evaluation, *, title: str, notes: Sequence[str] = ()) -> str:
    """Draw the page.

    Args:
        evaluation: what to show; images with the lowest mean AP come first.
        title: heading.
        notes: lines below the heading.

    Returns:
        The HTML, which needs no other file. Names that are not UTF-8 may leave lone surrogates in it.
    """
    summaries = evaluation.summaries
    means = {name: summary["per_image_mean"] for name, summary in summaries.items()}
    pooled = {name: summary["pooled"] for name, summary in summaries.items()}
    sizes = {name: summary["n_images"] for name, summary in summaries.items()}
    rows = evaluation.table.to_dict("records")
    rows.sort(key=lambda row: (row[MEASURED], row["ap50"], -row["n_true"]))
    context = {
        "title": title,
        "notes": notes,
        "all": summaries.get("all"),
        "failures": evaluation.failures,
        "chart": _chart(means, sizes) if summaries else None,
        "means": _table(means, {}, sizes),
        "pooled": _table(pooled, COUNTS, sizes),
        "images": rows,
        "image_counts": _present(IMAGE_COUNTS, rows),
        "image_scores": _present(IMAGE_SCORES, rows),
        "measured": MEASURED,
    }
    return render("evaluation.html", context, {"score": "{:.3f}".format, "count": lambda value: f"{int(value):,}"})


def _present(names: Mapping[str, str], rows: Sequence[Mapping[Any, Any]]) -> dict[str, str]:
    """Those columns that the rows have: not all thresholds need to have been used."""
    return {key: label for key, label in names.items() if rows and key in rows[0]}


def _table(
    summaries: Mapping[str, Mapping[str, float]], counts: Mapping[str, str], sizes: Mapping[str, int]
) -> dict[str, Any]:
    """A table with one row a group."""
    rows = list(summaries.values())
    return {
        "counts": _present(counts, rows),
        "scores": _present(SCORES, rows),
        "rows": [{"name": name, "n": sizes[name], "values": values} for name, values in summaries.items()],
    }


def _chart(means: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Lines of AP over the IoU threshold, places in percent of the width and height; all images come first."""
    percents = sorted(int(key[2:]) for key in means["all"] if re.fullmatch(r"ap\d+", key))
    span = max(1, percents[-1] - percents[0])
    places = [100 * (percent - percents[0]) / span for percent in percents]
    groups = sorted((name for name in means if name != "all"), key=lambda name: (-sizes[name], name))
    shown = ["all", *(groups[:MAX_LINES] if len(groups) > 1 else ())]
    lines = []
    for number, name in enumerate(shown):
        values = [means[name][f"ap{percent}"] for percent in percents]
        tops = [100 - 100 * value for value in values]
        points = [
            {"x": round(x, 2), "y": round(y, 2), "label": f"IoU {percent / 100:g}: AP {value:.3f}"}
            for x, y, percent, value in zip(places, tops, percents, values, strict=True)
        ]
        lines.append({"name": name, "number": number, "n": sizes[name], "values": values, "points": points})
    return {
        "lines": lines,
        "ticks": [{"label": f"{percent / 100:g}", "place": x} for percent, x in zip(percents, places, strict=True)],
        "hidden": len(groups) - len(shown) + 1 if len(groups) > 1 else 0,
    }
