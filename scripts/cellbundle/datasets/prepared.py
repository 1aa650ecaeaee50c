"""A prepared data set, and the files that describe it: data lists, failures, report and manifest."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..addresses import redact_text
from ..datalists.datalist import SECTIONS
from ..io import atomic_path
from ..io.table import write_rows
from .convert import IMAGES, LABELS, Output, Record
from .facts import Facts
from .manifest import MANIFEST, Row, write_manifest
from .model import Item, Problem
from .tree import Tree

FAILURES, REPORT = "failures.csv", "report.html"
MAX_SOURCES = 3  # files that a row of the manifest names; of more, the folder


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
        facts: of the data set.
        variant: that was found.
        folder: of the results.
        items: that were converted, sorted by name, with sections and folds.
        records: of these items, by name.
        problems: what could not be converted.
        remarks: what is odd.
        leaks: groups and images that stand in two folds or in training and testing.
    """

    facts: Facts
    variant: str
    folder: Path
    items: list[Item]
    records: dict[str, Record]
    problems: list[Problem]
    remarks: list[str]
    leaks: list[str]

    @property
    def subsets(self) -> dict[str, list[Item]]:
        """Items of each list by its name: all first; of each subset, if there are more than one."""
        return find_subsets(self.facts.name, self.items)

    @property
    def datalists(self) -> dict[str, Path]:
        """Path of each list by its name."""
        return {name: self.folder / f"{name}.json" for name in self.subsets}

    def counts(self) -> list[tuple[str, int, int, int]]:
        """Number of images, groups and instances of each fold, of testing, and of all."""
        places: dict[str, list[Item]] = {}
        for item in sorted(self.items, key=lambda item: (item.section == "testing", item.fold or 0)):
            places.setdefault(f"fold {item.fold}" if item.section == "training" else "testing", []).append(item)
        places["all"] = self.items
        return [
            (place, len(items), len({item.group for item in items}), sum(self.records[i.name].instances for i in items))
            for place, items in places.items()
        ]

    @property
    def instances(self) -> int:
        """Number of instances of all images."""
        return sum(record.instances for record in self.records.values())


def find_subsets(dataset: str, items: Sequence[Item]) -> dict[str, list[Item]]:
    """Items of each list by its name: all first; of each subset, if there are more than one."""
    subsets = sorted({subset for item in items for subset in item.subsets})
    parts = {f"{dataset}_{s}": [item for item in items if s in item.subsets] for s in subsets}
    return {dataset: list(items)} | (parts if len(subsets) > 1 else {})


def common_files(dataset: str) -> list[Path]:
    """Files of every preparation of a data set, relative to its folder; failures are written only if there are any."""
    return [Path(name) for name in (f"{dataset}.json", REPORT, FAILURES, MANIFEST)]


def planned_files(dataset: str, items: Sequence[Item]) -> list[Path]:
    """Files that a preparation may write, relative to its folder: an image is copied as it is, or written as TIFF."""
    files = [*common_files(dataset), *(Path(f"{name}.json") for name in find_subsets(dataset, items))]
    for item in items:
        suffixes = dict.fromkeys([item.image.suffix.lower(), ".tif"])
        files += [Path(IMAGES, f"{item.name}{suffix}") for suffix in suffixes]
        files.append(Path(LABELS, f"{item.name}.tif"))
    return files


def write_results(prepared: Prepared, tree: Tree) -> None:
    """Write data lists, failures, report and manifest; the manifest last, because it holds the hashes of all others."""
    from .report import write_report  # noqa: PLC0415 - it needs the class above

    folder = prepared.folder
    (folder / MANIFEST).unlink(missing_ok=True)
    rows = _file_rows(prepared, tree)
    for name, items in prepared.subsets.items():
        write_datalist(prepared.datalists[name], items, prepared.records)
        n = sum(prepared.records[item.name].instances for item in items)
        rows.append(_row(folder, f"{name}.json", n))
    write_report(folder / REPORT, prepared)
    rows.append(_row(folder, REPORT, prepared.instances))
    if _write_failures(folder / FAILURES, prepared.problems):
        rows.append(_row(folder, FAILURES))
    write_manifest(folder, rows)


def write_datalist(path: Path, items: Sequence[Item], records: dict[str, Record]) -> None:
    """Write a list that every bundle reads, sorted by name, with paths relative to its folder.

    Args:
        path: the JSON file to write.
        items: with sections and folds.
        records: files of each item, by name.
    """
    content: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
    for item in sorted(items, key=lambda item: item.name):
        record = records[item.name]
        entry: dict[str, Any] = {"image": record.image.path, "label": record.label.path}
        if item.section == "training":
            entry["fold"] = item.fold
        content[str(item.section)].append(entry | {"group": item.group})
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _file_rows(prepared: Prepared, tree: Tree) -> list[Row]:
    """Rows of the manifest for images and label maps."""
    published = {path: name for name, path in tree.files.items()}
    rows = []
    for item in prepared.items:
        record = prepared.records[item.name]
        for output, paths, n in ((record.image, [item.image], None), (record.label, item.labels, record.instances)):
            names = [published.get(path, path.name) for path in paths]
            rows.append(Row(output.path, _in_short(names), output.bytes, output.sha256, *record.shape, n))
    return rows


def _in_short(names: Sequence[str]) -> str:
    """Names of a few files; of many, their folder and how many."""
    if len(names) <= MAX_SOURCES:
        return ";".join(names)
    return f"{names[0].rpartition('/')[0]}/ ({len(names)} files)"


def _row(folder: Path, name: str, instances: int | None = None) -> Row:
    """Row of the manifest for a list, the report or the failures."""
    output = Output.of(folder, name)
    return Row(output.path, "", output.bytes, output.sha256, instances=instances)


def _write_failures(path: Path, problems: Sequence[Problem]) -> bool:
    """Write the table of what could not be converted; none and False, if nothing failed."""
    if not problems:
        path.unlink(missing_ok=True)
        return False
    write_rows(path, ("name", "reason"), ((problem.name, redact_text(problem.reason)) for problem in problems))
    return True
