"""A run over many images, from finished ones of earlier runs to the page."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ...bundles import describe_bundle, find_bundle
from ...errors import CellBundleError
from ...io import printable
from ...report.page import ImageResult, Run, write_page
from ..predictor import Predictor
from ..sizing import UNSIZED, Size
from .inputs import Job
from .page import image_result, size_bins
from .pipeline import segment_all
from .store import PAGE_FILE, TABLE_FILES, Reading, Result, Store, write_tables

logger = logging.getLogger(__name__)

FOLDER = "folder"  # one diameter for all images
LOOKED_AT = 8  # images in which it is found


class Counts(NamedTuple):
    """Number of images and cells of a run, and of images that failed."""

    images: int
    cells: int
    failed: int


class Batch:
    """One run over many images: take over finished ones, segment the rest, write tables and the page.

    Args:
        store: the folder of the results.
        kinds: what to save.
        read: gives the image of a file.
        options: of ``cellbundle.inference.predictor.Predictor``.
        command: the command line, which the page shows.
    """

    def __init__(
        self, store: Store, kinds: Sequence[str], read: Reading, options: dict[str, Any], command: str
    ) -> None:
        self.store, self.kinds, self.read, self.options, self.command = store, kinds, read, options, command
        self.output = store.folder
        self.results: dict[Job, Result] = {}
        self.others: list[Result] = []
        self.failures: list[tuple[str, str]] = []
        self.predictor: Predictor | None = None
        self.started = datetime.now().astimezone()

    def restore(self, jobs: Sequence[Job], overwrite: bool) -> None:
        """Take over the images that earlier runs finished."""
        self.results, self.others = self.store.restore(jobs, self.kinds, overwrite)
        if self.results:
            logger.info("%d of %d images are finished already", len(self.results), len(jobs))

    def run(self, jobs: Sequence[Job]) -> None:
        """Segment the images that are not finished yet, with a progress bar."""
        todo = [job for job in jobs if job not in self.results]
        if not todo:
            self.store.claim(jobs, self.kinds)
            return
        self.predictor = self._make_predictor(jobs)
        logger.info("tile %d, scale %g", self.predictor.tile, self.predictor.scale)
        results = segment_all(todo, self.store, self.kinds, self.read, self.predictor.segment)
        with logging_redirect_tqdm(), tqdm(total=len(todo), unit="image", disable=None) as bar:
            for result in results:
                self.results[result.job] = result
                if result.error is not None:
                    logger.error("error: %s", result.error)
                elif self.predictor.looks_for_size and (result.size.diameter is None or result.size.magnification != 1):
                    logger.info("%s: %s", result.job.name, result.size)
                bar.update()

    def _make_predictor(self, jobs: Sequence[Job]) -> Predictor:
        """The predictor; for ``diameter`` ``folder``, with that of the first results or of some of the images."""
        if self.options.get("diameter") != FOLDER:
            return Predictor(**self.options)
        predictor = Predictor(**self.options | {"diameter": "auto"})
        sizes = [result.size for result in self.results.values()] or list(self._sizes_of_some(jobs, predictor))
        known = [size.diameter for size in sizes if size.diameter is not None]
        if not known:
            logger.warning("no cells were found that show their size; the bundle's own scale is used")
            return predictor.at_diameter("none")
        diameter = float(np.median(known))
        logger.info("cells of about %.1f px in all images, found in %d of them", diameter, len(known))
        return predictor.at_diameter(diameter)

    def _sizes_of_some(self, jobs: Sequence[Job], predictor: Predictor) -> Iterator[Size]:
        """Sizes of the cells of some of the images; of those that cannot be read, the run says so later."""
        step = -(-len(jobs) // LOOKED_AT)
        for job in jobs[::step]:
            with suppress(CellBundleError, OSError):
                yield predictor.segment(self.read(job.source).data).size

    def write(self, unreadable: Sequence[tuple[Path, str]], n_ignored: int, seconds: float) -> None:
        """Write the tables and the page of all results in the folder."""
        self.failures = [(printable(str(path)), printable(reason)) for path, reason in unreadable]
        for _, reason in self.failures:
            logger.error("error: %s", reason)
        done = sorted([*self.results.values(), *self.others], key=lambda result: result.job.name)
        self.output.mkdir(parents=True, exist_ok=True)
        self.store.claim([result.job for result in done], self.kinds)  # a run that stops early has listed none yet
        write_tables(self.store, done, self.kinds, self.failures)
        if "page" in self.kinds:
            self._write_page(done, n_ignored, seconds)
        else:
            self.store.manifest.remove([Path(PAGE_FILE)])
        self.store.manifest.forget_missing()

    def _write_page(self, done: Sequence[Result], n_ignored: int, seconds: float) -> None:
        column, edges, unit = size_bins(done)
        notes = [f"saved: {', '.join(self.kinds)}"]
        if self.predictor is not None:
            notes.append(f"weights {self.predictor.weights}")
            notes.append(f"tile {self.predictor.tile}, scale {self.predictor.scale:g}")
            if self.predictor.size != UNSIZED:
                notes.append(str(self.predictor.size))
        run = Run(
            title=self.output.resolve().name,
            command=self.command,
            bundle=f"{self.options['bundle']} {self.store.settings['version']}",
            device=str(self.predictor.device) if self.predictor else "none: all images were finished",
            versions=_versions(),
            started=f"{self.started:%Y-%m-%d %H:%M}",
            seconds=seconds,
            size_edges=edges,
            size_unit=unit,
            ignored=n_ignored,
            notes=notes,
            tables=[name for name in TABLE_FILES if (self.output / name).is_file()],
        )
        folders = [ImageResult(name, None, {}, None, None, {}, [], error=reason) for name, reason in self.failures]
        write_page(self.output / PAGE_FILE, run, [*folders, *(image_result(r, column, edges) for r in done)])

    def counts(self) -> Counts:
        """Return the counts of the run, with those of earlier runs that it took over."""
        failed = sum(result.error is not None for result in self.results.values()) + len(self.failures)
        cells = sum(len(result.table) for result in self.results.values() if result.table is not None)
        return Counts(len(self.results), cells, failed)


def identity(bundle: str, weights: Path | None) -> dict[str, Any]:
    """Return what decides whether results belong together: version of the bundle, SHA-256 of its weights."""
    info = describe_bundle(find_bundle(bundle))
    file = weights or info.weights
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file and file.is_file() else None
    return {"version": info.version, "sha256": digest}


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("cellbundle", "torch", "monai", "numpy")}
