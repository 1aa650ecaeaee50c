"""Results of a batch: what became of each image, the tables of all, and what an earlier run left."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import CellBundleError, ConfigError
from ..instances import Instances
from ..io import Image, atomic_path, read_image, read_labels
from ..io.table import write_csv, write_parquet
from ..labels import renumber
from ..predictor import measured
from .jobs import Job
from .outputs import FORMATS, PAGE, TABLES, files_of

SETTINGS = "run.json"
IMAGES, MEASUREMENTS, FAILURES = "images.csv", "measurements.csv", "failures.csv"
PARQUET = "measurements.parquet"
TABLE_FILES = (MEASUREMENTS, PARQUET, IMAGES, FAILURES)
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
    """

    job: Job
    files: dict[str, Path]
    table: pd.DataFrame | None
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Reading:
    """How images are read: axes where files do not say them, and the largest number of pixels."""

    axes: str | None
    max_pixels: int

    def __call__(self, path: Path) -> Image:
        """Read one image."""
        return read_image(path, axes=self.axes, max_pixels=self.max_pixels)


def check_settings(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Refuse to mix results of different settings in one folder.

    Raises:
        ConfigError: if earlier results were made with other settings and ``overwrite`` is not set.
    """
    file = folder / SETTINGS
    if overwrite or not file.is_file():
        return
    try:
        before = json.loads(file.read_text())
    except ValueError:
        before = {}
    changed = [f"{k} {before.get(k)!r} -> {v!r}" for k, v in settings.items() if before.get(k) != v]
    if changed:
        raise ConfigError(
            f"{folder} holds results of other settings ({', '.join(changed)}); choose another --output, "
            "or make all of them anew with --overwrite"
        )


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Remember the settings that a folder's results are made with; the folder is made when needed."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / SETTINGS) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n")


def is_done(job: Job, folder: Path, kinds: Sequence[str]) -> bool:
    """Whether every file of the image is there and not older than the image."""
    files = [folder / path for path in files_of(job, kinds).values()]
    try:
        made = job.source.stat().st_mtime_ns
        return bool(files) and all(path.stat().st_mtime_ns >= made for path in files)
    except OSError:
        return False


def restore(jobs: Sequence[Job], folder: Path, kinds: Sequence[str], read: Reading) -> dict[Job, Result]:
    """Results of the images that an earlier run finished.

    Measurements come from its tables where those are newer than the image's files, else they are taken again from the
    label map.

    Args:
        jobs: all images.
        folder: of the results.
        kinds: what is to be saved.
        read: gives the image of a file.
    """
    tables = _previous_tables(folder) if needs_measurements(kinds) else {}
    written = min((folder / name).stat().st_mtime_ns for name in (IMAGES, MEASUREMENTS)) if tables else 0
    results = {}
    for job in jobs:
        files = files_of(job, kinds)
        if not is_done(job, folder, kinds):
            continue
        table = tables.get(job.name)
        if table is None or any((folder / path).stat().st_mtime_ns > written for path in files.values()):
            if "labels" not in files:
                continue
            try:
                labels = renumber(read_labels(folder / files["labels"]))[0]
                table = with_table(labels, None, read(job.source), kinds).table
            except (CellBundleError, OSError):
                continue  # to be made anew
        results[job] = Result(job, files, table)
    return results


def _previous_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Measurements of an earlier run by the name of the image."""
    try:
        images = pd.read_csv(folder / IMAGES, dtype={"image": str})
        rows = pd.read_csv(folder / MEASUREMENTS, dtype={"image": str})
    except (OSError, ValueError):
        return {}
    parts = {name: part.drop(columns="image").reset_index(drop=True) for name, part in rows.groupby("image")}
    empty = rows.drop(columns="image").iloc[:0]
    tables = {name: parts.get(name, empty) for name in images["image"]}
    counts = dict(zip(images["image"], images["cells"], strict=True))
    return {name: table for name, table in tables.items() if len(table) == counts[name]}


def write_tables(
    folder: Path, results: Sequence[Result], kinds: Sequence[str], failures: Sequence[tuple[str, str]] = ()
) -> None:
    """Write ``images.csv``, ``failures.csv`` (only if there are any) and what ``kinds`` asks for.

    Args:
        folder: of the results.
        results: of single images.
        kinds: what is to be saved.
        failures: others than those of ``results``: path and reason.
    """
    failed = [*failures, *((result.job.name, result.error) for result in results if result.error is not None)]
    if failed:
        write_csv(folder / FAILURES, pd.DataFrame(failed, columns=["image", "reason"]))
    else:
        (folder / FAILURES).unlink(missing_ok=True)
    if any(kind in TABLES for kind in kinds):
        parts = [r.table.assign(image=r.job.name) for r in results if r.table is not None]
        rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["image", "label"])
        rows.insert(0, "image", rows.pop("image"))
        if "measurements" in kinds:
            write_csv(folder / MEASUREMENTS, rows)
        if "parquet" in kinds:
            write_parquet(folder / PARQUET, rows)
    images = [summarise(result) for result in results if result.table is not None]
    write_csv(folder / IMAGES, pd.DataFrame(images) if images else pd.DataFrame(columns=["image", "cells"]))


def summarise(result: Result) -> dict[str, Any]:
    """Row of ``images.csv``: number of cells, and medians of what was measured."""
    assert result.table is not None
    table = result.table
    medians = {f"{column}_median": table[column].median() for column in SUMMARISED if column in table}
    return {
        "image": result.job.name,
        "cells": len(table),
        **medians,
        "seconds": result.seconds and round(result.seconds, 3),
    }


def needs_measurements(kinds: Sequence[str]) -> bool:
    """Whether one of the kinds shows measurements."""
    return any(kind in TABLES or kind == PAGE or FORMATS[kind].needs_table for kind in kinds)


def with_table(
    labels: NDArray[np.int32], scores: NDArray[np.float32] | None, image: Image, kinds: Sequence[str]
) -> Instances:
    """Instances with measurements if something shows them, else only with their ids.

    Args:
        labels: (H, W) int32, ids 1..N.
        scores: (N,) float32, or None.
        image: what was segmented.
        kinds: what is to be saved.
    """
    if needs_measurements(kinds):
        return measured(labels, scores, image.data, image.pixel_size_um)
    ids = np.arange(1, labels.max(initial=0) + 1)
    return Instances(labels, pd.DataFrame({"label": ids}), image.pixel_size_um)
