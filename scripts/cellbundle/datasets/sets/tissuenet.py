"""TissueNet: nuclear and membrane channel of multiplexed tissue images, with whole cells and nuclei labelled.

Published as one .npz file for all images of train (512 x 512), of val and of test (256 x 256). The channels of images
are nucleus and membrane, those of labels the other way round: whole cell and nucleus. In 1.0 the values are counts
divided by a scale of about 16384 that each channel of each image has for itself. 1.0 lists tissue and platform, 1.1 has
a table.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DatasetError, LabelReadError
from ..model import Found, Item, Problem, Sample, Section
from ..npz import map_array, read_array, unpack_arrays
from ..splits import beside_validation as split
from ..tree import Tree

__all__ = ["convert", "locate", "split"]

TILE = 256  # size of the images of val and test, and of the tiles that train is cut into
SIZES = {"train": 2 * TILE, "val": TILE, "test": TILE}
PLACES: dict[str, tuple[Section, int | None]] = {"val": ("training", 0), "test": ("testing", None)}
COMPARTMENTS = {"whole_cell": 0, "nucleus": 1}  # channel of the labels
MAX_SCALE = 16384
PROBES = 16  # values that a scale is tried on before it is tried on all

PLATFORMS = {"codex", "cycif", "imc", "mibi", "mxif", "vectra"}
UNKNOWN = "unknown"
# 1.1 names specimens; 1.0 has them in these groups. Others have the same name in both.
TISSUES = {
    "colon": "gi",
    "esophagus": "gi",
    "epidermis": "skin",
    "lymph-node": "immune",
    "spleen": "immune",
    "tonsil": "immune",
}


def locate(tree: Tree, variant: str, options: Mapping[str, Any], work: Path) -> Found:
    """Make the arrays files of their own in ``work``, and list their images and tiles; see ``DatasetModule``."""
    if options["compartment"] not in COMPARTMENTS:
        raise ConfigError(f"compartment is {options['compartment']!r}; choose one of: {', '.join(COMPARTMENTS)}")
    found = Found()
    for part in SIZES:
        file = f"tissuenet_v{variant}_{part}.npz"
        names = tree.glob(file)
        if len(names) == 1:
            items, remarks = _list_part(tree.files[names[0]], part, work)
            found.items += items
            found.remarks += remarks
        else:
            reason = f"is there as {', '.join(names)}; keep one" if names else "is missing; the data set needs it"
            found.problems.append(Problem(file, reason))
    if not found.items:
        raise DatasetError(f"{tree.root}: {found.problems[0].name} {found.problems[0].reason}")
    return found


def convert(item: Item, options: Mapping[str, Any]) -> Sample:
    """Cut a tile; counts become uint16 with the scale of the whole image, other values stay; see ``DatasetModule``."""
    images, labels = (map_array(Path(item.detail[key]), item.image) for key in ("X", "y"))
    image = np.array(images[item.detail["index"]], np.float32)
    stored = np.array(labels[item.detail["index"], ..., COMPARTMENTS[options["compartment"]]])
    ids = stored.astype(np.int32)
    if (ids != stored).any() or ids.min() < 0:
        raise LabelReadError(f"{item.image}: labels of image {item.detail['index']} are not whole numbers from 0")
    counts = [to_counts(channel) for channel in np.moveaxis(image, -1, 0)]
    channels = [channel for channel in counts if channel is not None]
    planes = np.stack(channels) if len(channels) == len(counts) else np.moveaxis(image, -1, 0)
    planes = np.concatenate([planes, np.zeros_like(planes[:1])])  # three channels, as networks take them
    top, left = (TILE * place for place in divmod(item.detail["tile"], 2))
    window = (slice(top, top + TILE), slice(left, left + TILE))
    return Sample(np.ascontiguousarray(planes[:, *window]), ids[window])


def to_counts(channel: NDArray[np.float32]) -> NDArray[np.uint16] | None:
    """The counts of which a channel holds fractions of a scale.

    The scale is the largest of 1..16384 whose counts, divided by it again, are exactly the channel. Several fit where
    there are few values; with the largest, the counts compare with those of other channels. Values above 1 have to be
    counts themselves.

    Args:
        channel: (H, W), 0 and more.

    Returns:
        (H, W), or None if there is no such scale.
    """
    values = np.unique(channel)
    if not (values[0] >= 0 and values[-1] <= np.iinfo(np.uint16).max):  # written so that NaN fails
        return None
    scales = np.arange(1, MAX_SCALE + 1) if values[-1] <= 1 else np.array([1])
    for value in values[:: -(-len(values) // PROBES)]:
        scales = scales[_round_trip(value, scales) == value]
    for scale in scales[::-1]:
        if (_round_trip(values, scale) == values).all():
            return np.rint(channel * np.float64(scale)).astype(np.uint16)
    return None


def _round_trip(values: NDArray, scales: NDArray) -> NDArray[np.float32]:
    """Values of the nearest counts; in double precision, rounded once to single, as they were published."""
    return (np.rint(values.astype(np.float64) * scales) / scales).astype(np.float32)


def _list_part(path: Path, part: str, work: Path) -> tuple[list[Item], list[str]]:
    """Items and remarks of one file."""
    files = dict(zip("Xy", unpack_arrays(path, "Xy", work), strict=True))
    images, labels = (map_array(file, path) for file in files.values())
    size, n = SIZES[part], len(images) if images.ndim else 0
    if images.shape != (n, size, size, 2) or images.shape != labels.shape:
        raise DatasetError(
            f"{path}: X has the shape {images.shape} and y {labels.shape}, expected (n, {size}, {size}, 2) of both; "
            "is it the published file?"
        )
    section, fold = PLACES.get(part, (None, None))
    kinds, remarks = _read_kinds(path, n)
    items = []
    for index, (tissue, platform) in enumerate(kinds):
        parent = f"{tissue}_{platform}_{part}_{index}"
        for tile in range((size // TILE) ** 2):
            detail = {key: str(file) for key, file in files.items()} | {"index": index, "tile": tile}
            name = f"{parent}_{tile}" if size > TILE else parent
            subsets = (f"{tissue}_{platform}", tissue)
            items.append(Item(name, path, (path,), parent, section, fold, subsets, detail))
    return items, remarks


def _read_kinds(path: Path, n: int) -> tuple[list[tuple[str, str]], list[str]]:
    """Tissue and platform of each of ``n`` images, and remarks."""
    table = read_array(path, "meta")
    if table is not None:
        return _kinds_of_table(path, [[str(cell) for cell in row] for row in table], n)
    tissues, platforms = (read_array(path, key) for key in ("tissue_list", "platform_list"))
    if tissues is None or platforms is None or not tissues.shape == platforms.shape == (n,):
        raise DatasetError(f"{path}: has no meta, and not both tissue_list and platform_list of its {n} images")
    return [(_plain(tissue), _plain(platform)) for tissue, platform in zip(tissues, platforms, strict=True)], []


def _kinds_of_table(path: Path, rows: list[list[str]], n: int) -> tuple[list[tuple[str, str]], list[str]]:
    """The same from the rows of ``meta``, the first of which names the columns."""
    header = [_plain(cell) for cell in rows[0]] if rows else []
    tissue = next((name for name in ("tissue", "specimen") if name in header), None)
    if tissue is None or len(rows) <= n:
        columns = ", ".join(header) or "no columns"
        raise DatasetError(
            f"{path}: meta has {len(rows)} rows with {columns}; expected a row of names, one of them specimen, and one "
            f"for each of the {n} images"
        )
    remarks = []
    if len(rows) > n + 1:  # so in the test part; the rows that are too many follow the names
        remarks.append(f"{path.name}: meta has {len(rows) - n - 1} rows more than there are images; the last {n} count")
    records = [dict(zip(header, row, strict=False)) for row in rows[len(rows) - n :]]
    kinds = [(_plain(record.get(tissue, "")), _platform(record)) for record in records]
    unknown = sum(platform == UNKNOWN for _, platform in kinds)
    if unknown:
        remarks.append(f"{path.name}: meta does not tell the platform of {unknown} images")
    return [(TISSUES.get(name, name), platform) for name, platform in kinds], remarks


def _platform(record: Mapping[str, str]) -> str:
    """Platform of a row of ``meta``: named, or the one that the path of the experiment names."""
    if "platform" in record:
        return _plain(record["platform"])
    named = PLATFORMS & set(re.findall("[a-z]+", record.get("experiment", "").lower()))
    return named.pop() if len(named) == 1 else UNKNOWN


def _plain(text: str) -> str:
    """Text as a part of a file name."""
    return re.sub("[^a-z0-9]+", "-", str(text).lower()).strip("-") or UNKNOWN
