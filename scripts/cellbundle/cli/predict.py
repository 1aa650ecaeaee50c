"""``cellbundle predict``: images in, results that people look at out."""

import logging
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..addresses import redact_text
from ..errors import ConfigError, first_few, printable

if TYPE_CHECKING:
    from ..inference.batch.run import Batch

logger = logging.getLogger(__name__)

MAX_SHOWN = 5  # label files in the summary
SAVE_HELP = (
    "What to save, separated by commas: labels, overlay, geojson, imagej, coco, kaggle, cellpose, measurements, "
    "parquet, page."
)
DIAMETER_HELP = (
    "Typical diameter of your cells in pixels. auto: found for each image; folder: one for all images, found in some; "
    "none: the bundle's own scale."
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
    diameter: Annotated[str, typer.Option(metavar="auto|folder|none|PIXELS", help=DIAMETER_HELP)] = "auto",
    rescale: Annotated[float | None, typer.Option(help="Magnify by this on top of the bundle's own scale.")] = None,
    stain: Annotated[
        str | None, typer.Option(metavar="auto|none|hematoxylin", help="How stained tissue is read; by default auto.")
    ] = None,
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
    from ..inference.batch.run import Batch, identity  # noqa: PLC0415
    from ..inference.batch.store import Reading, Store  # noqa: PLC0415

    started = time.perf_counter()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is like Ctrl-C
    dropped = {"overlay": no_overlay, "measurements": no_measurements, "page": no_page}
    kinds = check_kinds(k.strip() for k in save.split(",") if k.strip() and not dropped.get(k.strip()))
    options = {
        "bundle": bundle,
        "channels": _indices(channels),
        "diameter": _diameter(diameter),
        "rescale": rescale,
        "stain": stain,
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
    store = Store(output, {**identity(bundle, weights), **options, "axes": axes, **reading})
    command = shlex.join(["cellbundle", *map(redact_text, sys.argv[1:])])
    read = Reading(axes, max_pixels, join_ome, exif)
    batch = Batch(store, kinds, read, options | {"tile": tile, "device": device}, command)
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
    return _report(batch, _other_files(ignored), time.perf_counter() - started)


def _report(batch: "Batch", others: str, seconds: float) -> int:
    """Print a summary; return the exit code."""
    counts = batch.counts()
    text = (
        f"{counts.images} images, {counts.cells} cells, {counts.failed} failed{others and f', {others}'}, "
        f"{seconds:.1f} s\n{batch.output / ('index.html' if 'page' in batch.kinds else '')}"
    )
    typer.echo(printable(text))
    return 1 if counts.failed else 0


def _other_files(ignored: Sequence[Path]) -> str:
    """Files that were left out; those with labels by name, because somebody may miss them."""
    from ..io.folder import is_image  # noqa: PLC0415

    labels = sorted(path.name for path in ignored if is_image(path))
    n_others = len(ignored) - len(labels)
    parts = [f"{n_others} other files ignored"] if n_others else []
    if labels:
        parts.append(f"{len(labels)} label files left out ({first_few(labels, MAX_SHOWN)})")
    return ", ".join(parts)


def _diameter(text: str) -> float | str:
    if text in ("auto", "folder", "none"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--diameter is {text!r}, expected pixels, auto, folder or none") from None


def _indices(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--channels is {text!r}, expected numbers separated by commas, for example 0,2") from None
