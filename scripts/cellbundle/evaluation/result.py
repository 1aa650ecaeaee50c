"""Scores of images: a table with one row per image, and summaries of groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..metrics import InstanceScores, pool
from ..metrics.details import ImageDetails, detail_scores, mean_details

KEY_COLUMNS = ("image", "group")  # of the table; all other columns are scores
ALL = "all"  # the summary of all images


@dataclass(frozen=True)
class Failure:
    """An image without scores.

    Attributes:
        image: path relative to the basedir.
        group: as in the table.
        message: what was got, what was expected, what to do.
    """

    image: str
    group: str
    message: str


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of the images of one split.

    Attributes:
        table: one row for each image that could be scored, in the order of the datalist: ``image`` (path relative to
            the basedir, bytes that are not UTF-8 escaped), ``group``, and all scores of ``image_scores``.
        summaries: ``summarise`` of the table; empty if no image could be scored.
        failures: the other images; they are in no summary.
    """

    table: pd.DataFrame
    summaries: dict[str, dict[str, Any]]
    failures: list[Failure]


def build_evaluation(metric: InstanceScores, entries: Sequence[Mapping[str, Any]]) -> Evaluation:
    """Return the scores of an evaluator's images, grouped by datalist.

    Args:
        metric: after a run over ``entries``; call in all processes.
        entries: the data, in the order of their index.
    """
    rows = [
        {"image": str(entries[i]["image"]), "group": entries[i].get("datalist_name", ""), **scores}
        for i, scores in metric.images().items()
    ]
    table = pd.DataFrame(rows, columns=None if rows else list(KEY_COLUMNS))
    return Evaluation(table, summarise(table), [])


def summarise(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Summary of every group, sorted by name, and of all images under ``all``.

    Args:
        table: the columns ``image`` and ``group``, and the scores of ``image_scores`` with equal thresholds.

    Returns:
        Results of ``pool`` by group; empty if the table has no row. A group named ``all`` is called ``all (group)``.
    """
    if table.empty:
        return {}
    scores = table.drop(columns=list(KEY_COLUMNS)).to_dict("records")
    members: dict[str, list[Any]] = {}
    for group, row in zip(table["group"], scores, strict=True):
        members.setdefault(f"{ALL} (group)" if group == ALL else str(group), []).append(row)
    return {group: pool(members[group]) for group in sorted(members)} | {ALL: pool(scores)}


def report_content(evaluation: Evaluation) -> dict[str, Any]:
    """The content of ``report.json``: ``all`` (null if no image was scored), ``groups`` and ``failures``."""
    groups = dict(evaluation.summaries)
    failures = [{"image": f.image, "group": f.group, "message": f.message} for f in evaluation.failures]
    return {ALL: groups.pop(ALL, None), "groups": groups, "n_failed": len(failures), "failures": failures}


def metrics_content(
    evaluation: Evaluation, details: Sequence[ImageDetails], class_names: Sequence[str] = ()
) -> dict[str, Any]:
    """All scores of all images: those of the evaluation, COCO's average precision, and scores by class.

    Args:
        evaluation: of these images.
        details: one for each row of its table, in the same order.
        class_names: of the classes 1..K; empty without classes.

    Returns:
        ``n_images``, ``class_names``, ``pooled`` and ``per_image_mean`` (see ``pool``, ``detail_scores`` and
        ``mean_details``; None without images), and ``images``: a row of the table each, with its own ``detail_scores``.
        None, JSON's null, stands for a score without a value: COCO's without a true instance, one of an absent class.
    """
    single = [detail_scores([image], class_names) for image in details]
    rows = [row | more for row, more in zip(evaluation.table.to_dict("records"), single, strict=True)]
    pooled = per_image_mean = None
    if rows:
        summary = evaluation.summaries[ALL]
        pooled = summary["pooled"] | detail_scores(details, class_names)
        per_image_mean = summary["per_image_mean"] | mean_details(single, class_names)
    return {
        "n_images": len(rows),
        "class_names": list(class_names),
        "pooled": pooled,
        "per_image_mean": per_image_mean,
        "images": rows,
    }
