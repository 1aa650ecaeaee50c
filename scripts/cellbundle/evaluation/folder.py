"""Score the label maps in a folder against the labels of a datalist."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..datalists.datalist import Entry, load_datalists
from ..errors import CellBundleError, ConfigError, LabelReadError
from ..io import printable, read_labels, stem
from ..io.regular import IRREGULAR, is_irregular
from ..io.table import plain_cell
from ..metrics import image_scores
from .result import KEY_COLUMNS, Evaluation, Failure, summarise

OTHER = "other"  # group of images that have none
SUFFIX = "_labels.tif"


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
