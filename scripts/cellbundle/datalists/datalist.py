"""Datalists: which images belong to training, validation and testing, and in which fold.

A datalist is a JSON file ``{"training": [{"image", "label", "fold"}, ...], "testing": [{"image", "label"}, ...]}``
whose paths are relative to a base directory, as ``monai.auto3dseg.utils.datafold_read`` reads it. Entries may have more
keys, for example ``group``: what comes from one field of view, slide or patient, and has to stay together; or
``classes`` of the instances, see ``cellbundle.transforms.LoadClassesd``. Their names may be under ``class_names``,
beside the sections.
"""

import hashlib
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DatalistError
from ..io.regular import IRREGULAR, is_irregular

logger = logging.getLogger(__name__)

Entry = dict[str, Any]
Datalist = dict[str, list[Entry]]

SECTIONS = ("training", "testing")
SPLITS = ("training", "validation", "testing")
FILE_KEYS = ("image", "label")
MAX_SHOWN = 5  # problems spelled out in one message


def read_datalist(
    path: str | Path, basedir: str | Path, *, check_files: bool = True, require_labels: bool = True
) -> Datalist:
    """Read and check a datalist.

    Args:
        path: JSON file.
        basedir: directory that the paths in the file are relative to.
        check_files: look whether every file exists.
        require_labels: every entry needs a ``label``; give False for inference.

    Returns:
        ``training`` and ``testing``, as far as the file has them. ``image``, ``label`` and
        ``classes``, if it is a string, are paths below ``basedir`` (symbolic links are not followed); all other keys
        are as in the file.

    Raises:
        DatalistError: if the file is not a datalist, a path leaves ``basedir``, or files are missing.
    """
    sections = read_sections(path)
    datalist: Datalist = {}
    for section, entries in sections.items():
        datalist[section] = [
            resolve_entry(entry, Path(basedir), f"{path}: {section}[{i}]", require_labels)
            for i, entry in enumerate(entries)
        ]
    if check_files:
        _check_files(path, [entry for entries in datalist.values() for entry in entries])
    return datalist


def select(datalist: Mapping[str, Sequence[Entry]], split: str = "training", fold: int = 0) -> list[Entry]:
    """Entries of one split, in the order of the list.

    Args:
        datalist: as returned by ``read_datalist``.
        split: ``training`` for the training entries outside ``fold``, ``validation`` for those in it, or ``testing``.
        fold: number of the validation fold; entries without a fold are never validated on.

    Raises:
        DatalistError: if the split is not known.
    """
    if split not in SPLITS:
        raise DatalistError(f"split is {split!r}; choose one of {', '.join(SPLITS)}")
    if split == "testing":
        return list(datalist.get("testing", ()))
    is_validation = split == "validation"
    return [entry for entry in datalist.get("training", ()) if (entry.get("fold") == fold) == is_validation]


def load_datalists(
    specs: Sequence[Mapping[str, Any]],
    split: str = "training",
    fold: int = 0,
    *,
    check_files: bool = True,
    require_labels: bool = True,
) -> list[Entry]:
    """Concatenate one split of several datalists.

    Args:
        specs: one ``{"datalist": path, "basedir": directory}`` each, with a ``weight`` where a list is to count more or
            less than the others.
        split: as in ``select``.
        fold: as in ``select``.
        check_files: look whether the files of this split exist.
        require_labels: as in ``read_datalist``.

    Returns:
        The entries, each with ``datalist_id`` (position in ``specs``), ``datalist_name`` (file name without suffix) and
        ``datalist_weight`` (of the list, divided by its number of entries): sampled by it, a list counts the same
        however long it is.

    Raises:
        DatalistError: as in ``read_datalist``, or if no list has an entry for this split and fold.
    """
    chosen: list[Entry] = []
    for number, spec in enumerate(specs):
        if not {"datalist", "basedir"} <= set(spec) <= {"datalist", "basedir", "weight"}:
            raise DatalistError(
                f"data list {number} has the keys {sorted(spec)}; expected 'datalist', 'basedir' and perhaps 'weight'"
            )
        path = Path(spec["datalist"])
        datalist = read_datalist(path, spec["basedir"], check_files=False, require_labels=require_labels)
        for leak in find_leaks(datalist)[:MAX_SHOWN]:
            logger.warning("%s leaks: %s", path, leak)
        entries = select(datalist, split, fold)
        if check_files:
            _check_files(path, entries)
        weight = float(spec.get("weight", 1.0)) / max(1, len(entries))
        source = {"datalist_id": number, "datalist_name": path.stem, "datalist_weight": weight}
        chosen.extend(entry | source for entry in entries)
    if not chosen:
        names = ", ".join(str(spec["datalist"]) for spec in specs) or "an empty list of data lists"
        raise DatalistError(f"no {split} entries for fold {fold} in {names}; choose another fold or split")
    return chosen


