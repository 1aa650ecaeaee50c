"""Request and response types of a worker, and the formats of answers."""

import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import imagecodecs
import numpy as np
from PIL import Image as Picture

from ...instances import Instances
from ...io import Image, atomic_path, write_labels
from ...io.formats.geojson import write_geojson
from ...io.overlay import JPEG_QUALITY, to_picture
from ..masks import write_mask

if TYPE_CHECKING:
    from ...inference.segment import Segmentation

Format = Literal["json", "geojson", "tiff", "png", "preview", "mask"]
MEDIA_TYPES = {
    "json": "application/json",
    "geojson": "application/geo+json",
    "tiff": "image/tiff",
    "png": "image/png",
    "preview": "image/jpeg",
}
PREVIEW_SIDE = 4096  # pixels; browsers show no much larger pictures
MOST_IN_PNG = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Job:
    """A request without HTTP.

    Attributes:
        image: the file to read; for a mask, absolute and without links.
        bundle: which bundle, by the name under which it is served.
        format: of the answer; ``"mask"`` writes a binary mask to ``output``.
        output: a file that may be written; its folder exists. For a mask, absolute and without links.
        diameter: typical diameter of the cells in pixels, ``auto`` or ``none``, see ``inference.predictor.Predictor``.
        replace_foreign: a mask that the service did not write may be replaced.
    """

    image: Path
    bundle: str
    format: Format
    output: Path
    diameter: float | Literal["auto", "none"] = "auto"
    replace_foreign: bool = False


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        cells: number of cells.
        seconds: of reading, segmenting and writing.
        body: the answer in its format; empty for a mask, which is a file.
        size: height and width of the image.
        diameter: typical diameter of the cells in pixels, if it was given or found.
        magnification: of the image on top of the bundle's own scale.
    """

    cells: int
    seconds: float
    body: bytes = field(default=b"", repr=False)
    size: tuple[int, int] = (0, 0)
    diameter: float | None = None
    magnification: float = 1.0


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer, without any path.

    Attributes:
        status: of HTTP.
        code: short, for programs.
        message: for people.
        note: for the log.
    """

    status: int
    code: str
    message: str
    note: str = ""


def place(error: BaseException) -> str:
    """What was raised and where, for the log: without the message, which may hold a path."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = ", ".join(f"{Path(frame.filename).stem}:{frame.lineno}" for frame in frames[-3:])
    return f"{type(error).__name__} at {lines}"


def answer(job: Job, image: Image, found: "Segmentation", started: float) -> Answer | Refusal:
    """Put what was found into the format that was asked for.

    Args:
        job: what was asked.
        image: what was segmented.
        found: what the bundle found.
        started: value of ``time.perf_counter`` when the work began.

    Raises:
        OSError: if a file cannot be written.
    """
    cells = int(found.labels.max(initial=0))
    if job.format == "png" and cells > MOST_IN_PNG:
        return Refusal(
            422, "too_many_cells", f"{cells} cells do not fit into a PNG, which has {MOST_IN_PNG} ids; ask for tiff"
        )
    body = b""
    if job.format == "json":
        body = measurements(job, image, found, started)
    elif job.format == "mask":
        write_mask(job.output, found.labels > 0, job.replace_foreign)
    else:
        WRITERS[job.format](job.output, image, found)
        body = job.output.read_bytes()
    return Answer(cells, perf_counter() - started, body, found.labels.shape, *found.size)


def preview(image: Image, started: float) -> Answer:
    """The image as a JPEG with the contrast of our pictures, for browsers, which show no TIFF; nothing is segmented."""
    size: tuple[int, int] = image.data.shape[1:]
    step = -(-max(size) // PREVIEW_SIDE)
    body = bytes(imagecodecs.jpeg8_encode(to_picture(image.data[:, ::step, ::step]), level=JPEG_QUALITY))
    return Answer(0, perf_counter() - started, body, size)


def measurements(job: Job, image: Image, found: "Segmentation", started: float) -> bytes:
    """One record a cell as JSON; what could not be measured is null."""
    table = _instances(image, found).table.replace([np.inf, -np.inf], np.nan).astype(object)
    document = {
        "n": len(table),
        "size": list(found.labels.shape),
        "bundle": job.bundle,
        "diameter": found.size.diameter,
        "magnification": found.size.magnification,
        "seconds": round(perf_counter() - started, 4),
        "measurements": table.where(table.notna(), None).to_dict("records"),
    }
    return json.dumps(document, allow_nan=False).encode()


def write_png(path: Path, image: Image, found: "Segmentation") -> None:
    """Write ids up to 65535 as a 16-bit PNG."""
    with atomic_path(path) as temporary:
        Picture.fromarray(found.labels.astype(np.uint16)).save(temporary, "PNG")


def write_tiff(path: Path, image: Image, found: "Segmentation") -> None:
    """Write ids as a TIFF of 16 or 32 bits."""
    write_labels(path, found.labels)


def write_outlines(path: Path, image: Image, found: "Segmentation") -> None:
    """Write outlines with measurements as GeoJSON."""
    write_geojson(path, _instances(image, found))


WRITERS: dict[str, Callable[[Path, Image, Any], None]] = {
    "geojson": write_outlines,
    "tiff": write_tiff,
    "png": write_png,
}


def _instances(image: Image, found: "Segmentation") -> Instances:
    from ...inference.segment import measured  # noqa: PLC0415  (the service itself does without PyTorch)

    return measured(found, image.data, image.pixel_size_um)
