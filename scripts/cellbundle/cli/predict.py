"""``cellbundle predict``: images in, results that people look at out."""

import logging
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..addresses import redact_text
from ..errors import ConfigError
from ..io import first_few, printable

if TYPE_CHECKING:
    from ..inference.batch.inputs import Job
    from ..inference.batch.store import Reading, Result, Store
    from ..inference.predictor import Predictor

logger = logging.getLogger(__name__)

MAX_SHOWN = 5  # label files in the summary
SAVE_HELP = (
    "What to save, separated by commas: labels, overlay, geojson, imagej, coco, kaggle, cellpose, measurements, "
    "parquet, page."
)


def predict(
    inputs: Annotated[list[Path], typer.Argument(metavar="IMAGES_OR_FOLDER...", help="Images, or folders of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    bundle: Annotated[str, typer.Option(help="Name or folder of a bundle; see `cellbundle list`.")] = "cell_unet",
    save: Annotated[str, typer.Option(help=SAVE_HELP)] = "labels,overlay,measurements,page",
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="No pictures with outlines.")] = False,
    no_measurements: Annotated[bool, typer.Option("--no-measurements", help="No measurements.csv.")] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="No index.html.")] = False,
    channels: Annotated[str | None, typer.Option(help="Channels to use, counted from 0, for example 2 or 0,1.")] = None,
    diameter: Annotated[float | None, typer.Option(help="Typical diameter of your cells in pixels.")] = None,
    rescale: Annotated[float | None, typer.Option(help="Magnify by this on top of the bundle's own scale.")] = None,
    tile: Annotated[int | None, typer.Option(help="Largest tile in pixels, a multiple of 32; automatic.")] = None,
    min_score: Annotated[
        float | None, typer.Option(help="Drop cells of a lower score, 0 to 1; by default the bundle's own.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:N, mps or cpu.")] = "auto",
    axes: Annotated[str | None, typer.Option(help="Axes of files that do not say them, for example CYX.")] = None,
    max_pixels: Annotated[int, typer.Option(help="Refuse larger images before decoding them.")] = 2**30,
    join_ome: Annotated[
        bool, typer.Option("--join-ome", help="Read OME-TIFF files of a folder that hold one image together.")
    ] = False,
    exif: Annotated[
        Literal["ignore", "apply"], typer.Option(help="Whether photographs are turned as their EXIF orientation says.")
    ] = "ignore",
    weights: Annotated[Path | None, typer.Option(help="Checkpoint to use instead of the bundle's own.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of other settings or other images in --output.")
    ] = False,
    replace_foreign: Annotated[
        bool, typer.Option("--replace-foreign", help="Replace files in --output that cellbundle did not write.")
    ] = False,
) -> int:
    """Segment images and measure their cells.

    Every image gets <name>_labels.tif and <name>_overlay.png below --output, in the sub-folder it had; measurements.csv
    has one row for each cell and index.html shows everything. Images that are finished are skipped, so the same command
    goes on after an interruption; failures.csv names images that failed.
    """
    from ..inference.batch.formats import check_kinds  # noqa: PLC0415
    from ..inference.batch.inputs import find_jobs  # noqa: PLC0415
    from ..inference.batch.pipeline import FullDiskError  # noqa: PLC0415
    from ..inference.batch.store import Reading, Store  # noqa: PLC0415

    started = time.perf_counter()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is like Ctrl-C
    dropped = {"overlay": no_overlay, "measurements": no_measurements, "page": no_page}
    kinds = check_kinds(k.strip() for k in save.split(",") if k.strip() and not dropped.get(k.strip()))
    options = {
        "bundle": bundle,
        "channels": _indices(channels),
        "diameter": diameter,
        "rescale": rescale,
        "min_score": min_score,
        "weights": str(weights.resolve()) if weights else None,
    }
    jobs, ignored, unreadable = find_jobs(inputs, output, join_ome)
    if not jobs and not unreadable:
        raise ConfigError(
            f"no images among {', '.join(map(str, inputs))} ({_other_files(ignored) or 'no other files'}); PNG, JPEG, "
            "BMP, TIFF and OME-Zarr are read"
        )
    for job in jobs:
        if job.joined:
            logger.info("%s: joined with %s", job.name, printable(", ".join(path.name for path in job.joined)))
    reading = ({"join_ome": True} if join_ome else {}) | ({"exif": exif} if exif == "apply" else {})
    store = Store(output, {**_identity(bundle, weights), **options, "axes": axes, **reading})
    batch = Batch(store, kinds, Reading(axes, max_pixels, join_ome, exif), options | {"tile": tile, "device": device})
    batch.restore(jobs, overwrite)
    if not replace_foreign:
        store.check_foreign(jobs, kinds)
    try:
        batch.run(jobs)
    finally:
        if batch.results or unreadable:
            # What cannot be written to a full disk must not hide why the run stopped.
            with suppress(OSError) if isinstance(sys.exception(), FullDiskError) else nullcontext():
                batch.write(unreadable, len(ignored), time.perf_counter() - started)
    return batch.report(_other_files(ignored), time.perf_counter() - started)