def split_by_group(groups: Sequence[str], n_folds: int, seed: int = 0) -> list[int]:
    """Distribute entries over folds of similar size without splitting a group.

    The largest groups go first, each to the smallest fold so far; the seed decides among equals. Neither the order of
    the entries nor the Python version changes the fold of a group.

    Args:
        groups: the group of each entry.
        n_folds: number of folds, each of which gets at least one group.
        seed: another seed gives another split.

    Returns:
        The fold of each entry, 0..n_folds-1.

    Raises:
        DatalistError: if there are fewer groups than folds.
    """
    sizes = Counter(groups)
    if not 1 <= n_folds <= len(sizes):
        raise DatalistError(f"cannot make {n_folds} folds from {len(sizes)} groups; give 1 to {len(sizes)} folds")

    def largest_first(group: str) -> tuple[int, bytes]:
        return -sizes[group], hashlib.sha256(f"{seed}:{group}".encode()).digest()

    filled = [0] * n_folds
    fold_of = {}
    for group in sorted(sizes, key=largest_first):
        fold_of[group] = filled.index(min(filled))
        filled[fold_of[group]] += sizes[group]
    return [fold_of[group] for group in groups]


def find_leaks(datalist: Mapping[str, Sequence[Entry]]) -> list[str]:
    """Files and groups that stand in both training and testing, or in two folds: one sentence each."""
    places: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for section in SECTIONS:
        for entry in datalist.get(section, ()):
            place = f"fold {entry.get('fold', 'none')}" if section == "training" else section
            for key in (*FILE_KEYS, "group"):
                if entry.get(key) is not None:
                    name = str(entry[key]) if key == "group" else os.path.normpath(entry[key])
                    places[key, name].add(place)
    return [
        f"{key} {name!r} stands in {' and '.join(sorted(found))}"
        for (key, name), found in places.items()
        if len(found) > 1
    ]


def check_leakage(datalist: Mapping[str, Sequence[Entry]]) -> None:
    """Raise ``DatalistError`` if ``find_leaks`` finds anything."""
    leaks = find_leaks(datalist)
    if leaks:
        raise DatalistError(f"{len(leaks)} leaks between splits; move each to one place: {shorten(leaks)}")


def read_class_names(path: str | Path) -> list[str]:
    """Names of the classes 1..K of a datalist, from its key ``class_names``; none where it has no such key.

    Raises:
        DatalistError: if the file is not a datalist, or its class names are not different texts.
    """
    names = _read_content(path).get("class_names", [])
    if not isinstance(names, list) or any(not isinstance(n, str) for n in names) or len(set(names)) < len(names):
        raise DatalistError(f"{path}: 'class_names' is {str(names)[:80]}; expected a list of different names")
    return names


def read_sections(path: str | Path) -> dict[str, list[Any]]:
    """The sections of a JSON file, entries unchecked."""
    content = _read_content(path)
    return {section: content[section] for section in SECTIONS if section in content}


def _read_content(path: str | Path) -> dict[str, Any]:
    """All of a JSON file whose sections are lists."""
    if is_irregular(path):
        raise DatalistError(f"{path}: {IRREGULAR}")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatalistError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or not any(section in content for section in SECTIONS):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise DatalistError(f"{path}: expected an object with 'training' or 'testing', got {shorten(found)}")
    if "validation" in content:
        raise DatalistError(f"{path}: has a section 'validation'; move its entries to 'training' with a 'fold'")
    for section in SECTIONS:
        if not isinstance(content.get(section, []), list):
            raise DatalistError(f"{path}: {section!r} is {type(content[section]).__name__}; expected a list of entries")
    return content


def resolve_entry(entry: Any, basedir: Path, where: str, require_labels: bool) -> Entry:
    """A checked copy of an entry, with absolute paths; ``where`` names it in errors."""
    if not isinstance(entry, dict):
        raise DatalistError(f"{where} is {type(entry).__name__}; expected an object with 'image' and 'label'")
    fold = entry.get("fold", 0)
    if type(fold) is not int or fold < 0:
        raise DatalistError(f"{where}: 'fold' is {fold!r}; expected a whole number from 0, or no 'fold' at all")
    resolved = dict(entry)
    for key in FILE_KEYS:
        if key == "label" and not require_labels and not entry.get(key):
            resolved.pop(key, None)
            continue
        resolved[key] = path_below(basedir, entry.get(key), f"{where}: {key!r}")
    if isinstance(entry.get("classes"), str):  # a file; else the classes themselves
        resolved["classes"] = path_below(basedir, entry["classes"], f"{where}: 'classes'")
    return resolved


def path_below(basedir: Path, name: Any, where: str) -> str:
    """Absolute path of a file below ``basedir``."""
    if not isinstance(name, str) or not name:
        raise DatalistError(f"{where} is {'missing' if name is None else repr(name)}; expected the path of a file")
    base = Path(os.path.abspath(basedir))  # noqa: PTH100 - Path.resolve would follow symbolic links
    path = Path(os.path.normpath(base / name))
    if base not in path.parents:
        raise DatalistError(f"{where} is {name!r}, which is not below the basedir {base}; give a path relative to it")
    return str(path)


def _check_files(path: str | Path, entries: Sequence[Entry]) -> None:
    missing = [entry[key] for entry in entries for key in FILE_KEYS if key in entry and not Path(entry[key]).exists()]
    if missing:
        raise DatalistError(
            f"{path}: {len(missing)} files are missing; check the basedir, or get the data first: {shorten(missing)}"
        )


def shorten(items: str | Sequence[str]) -> str:
    """The first few items, as text."""
    if isinstance(items, str):
        return items
    return ", ".join(items[:MAX_SHOWN]) + (", ..." if len(items) > MAX_SHOWN else "")
