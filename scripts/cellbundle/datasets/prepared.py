"""A prepared data set and the names of its files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..io.failures import FAILURES
from .convert import IMAGES, LABELS, Record
from .facts import Facts
from .manifest import MANIFEST
from .model import Item, Problem

REPORT = "report.html"


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
