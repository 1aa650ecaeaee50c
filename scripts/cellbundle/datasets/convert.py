"""One item to its two files; what is known about them; and the journal that lets a later run go on."""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..datalists.inspect import pixel_digest, remark_on_cut_ids, remark_on_regions
from ..errors import CellBundleError, DatasetError
from ..instances.labels import renumber
from ..instances.measure import equivalent_diameters
from ..io import Image, atomic_path, read_image, write_image, write_labels
from ..io.images.no_data import sentences
from ..io.images.orientation import remark_on_orientation, turn
from ..io.regular import IRREGULAR, is_irregular
from ..io.sealed import seal, unseal
from ..kernels.geometry import boxes_and_areas
from .model import DatasetModule, Item, Problem, Sample

FORM = 1  # of the conversion: another number makes every image anew
IMAGES, LABELS = "images", "labels"
SIZE_EDGES = 2 ** (np.arange(41) / 4)  # diameters in pixels between which sizes are counted: 1, 1.2, 1.4, ... 1024
HASH_BLOCK = 1 << 20


@dataclass(frozen=True)
class Output:
    """A file that was written: path relative to the folder of results, size and hash."""

    path: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, folder: Path, path: str) -> "Output":
        """Facts of a file as it is now."""
        return cls(path, (folder / path).stat().st_size, file_hash(folder / path))

    def is_there(self, folder: Path) -> bool:
        """Whether the file still has the same content."""
        path = folder / self.path
        try:
            return path.stat().st_size == self.bytes and file_hash(path) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class Record:
    """What became of an item.

    Attributes:
        name: of the item.
        key: hash of what it was made from.
        image: file in ``images``.
        label: file in ``labels``.
        shape: (H, W).
        instances: number of them.
        sizes: number of instances by diameter of a disc of their area, between ``SIZE_EDGES``.
        digest: hash of the pixels of the image; None if they all have one value.
        remarks: what is odd.
    """

    name: str
    key: str
    image: Output
    label: Output
    shape: tuple[int, int]
    instances: int
    sizes: list[int]
    digest: str | None
    remarks: list[str]

    @classmethod
    def from_json(cls, line: str | bytes) -> "Record":
        """A line of the journal; ``ValueError``, ``KeyError`` or ``TypeError`` if it is damaged."""
        content = unseal(line, required=False)
        files = {key: Output(**content[key]) for key in ("image", "label")}
        record = cls(**content | files | {"shape": tuple(content["shape"])})
        if not record.is_sound():
            raise ValueError("has values of wrong types")
        return record

    def is_sound(self) -> bool:
        """Whether all values have their types, which JSON does not ensure."""
        texts: list[object] = [self.name, self.key, "" if self.digest is None else self.digest, *self.remarks]
        numbers: list[object] = [self.instances, *self.shape, *self.sizes]
        for file in (self.image, self.label):
            texts += [file.path, file.sha256]
            numbers.append(file.bytes)
        return (
            (len(self.shape), len(self.sizes)) == (2, len(SIZE_EDGES) - 1)
            and isinstance(self.remarks, list)
            and all(isinstance(text, str) and "\0" not in text for text in texts)
            and all(isinstance(number, int) and number >= 0 for number in numbers)
        )

    def to_json(self) -> str:
        """The line of the journal."""
        return json.dumps(seal(asdict(self)))


def load_module(name: str) -> DatasetModule:
    """Functions of a data set."""
    return cast(DatasetModule, import_module(f"{__package__}.sets.{name}"))


def convert_item(dataset: str, item: Item, key: str, options: Mapping[str, Any], output: Path) -> Record | Problem:
    """Convert an item and write its files, each of which is whole or not there.

    Args:
        dataset: name of the data set.
        item: what to convert.
        key: as ``item_key`` gives it.
        options: of the data set.
        output: folder with ``images`` and ``labels``.

    Returns:
        What was written, or why nothing could be.

    Raises:
        DatasetError: if there is no space left: then the other items cannot be written either.
    """
    try:
        return _write(item, load_module(dataset).convert(item, options), key, output)
    except (CellBundleError, OSError, ValueError, KeyError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DatasetError(f"{output}: no space left; make room, and the same command goes on") from error
        return Problem(item.name, " ".join(str(error).split()) or type(error).__name__)


def item_key(dataset: str, item: Item, options: Mapping[str, Any]) -> str:
    """Hash of what an item is made from: its files by size and time, its details and the options."""
    states = [path.stat() for path in (item.image, *item.labels)]
    made_from = [
        FORM,
        dataset,
        item.name,
        dict(item.detail),
        dict(options),
        [[s.st_size, s.st_mtime_ns] for s in states],
    ]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file; raises ``OSError`` if it is none, or cannot be read."""
    if is_irregular(path):
        raise OSError(errno.EINVAL, IRREGULAR, str(path))
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_journal(path: Path) -> dict[str, Record]:
    """The last record of each name; torn and damaged lines are left out."""
    records = {}
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            record = Record.from_json(line)
        except (ValueError, KeyError, TypeError):
            continue
        records[record.name] = record
    return records


def _write(item: Item, sample: Sample, key: str, output: Path) -> Record:
    suffix = sample.image.suffix.lower() if isinstance(sample.image, Path) else ".tif"
    image, label = f"{IMAGES}/{item.name}{suffix}", f"{LABELS}/{item.name}.tif"
    with atomic_path(output / image) as temporary:
        if isinstance(sample.image, Path):
            picture = read_image(sample.image)  # before it is copied, so that an error names the published file
            shutil.copyfile(sample.image, temporary)
        else:
            write_image(temporary, sample.image)
            picture = read_image(temporary)
        data = picture.data
        labels, n = renumber(sample.labels)
        if data.shape[1:] != labels.shape:
            sizes = ["x".join(map(str, shape)) for shape in (data.shape[1:], labels.shape)]
            raise DatasetError(
                f"{item.name}: the image is {sizes[0]} and its labels are {sizes[1]}; one belongs elsewhere"
                f"{_turned_size(picture, labels)}"
            )
        write_labels(output / label, labels)
    diameters = equivalent_diameters(boxes_and_areas(labels, n)[1])
    return Record(
        name=item.name,
        key=key,
        image=Output.of(output, image),
        label=Output.of(output, label),
        shape=labels.shape,
        instances=n,
        sizes=np.histogram(diameters, SIZE_EDGES)[0].tolist(),
        digest=pixel_digest(data),
        remarks=[*sample.remarks, *_remarks(picture, sample.labels, labels, n)],
    )


def _turned_size(picture: Image, labels: NDArray) -> str:
    """A hint if the labels have the size of the turned image."""
    fits = turn(picture.data[0], picture.orientation).shape == labels.shape
    return f", or the option exif=apply is needed (EXIF orientation {picture.orientation})" if fits else ""


def _remarks(picture: Image, stored: NDArray, labels: NDArray[np.int32], n: int) -> list[str]:
    """Sentences about what is odd in an image and its labels, as they were stored and with the ids 1..n."""
    turned = remark_on_orientation(picture.data, labels, picture.orientation, applied=False)
    odd = [turned, remark_on_cut_ids(stored, labels, n), remark_on_regions(labels, n)]
    return [
        *sentences(picture.no_data, picture.data),
        *(one for one in odd if one),
        *([] if n else ["has no instance"]),
    ]


def all_sizes(records: Iterable[Record]) -> list[int]:
    """Number of instances of all records by size."""
    total = np.zeros(len(SIZE_EDGES) - 1, np.int64)
    for record in records:
        total += record.sizes
    return total.tolist()
