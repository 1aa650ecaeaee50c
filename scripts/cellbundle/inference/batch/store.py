"""Results of a batch: what became of each image, the record that lets a later run go on, and the tables of all."""

import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from ...errors import ConfigError
from ...instances import Instances
from ...io import Exif, Image, atomic_path, printable, read_image
from ...io.failures import FAILURES, write_failures
from ...io.ownership import Manifest
from ...io.table import write_csv, write_parquet
from ..segment import Segmentation, measured
from ..sizing import UNSIZED, Size
from .formats import FORMATS, KINDS, PAGE, TABLES, files_of
from .inputs import RECORDS, Job

logger = logging.getLogger(__name__)

IMAGES, MEASUREMENTS = "images.csv", "measurements.csv"
PARQUET = "measurements.parquet"
TABLE_FILES = (MEASUREMENTS, PARQUET, IMAGES, FAILURES)
PAGE_FILE = "index.html"
RUN_FILES = (*TABLE_FILES, PAGE_FILE)  # of all images together
FACTS: Mapping[str, type] = {  # of a record
    "name": str,
    "source": str,
    "fingerprint": list,
    "settings": dict,
    "kinds": list,
    "measured": bool,
    "columns": list,
}
# What reading a damaged record raises: zipfile, zlib and numpy have errors of many kinds.
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError, BadZipFile, zlib.error)
SUMMARISED = ("area", "area_um2", "eccentricity", "solidity", *(f"intensity_mean_{c}" for c in range(3)))


@dataclass(frozen=True)
class Result:
    """What became of one image.

    Attributes:
        job: which.
        files: kind to path relative to the output folder; empty after a failure.
        table: one row an instance; None after a failure.
        seconds: of segmenting and writing it; None if an earlier run did.
        error: one line, or None.
        no_data: sentences about values of the image that stand for no data.
        size: of the cells, and the magnification that was chosen for it.
    """

    job: Job
    files: dict[str, Path]
    table: pd.DataFrame | None
    seconds: float | None = None
    error: str | None = None
    no_data: tuple[str, ...] = ()
    size: Size = UNSIZED


@dataclass(frozen=True)
class Reading:
    """Options of ``cellbundle.io.read_image``."""

    axes: str | None
    max_pixels: int
    join: bool = False
    exif: Exif = "ignore"

    def __call__(self, path: Path) -> Image:
        """Read one image."""
        return read_image(path, axes=self.axes, max_pixels=self.max_pixels, join=self.join, exif=self.exif)


