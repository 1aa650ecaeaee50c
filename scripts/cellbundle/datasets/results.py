"""Write the files that describe a prepared data set: datalists, failures, report and manifest."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..datalists.datalist import SECTIONS
from ..io import atomic_path
from ..io.failures import FAILURES, write_failures
from .convert import Output, Record
from .manifest import MANIFEST, Row, write_manifest
from .model import Item
from .prepared import REPORT, Prepared
from .report import write_report
from .tree import Tree

MAX_SOURCES = 3  # files that a row of the manifest names; of more, the folder


def write_results(prepared: Prepared, tree: Tree) -> None:
    """Write data lists, failures, report and manifest; the manifest last, because it holds the hashes of all others."""
    folder = prepared.folder
    (folder / MANIFEST).unlink(missing_ok=True)
    rows = _file_rows(prepared, tree)
    for name, items in prepared.subsets.items():
        write_datalist(prepared.datalists[name], items, prepared.records)
        n = sum(prepared.records[item.name].instances for item in items)
        rows.append(_row(folder, f"{name}.json", n))
    write_report(folder / REPORT, prepared)
    rows.append(_row(folder, REPORT, prepared.instances))
    if write_failures(folder, [(problem.name, problem.reason) for problem in prepared.problems], "name"):
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
