"""``cellbundle predict``: images in, results that people look at out."""

import logging
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..batch.jobs import Job
    from ..batch.results import Reading, Result
    from ..predictor import Predictor

logger = logging.getLogger(__name__)

SAVE_HELP = (
    "What to save, separated by commas: labels, overlay, geojson, imagej, coco, kaggle, cellpose, measurements, "
    "parquet, page."
)


def predict(
    inputs: Annotated[list[Path], typer.Argument(metavar="IMAGES_OR_FOLDER...", help="Images, or folders of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    bundle: Annotated[str, typer.Option(help="Name or folder of a bundle; see `cellbundle list`.")] = "cell_unet",
    save: Annotated[str, typer.Option(help=SAVE_HELP)] = "labels,overlay,measurements,page",
    overlay: Annotated[bool, typer.Option("--overlay/--no-overlay", help="Pictures with outlines.")] = True,
    measurements: Annotated[
        bool, typer.Option("--measurements/--no-measurements", help="measurements.csv, one row a cell.")
    ] = True,
    page: Annotated[bool, typer.Option("--page/--no-page", help="index.html with all images.")] = True,
    channels: Annotated[str | None, typer.Option(help="Channels to use, counted from 0, for example 2 or 0,1.")] = None,
    diameter: Annotated[float | None, typer.Option(help="Typical diameter of your cells in pixels.")] = None,
    rescale: Annotated[float | None, typer.Option(help="Magnify by this on top of the bundle's own scale.")] = None,
    tile: Annotated[int | None, typer.Option(help="Largest tile in pixels, a multiple of 32; automatic.")] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:N, mps or cpu.")] = "auto",
    axes: Annotated[str | None, typer.Option(help="Axes of files that do not say them, for example CYX.")] = None,
    max_pixels: Annotated[int, typer.Option(help="Refuse larger images before decoding them.")] = 2**30,
    weights: Annotated[Path | None, typer.Option(help="Checkpoint to use instead of the bundle's own.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make all results anew.")] = False,
) -> int:
    """Segment images and measure their cells.

    Every image gets <name>_labels.tif and <name>_overlay.png below --output, in the sub-folder it had; measurements.csv
    has one row for each cell and index.html shows everything. Images that are finished are skipped, so the same command
    goes on after an interruption; failures.csv names images that failed.
    """
    from ..batch.jobs import find_jobs  # noqa: PLC0415
    from ..batch.outputs import check_kinds  # noqa: PLC0415
    from ..batch.pipeline import FullDiskError  # noqa: PLC0415
    from ..batch.results import Reading, check_settings  # noqa: PLC0415

    started = time.perf_counter()
    _log_to_stderr()
    dropped = {"overlay": overlay, "measurements": measurements, "page": page}
    kinds = check_kinds(k.strip() for k in save.split(",") if k.strip() and dropped.get(k.strip(), True))
    options = {
        "bundle": bundle,
        "channels": _indices(channels),
        "diameter": diameter,
        "rescale": rescale,
        "weights": str(weights.resolve()) if weights else None,
    }
    jobs, ignored, unreadable = find_jobs(inputs, output)
    if not jobs and not unreadable:
        raise ConfigError(
            f"no images among {', '.join(map(str, inputs))} ({len(ignored)} other files); PNG, JPEG, BMP, TIFF and "
            "OME-Zarr are read"
        )
    settings = {**_identity(bundle, weights), **options, "axes": axes}
    check_settings(output, settings, overwrite)
    batch = Batch(output, kinds, Reading(axes, max_pixels), options | {"tile": tile, "device": device})
    try:
        batch.run(jobs, settings, overwrite)
    finally:
        if batch.results or unreadable:
            # What cannot be written to a full disk must not hide why the run stopped.
            with suppress(OSError) if isinstance(sys.exception(), FullDiskError) else nullcontext():
                batch.write(jobs, unreadable, len(ignored), time.perf_counter() - started)
    return batch.report(len(ignored), time.perf_counter() - started)


class Batch:
    """One run of ``cellbundle predict``.

    Args:
        output: folder of the results.
        kinds: what to save.
        read: gives the image of a file.
        options: of ``cellbundle.predictor.Predictor``.
    """

    def __init__(self, output: Path, kinds: Sequence[str], read: "Reading", options: dict[str, Any]) -> None:
        self.output, self.kinds, self.read, self.options = output, kinds, read, options
        self.results: dict[Job, Result] = {}
        self.failures: list[tuple[str, str]] = []
        self.predictor: Predictor | None = None
        self.started = datetime.now().astimezone()

    def run(self, jobs: Sequence["Job"], settings: dict[str, Any], overwrite: bool) -> None:
        """Segment what is not finished yet, or everything.

        Args:
            jobs: all images.
            settings: to be remembered with the results.
            overwrite: make finished images anew.
        """
        from tqdm import tqdm  # noqa: PLC0415
        from tqdm.contrib.logging import logging_redirect_tqdm  # noqa: PLC0415

        from ..batch.pipeline import segment_all  # noqa: PLC0415
        from ..batch.results import restore, write_settings  # noqa: PLC0415
        from ..predictor import Predictor  # noqa: PLC0415

        if not overwrite:
            self.results = restore(jobs, self.output, self.kinds, self.read)
        todo = [job for job in jobs if job not in self.results]
        if self.results:
            logger.info("%d of %d images are finished already", len(self.results), len(jobs))
        if not todo:
            return
        self.predictor = Predictor(**self.options)
        write_settings(self.output, settings)
        logger.info("tile %d, magnification %g", self.predictor.tile, self.predictor.scale)
        results = segment_all(todo, self.output, self.kinds, self.read, self.predictor.segment)
        with logging_redirect_tqdm(), tqdm(total=len(todo), unit="image", disable=None) as bar:
            for result in results:
                self.results[result.job] = result
                if result.error is not None:
                    logger.error("error: %s", result.error)
                bar.update()

    def write(
        self, jobs: Sequence["Job"], unreadable: Sequence[tuple[Path, str]], n_ignored: int, seconds: float
    ) -> None:
        """Write the tables and the page of all that is done so far."""
        from ..batch.results import write_tables  # noqa: PLC0415

        self.failures = [(str(path), reason) for path, reason in unreadable]
        for _, reason in unreadable:
            logger.error("error: %s", reason)
        done = [self.results[job] for job in jobs if job in self.results]
        self.output.mkdir(parents=True, exist_ok=True)
        write_tables(self.output, done, self.kinds, self.failures)
        if "page" in self.kinds:
            self._write_page(done, n_ignored, seconds)

    def _write_page(self, done: Sequence["Result"], n_ignored: int, seconds: float) -> None:
        from ..batch.results import TABLE_FILES  # noqa: PLC0415
        from ..report.page import ImageResult, Run, write_page  # noqa: PLC0415
        from ..report.results import image_result, size_bins  # noqa: PLC0415

        column, edges, unit = size_bins(done)
        notes = [f"saved: {', '.join(self.kinds)}"]
        if self.predictor is not None:
            notes.append(f"tile {self.predictor.tile}, magnification {self.predictor.scale:g}")
        run = Run(
            title=self.output.resolve().name,
            command=shlex.join(["cellbundle", *sys.argv[1:]]),
            bundle=str(self.options["bundle"]),
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
        write_page(self.output / "index.html", run, [*folders, *(image_result(r, column, edges) for r in done)])

    def report(self, n_ignored: int, seconds: float) -> int:
        """Say what was done; return the exit code."""
        failed = sum(r.error is not None for r in self.results.values()) + len(self.failures)
        cells = sum(len(r.table) for r in self.results.values() if r.table is not None)
        ignored = f", {n_ignored} other files ignored" if n_ignored else ""
        typer.echo(
            f"{len(self.results)} images, {cells} cells, {failed} failed{ignored}, {seconds:.1f} s\n"
            f"{self.output / ('index.html' if 'page' in self.kinds else '')}"
        )
        return 1 if failed else 0


def _log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger(__package__.partition(".")[0]).setLevel(logging.INFO)


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