@dataclass(frozen=True)
class Store:
    """The folder of the results, with a record of every finished image below ``.cellbundle``.

    A record says which file was segmented with which settings, and holds the measurements. It is written after all
    files of its image and removed before any of them changes, so an image with a matching record is finished.

    Attributes:
        folder: of the results.
        settings: what decides whether results belong together; as JSON has it.
    """

    folder: Path
    settings: Mapping[str, Any]

    def restore(
        self, jobs: Sequence[Job], kinds: Sequence[str], overwrite: bool = False
    ) -> tuple[dict[Job, Result], list[Result]]:
        """Results of earlier runs with the same settings.

        Args:
            jobs: the images of this run.
            kinds: what is to be saved.
            overwrite: results of other settings or of other images may be replaced.

        Returns:
            Finished images of ``jobs``, and results of other images in the folder.

        Raises:
            ConfigError: if results would be replaced and ``overwrite`` is not set.
        """
        own = {job.base: job for job in jobs}
        done: dict[Job, Result] = {}
        others, conflicts = [], []
        for record in self._records():
            job = own.get(record.job.base)
            if record.settings != self.settings:
                conflicts.append(f"{record.job.name} was made with {_difference(record.settings, self.settings)}")
            elif job is None:
                others.append(record.result)
            elif job.source.resolve() != record.job.source:
                conflicts.append(f"{job.base} is a result of {record.job.source}, not of {job.source}")
            elif record.fingerprint == fingerprint(job) and record.serves(self.folder, kinds):
                done[job] = replace(record.result, job=job, files=files_of(job, kinds))
        if conflicts and not overwrite:
            more = f" ({len(conflicts) - 1} more)" if len(conflicts) > 1 else ""
            raise ConfigError(
                f"{self.folder} holds other results: {conflicts[0]}{more}; choose another --output, or replace them "
                "with --overwrite"
            )
        return done, others

    @cached_property
    def manifest(self) -> Manifest:
        """The files that earlier runs wrote."""
        return Manifest(self.folder, self._recorded_files)

    def _recorded_files(self) -> list[Path]:
        """Files that the records name, and those of all images together if there are any."""
        records = self._records()
        files = [path for record in records for path in files_of(record.job, record.kinds).values()]
        return [*files, *(map(Path, RUN_FILES) if records else ())]

    def check_foreign(self, jobs: Sequence[Job], kinds: Sequence[str]) -> None:
        """Raise ``ConfigError`` if a run would replace files that cellbundle did not write; the message names them.

        Args:
            jobs: the images of the run.
            kinds: what is to be saved.
        """
        self.manifest.check(planned_files(jobs, kinds))

    def claim(self, jobs: Sequence[Job], kinds: Sequence[str]) -> None:
        """List the files that a run is going to write as written by cellbundle."""
        self.manifest.add(planned_files(jobs, kinds))

    def keep(self, result: Result, kinds: Sequence[str]) -> None:
        """Record a finished image."""
        assert result.table is not None
        job = result.job
        facts = {
            "name": job.name,
            "source": str(job.source.resolve()),
            "joined": [path.name for path in job.joined],
            "fingerprint": fingerprint(job),
            "settings": self.settings,
            "kinds": [kind for kind in kinds if kind in FORMATS or kind == PAGE],
            "measured": needs_measurements(kinds),
            "columns": list(result.table.columns),
            "no_data": list(result.no_data),
            "size": list(result.size),
        }
        columns = {f"column_{i}": _plain(result.table[name]) for i, name in enumerate(result.table.columns)}
        path = self._path(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, facts=np.array(json.dumps(facts)), **columns)  # type: ignore[arg-type]

    def forget(self, job: Job) -> None:
        """Remove the record of an image, and with it the claim that its files are right."""
        self._path(job).unlink(missing_ok=True)

    def discard(self, job: Job) -> None:
        """Remove the record of an image and all of its files that cellbundle wrote."""
        self.forget(job)
        self.manifest.remove(files_of(job, KINDS).values())

    def _path(self, job: Job) -> Path:
        return self.folder / RECORDS / job.base.with_name(f"{job.base.name}.npz")

    def _records(self) -> list["Record"]:
        """All records that can be read, in the order of their names."""
        folder = self.folder / RECORDS
        records = []
        for path in sorted(folder.rglob("*.npz")):
            try:
                base = path.relative_to(folder).with_suffix("")
                records.append(Record.read(path, base))
            except DAMAGE:  # the image is segmented again, which replaces the record
                logger.warning("%s is damaged, or no record of cellbundle", path)
        return records


@dataclass(frozen=True)
class Record:
    """A finished image of an earlier run."""

    job: Job
    fingerprint: list[int]
    settings: dict[str, Any]
    kinds: list[str]
    measured: bool
    table: pd.DataFrame
    no_data: tuple[str, ...]
    size: Size

    @classmethod
    def read(cls, path: Path, base: Path) -> "Record":
        """Read a file of ``Store.keep``; raises one of ``DAMAGE`` if it is damaged."""
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            if wrong := [name for name, kind in FACTS.items() if not isinstance(facts[name], kind)]:
                raise ValueError(f"{path}: wrong types of {', '.join(wrong)}")
            if not set(facts["kinds"]) <= set(KINDS) or not all(isinstance(name, str) for name in facts["columns"]):
                raise ValueError(f"{path}: unknown kinds or columns")
            table = pd.DataFrame({name: file[f"column_{i}"] for i, name in enumerate(facts["columns"])})
        source = Path(facts["source"])
        job = Job(source, facts["name"], base, tuple(source.with_name(name) for name in facts.get("joined", [])))
        no_data = tuple(map(str, facts.get("no_data", [])))
        kept = {name: facts[name] for name in ("fingerprint", "settings", "kinds", "measured")}
        return cls(job, **kept, table=table, no_data=no_data, size=Size(*facts.get("size", ())))

    @property
    def result(self) -> Result:
        """The result as it was."""
        return Result(self.job, files_of(self.job, self.kinds), self.table, no_data=self.no_data, size=self.size)

    def serves(self, folder: Path, kinds: Sequence[str]) -> bool:
        """Whether all that is to be saved is there."""
        files = files_of(self.job, kinds).values()
        return (self.measured or not needs_measurements(kinds)) and all((folder / path).is_file() for path in files)