class Batch:
    """One run of ``cellbundle predict``.

    Args:
        store: the folder of the results.
        kinds: what to save.
        read: gives the image of a file.
        options: of ``cellbundle.inference.predictor.Predictor``.
    """

    def __init__(self, store: "Store", kinds: Sequence[str], read: "Reading", options: dict[str, Any]) -> None:
        self.store, self.kinds, self.read, self.options = store, kinds, read, options
        self.output = store.folder
        self.results: dict[Job, Result] = {}
        self.others: list[Result] = []
        self.failures: list[tuple[str, str]] = []
        self.predictor: Predictor | None = None
        self.started = datetime.now().astimezone()

    def restore(self, jobs: Sequence["Job"], overwrite: bool) -> None:
        """Take over what earlier runs finished."""
        self.results, self.others = self.store.restore(jobs, self.kinds, overwrite)
        if self.results:
            logger.info("%d of %d images are finished already", len(self.results), len(jobs))

    def run(self, jobs: Sequence["Job"]) -> None:
        """Segment what is not finished yet."""
        from tqdm import tqdm  # noqa: PLC0415
        from tqdm.contrib.logging import logging_redirect_tqdm  # noqa: PLC0415

        from ..inference.batch.pipeline import segment_all  # noqa: PLC0415
        from ..inference.predictor import Predictor  # noqa: PLC0415

        todo = [job for job in jobs if job not in self.results]
        if not todo:
            self.store.claim(jobs, self.kinds)
            return
        self.predictor = Predictor(**self.options)
        logger.info("tile %d, magnification %g", self.predictor.tile, self.predictor.scale)
        results = segment_all(todo, self.store, self.kinds, self.read, self.predictor.segment)
        with logging_redirect_tqdm(), tqdm(total=len(todo), unit="image", disable=None) as bar:
            for result in results:
                self.results[result.job] = result
                if result.error is not None:
                    logger.error("error: %s", result.error)
                bar.update()

    def write(self, unreadable: Sequence[tuple[Path, str]], n_ignored: int, seconds: float) -> None:
        """Write the tables and the page of all results in the folder."""
        from ..inference.batch.store import PAGE_FILE, write_tables  # noqa: PLC0415

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

    def _write_page(self, done: Sequence["Result"], n_ignored: int, seconds: float) -> None:
        from ..inference.batch.page import image_result, size_bins  # noqa: PLC0415
        from ..inference.batch.store import PAGE_FILE, TABLE_FILES  # noqa: PLC0415
        from ..report.page import ImageResult, Run, write_page  # noqa: PLC0415

        column, edges, unit = size_bins(done)
        notes = [f"saved: {', '.join(self.kinds)}"]
        if self.predictor is not None:
            notes.append(f"weights {self.predictor.weights}")
            notes.append(f"tile {self.predictor.tile}, magnification {self.predictor.scale:g}")
        run = Run(
            title=self.output.resolve().name,
            command=shlex.join(["cellbundle", *map(redact_text, sys.argv[1:])]),
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

    def report(self, others: str, seconds: float) -> int:
        """Say what was done; return the exit code."""
        failed = sum(r.error is not None for r in self.results.values()) + len(self.failures)
        cells = sum(len(r.table) for r in self.results.values() if r.table is not None)
        text = (
            f"{len(self.results)} images, {cells} cells, {failed} failed{others and f', {others}'}, {seconds:.1f} s\n"
            f"{self.output / ('index.html' if 'page' in self.kinds else '')}"
        )
        typer.echo(printable(text))
        return 1 if failed else 0


def _other_files(ignored: Sequence[Path]) -> str:
    """Files that were left out; those with labels by name, because somebody may miss them."""
    from ..inference.batch.inputs import is_image  # noqa: PLC0415

    labels = sorted(path.name for path in ignored if is_image(path))
    n_others = len(ignored) - len(labels)
    parts = [f"{n_others} other files ignored"] if n_others else []
    if labels:
        parts.append(f"{len(labels)} label files left out ({first_few(labels, MAX_SHOWN)})")
    return ", ".join(parts)


def _indices(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--channels is {text!r}, expected numbers separated by commas, for example 0,2") from None


def _identity(bundle: str, weights: Path | None) -> dict[str, Any]:
    """What decides whether results belong together: version of the bundle, hash of its weights."""
    import hashlib  # noqa: PLC0415

    from ..bundles import describe_bundle, find_bundle  # noqa: PLC0415

    info = describe_bundle(find_bundle(bundle))
    file = weights or info.weights
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file and file.is_file() else None
    return {"version": info.version, "sha256": digest}


def _versions() -> dict[str, str]:
    from importlib.metadata import version  # noqa: PLC0415

    return {name: version(name) for name in ("cellbundle", "torch", "monai", "numpy")}
