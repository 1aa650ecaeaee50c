"""What can be saved of an image, under which suffix, and by which function."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ...errors import ConfigError
from ...instances import Instances
from ...io import Image, printable, write_labels, write_overlay, write_preview
from ...io.formats.cellpose_seg import write_cellpose_seg
from ...io.formats.coco import write_coco
from ...io.formats.geojson import write_geojson
from ...io.formats.imagej import write_imagej
from ...io.formats.kaggle import write_kaggle
from ...io.table import check_parquet
from .inputs import Job

PREVIEWS = Path("previews")  # folder of the small pictures of the page
TABLES = ("measurements", "parquet")  # one file for the whole batch
PAGE = "page"


@dataclass(frozen=True)
class Format:
    """One kind of file that an image gets.

    Attributes:
        suffix: follows the base of the job.
        write: takes path, image, instances and job.
        needs_table: whether it shows measurements.
    """

    suffix: str
    write: Callable[[Path, Image, Instances, Job], None]
    needs_table: bool


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "labels": Format(
            "_labels.tif",
            lambda path, image, instances, job: write_labels(path, instances.labels),
            False,
        ),
        "overlay": Format(
            "_overlay.png",
            lambda path, image, instances, job: write_overlay(path, image.data, instances.labels),
            False,
        ),
        "geojson": Format(
            ".geojson",
            lambda path, image, instances, job: write_geojson(path, instances),
            True,
        ),
        "imagej": Format(
            "_rois.zip",
            lambda path, image, instances, job: write_imagej(path, instances),
            False,
        ),
        "coco": Format(
            "_coco.json",
            lambda path, image, instances, job: write_coco(path, instances, file_name=job.name),
            False,
        ),
        "kaggle": Format(
            "_rle.csv",
            lambda path, image, instances, job: write_kaggle(path, instances, image_id=printable(job.base.name)),
            False,
        ),
        "cellpose": Format(
            "_seg.npy",
            lambda path, image, instances, job: write_cellpose_seg(path, instances, file_name=str(job.source)),
            False,
        ),
    }
)
KINDS = (*FORMATS, *TABLES, PAGE)


def check_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """The kinds without repetition, in the order of ``KINDS``.

    Raises:
        ConfigError: for an unknown kind, or none at all.
        DependencyError: if Parquet is wanted and pyarrow is not installed.
    """
    wanted = set(kinds)
    unknown = sorted(wanted - set(KINDS))
    if unknown or not wanted:
        raise ConfigError(f"cannot save {', '.join(unknown) or 'nothing'}; choose from {', '.join(KINDS)}")
    if "parquet" in wanted:
        check_parquet()
    return tuple(kind for kind in KINDS if kind in wanted)


def files_of(job: Job, kinds: Iterable[str]) -> dict[str, Path]:
    """Files of an image relative to the output folder, by kind; ``picture`` and ``outlines`` are the page's."""
    files = {kind: _with_suffix(job.base, FORMATS[kind].suffix) for kind in kinds if kind in FORMATS}
    if PAGE in kinds:
        files["picture"] = PREVIEWS / _with_suffix(job.base, ".jpg")
        files["outlines"] = PREVIEWS / _with_suffix(job.base, "_outlines.png")
    return files


def write_files(folder: Path, files: Mapping[str, Path], image: Image, instances: Instances, job: Job) -> None:
    """Write the files of ``files_of`` below ``folder``; ``labels`` come last, because they say that all is done.

    Raises:
        CellBundleError: if a format cannot hold the instances.
        OSError: if a file cannot be written.
    """
    for path in files.values():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    if "picture" in files:
        write_preview(folder / files["picture"], folder / files["outlines"], image.data, instances.labels)
    for kind in sorted((k for k in files if k in FORMATS), key=lambda k: k == "labels"):
        FORMATS[kind].write(folder / files[kind], image, instances, job)


def _with_suffix(base: Path, suffix: str) -> Path:
    return base.with_name(base.name + suffix)