def fingerprint(job: Job) -> list[int]:
    """Size in bytes and time of change in nanoseconds of each file of an image."""
    return [number for path in (job.source, *job.joined) for number in _state(path)]


def _state(path: Path) -> list[int]:
    """Size and time of change; of a folder, their sum and maximum over its files."""
    files = [Path(root) / name for root, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    states = [file.stat() for file in files]
    return [sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0)]


def planned_files(jobs: Sequence[Job], kinds: Sequence[str]) -> list[Path]:
    """Files of a run relative to its folder; ``failures.csv`` is written only if an image fails."""
    wanted = {MEASUREMENTS: "measurements" in kinds, PARQUET: "parquet" in kinds, PAGE_FILE: PAGE in kinds}
    names = [IMAGES, FAILURES, *(name for name, is_wanted in wanted.items() if is_wanted)]
    return [*map(Path, names), *(path for job in jobs for path in files_of(job, kinds).values())]


def write_tables(
    store: Store, results: Sequence[Result], kinds: Sequence[str], failures: Sequence[tuple[str, str]] = ()
) -> None:
    """Write ``images.csv``, ``failures.csv`` (only if there are any) and what ``kinds`` asks for.

    Args:
        store: the folder of the results.
        results: of single images.
        kinds: what is to be saved; tables of earlier runs that are not among them are removed.
        failures: others than those of ``results``: path and reason.
    """
    failed = [*failures, *((result.job.name, result.error) for result in results if result.error is not None)]
    images = [summarise(result) for result in results if result.table is not None]
    rows = _all_rows(results) if set(kinds) & set(TABLES) else None
    tables = {
        IMAGES: pd.DataFrame(images) if images else pd.DataFrame(columns=["image", "cells"]),
        MEASUREMENTS: rows if "measurements" in kinds else None,
        PARQUET: rows if "parquet" in kinds else None,
    }
    for name, table in tables.items():
        if table is None:
            store.manifest.remove([Path(name)])
        else:
            (write_parquet if name == PARQUET else write_csv)(store.folder / name, table)
    if failed:
        write_failures(store.folder, failed)
    else:
        store.manifest.remove([Path(FAILURES)])


def summarise(result: Result) -> dict[str, Any]:
    """Row of ``images.csv``: number of cells, medians of what was measured, and remarks where there are any.

    These are the names of other files of the image, and values that stand for no data. ``diameter`` (pixels, if it
    was given or found) and ``magnification`` are those with which the image was segmented.
    """
    assert result.table is not None
    table = result.table
    medians = {f"{column}_median": table[column].median() for column in SUMMARISED if column in table}
    seconds = None if result.seconds is None else round(result.seconds, 3)
    size = {name: round(value, 2) for name, value in result.size._asdict().items() if value is not None}
    joined = {"joined": "; ".join(printable(path.name) for path in result.job.joined)} if result.job.joined else {}
    no_data = {"no_data": "; ".join(result.no_data)} if result.no_data else {}
    return {"image": result.job.name, "cells": len(table), **medians, **size, "seconds": seconds, **joined, **no_data}


def needs_measurements(kinds: Sequence[str]) -> bool:
    """Whether one of the kinds shows measurements."""
    return any(kind in TABLES or kind == PAGE or FORMATS[kind].needs_table for kind in kinds)


def with_table(found: Segmentation, image: Image, kinds: Sequence[str]) -> Instances:
    """Instances with measurements if something shows them, else only with their ids and any classes.

    Args:
        found: what the bundle found.
        image: what was segmented.
        kinds: what is to be saved.
    """
    if needs_measurements(kinds):
        return measured(found, image.data, image.pixel_size_um)
    table = pd.DataFrame({"label": np.arange(1, found.labels.max(initial=0) + 1)})
    if found.classes is not None:
        table["class"] = np.array(found.classes, object)
    return Instances(found.labels, table, image.pixel_size_um)


def _plain(column: pd.Series) -> NDArray[Any]:
    """Values of a column in a dtype that is stored without pickling."""
    return column.to_numpy() if is_numeric_dtype(column) else column.to_numpy(str)


def _all_rows(results: Sequence[Result]) -> pd.DataFrame:
    """One row a cell of all images, the name of the image first."""
    parts = [r.table.assign(image=r.job.name) for r in results if r.table is not None and len(r.table)]
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["image", "label"])
    rows.insert(0, "image", rows.pop("image"))
    return rows


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {before.get(key)!r}, not {now.get(key)!r}"
        for key in {**now, **before}
        if before.get(key) != now.get(key)
    )
