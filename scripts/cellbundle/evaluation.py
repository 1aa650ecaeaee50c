"""Scores of label maps in files against the labels of a datalist: one row an image, summaries of groups, reports."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .datalists.datalist import Entry, load_datalists
from .errors import CellBundleError, ConfigError, LabelReadError
from .io import atomic_path, printable, read_labels, stem
from .io.ownership import Manifest
from .io.regular import IRREGULAR, is_irregular
from .io.table import plain_cell, write_csv
from .metrics import image_scores, pool
from .metrics.details import ImageDetails, detail_scores, mean_details

REPORTED = ("ap50", "ap75", "ap_mean", "precision50", "recall50", "f150", "pq", "aji", "dice")
KEY_COLUMNS = ("image", "group")  # of the table; all other columns are scores
ALL = "all"  # the summary of all images
OTHER = "other"  # group of images that have none
SUFFIX = "_labels.tif"
REPORT_FILES = tuple(map(Path, ("report.html", "report.json", "scores.csv")))


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


def evaluate_folder(
    predictions: str | Path,
    datalist: str | Path,
    basedir: str | Path,
    split: str = "testing",
    fold: int = 0,
    *,
    groups: Mapping[str, str] | None = None,
    group_key: str = "datalist_name",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score the label maps in a folder.

    The prediction of ``images/x/a.png`` is ``a_labels.tif`` in the sub-folder ``images/x`` of ``predictions``, else in
    ``x``, else in the folder itself; or ``a_png_labels.tif``, as ``cellbundle predict`` names it next to a namesake.

    Args:
        predictions: folder of label maps.
        datalist: JSON file, see ``cellbundle.datalists.datalist``.
        basedir: folder that the paths in it are relative to.
        split: as in ``cellbundle.datalists.datalist.select``.
        fold: as in ``cellbundle.datalists.datalist.select``.
        groups: group of an image by its stem, as ``read_groups`` gives it; images that are not in it go to ``other``.
        group_key: without ``groups``, the key of the entries to group by; the default puts all into one group.
        progress: called as ``progress(done, total)`` after each image.

    Returns:
        The scores. A missing, unreadable or wrongly sized prediction or label is a failure; the others are scored.

    Raises:
        ConfigError: if ``predictions`` is not a folder.
        DatalistError: if the list is malformed, or has no entry for this split and fold.
    """
    folder, base = Path(predictions), Path(os.path.abspath(basedir))  # noqa: PTH100 - as the paths of the list
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; give the one that holds the predicted label maps")
    specs = [{"datalist": datalist, "basedir": basedir}]
    entries = load_datalists(specs, split, fold, check_files=False)
    names = [Path(entry["image"]).relative_to(base).as_posix() for entry in entries]
    found = _find_predictions(folder, names)
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    for done, (entry, name) in enumerate(zip(entries, names, strict=True), start=1):
        shown, group = printable(name), printable(_group(entry, name, groups, group_key))
        try:
            rows.append({"image": shown, "group": group} | _score(entry["label"], found[name]))
        except CellBundleError as error:
            failures.append(Failure(shown, group, printable(str(error))))
        if progress:
            progress(done, len(entries))
    table = pd.DataFrame(rows, columns=None if rows else list(KEY_COLUMNS))
    return Evaluation(table, summarise(table), failures)


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


def read_groups(path: str | Path, column: str = "modality") -> dict[str, str]:
    """Groups from a CSV file.

    Args:
        path: file with the column ``id``, the stem of the image (its name without the last suffix).
        column: the column to group by.

    Returns:
        Group by stem, both as they are written in the file, without the apostrophe of ``write_csv``; ids with an empty
        group are left out.

    Raises:
        ConfigError: if the file cannot be read, a column is missing, or an id stands there with two groups.
    """
    if is_irregular(path):
        raise ConfigError(f"{path}: {IRREGULAR}")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from error
    missing = {"id", column} - set(frame.columns)
    if missing:
        raise ConfigError(f"{path}: has no column {sorted(missing)[0]!r}; its columns are {', '.join(frame.columns)}")
    cells = (map(plain_cell, frame[key]) for key in ("id", column))
    pairs = sorted({(name, group) for name, group in zip(*cells, strict=True) if group})
    repeated = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    if repeated:
        raise ConfigError(f"{path}: {repeated[0]!r} has more than one {column}; give each id one")
    return dict(pairs)


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
    from .report.evaluation import render_evaluation  # noqa: PLC0415 - a training writes no pages

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


def _find_predictions(folder: Path, names: Sequence[str]) -> dict[str, Path | str]:
    """The file of each image, or the reason why there is none that is certainly its own."""
    # Unlike Path.is_file, os.path.isfile does not raise for names that are too long.
    files = {name: next(filter(os.path.isfile, _candidates(folder, name)), None) for name in names}
    users = Counter(files.values())
    found: dict[str, Path | str] = {}
    for name, path in files.items():
        if path is None:
            found[name] = f"has no prediction {stem(name)}{SUFFIX} in {folder}; predict it, or check the folder"
        elif users[path] > 1:
            found[name] = f"{path} fits {users[path]} images; keep the predictions in sub-folders like the images"
        else:
            found[name] = path
    return found


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    """Where the prediction of an image may be, the most specific place first."""
    parents = Path(name).parent.parts
    kind = Path(name).suffix[1:]
    for start in range(len(parents) + 1):
        place = folder.joinpath(*parents[start:])
        yield place / f"{stem(name)}{SUFFIX}"
        yield place / f"{stem(name)}_{kind}{SUFFIX}"


def _group(entry: Entry, name: str, groups: Mapping[str, str] | None, key: str) -> str:
    """Group of an image; without one, ``other``."""
    value = entry.get(key) if groups is None else groups.get(stem(name))
    return OTHER if value is None or value == "" else str(value)


def _score(label: str, prediction: Path | str) -> dict[str, float]:
    """Scores of one image; raises ``CellBundleError`` if there are none."""
    if isinstance(prediction, str):
        raise LabelReadError(prediction)
    true, pred = read_labels(label), read_labels(prediction)
    if true.shape != pred.shape:
        got = f"{pred.shape[0]}x{pred.shape[1]}, its label {label} is {true.shape[0]}x{true.shape[1]}"
        raise LabelReadError(f"{prediction}: is {got}; predict the image at its own size")
    return image_scores(true, pred)


def _cell(text: str) -> str:
    """Text for one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
