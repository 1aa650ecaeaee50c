"""The page of a prepared data set: one HTML file that opens from disk, without a network and without a server."""

import base64
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any, TypeVar

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..datalists.datalist import SECTIONS
from ..errors import CellBundleError
from ..io import atomic_path, draw_outlines, read_image, read_labels
from ..io.overlay import JPEG_QUALITY
from ..report.template import render
from .convert import SIZE_EDGES, Record, all_sizes
from .model import Item
from .prepared import Prepared

MAX_SAMPLES = 8  # pictures
SAMPLE_SIDE = 360  # pixels of a picture; eight of them keep the page below 3 MB
SAMPLE_WINDOW = 720  # pixels of a large image that a picture shows: halved, outlines of small instances stay apart
MAX_LISTED = 50  # problems, remarks or leaks that are spelled out
MAX_BARS = 20
MAX_LEVELS = 4  # lines of a chart above zero
MAX_TICKS = 6  # labels below a chart; more would touch on a phone
EDGES_AN_OCTAVE = 4  # of ``SIZE_EDGES``: the axis begins and ends at powers of two

T = TypeVar("T")


def write_report(path: Path, prepared: Prepared) -> None:
    """Write the page of a prepared data set; the same data set gives the same bytes.

    Args:
        path: the file to write; its folder must exist. Links to the lists are relative to the folder of results.
        prepared: with images and label maps in their folder. An image that cannot be drawn is shown by its reason.

    Raises:
        OSError: if the file cannot be written.
    """
    page = render("dataset.html", _context(prepared), {"count": "{:,}".format})
    with atomic_path(path) as temporary:
        # A file name that is not UTF-8 arrives with lone surrogates, which cannot be written.
        temporary.write_bytes(page.encode("utf-8", "replace"))


def _context(prepared: Prepared) -> dict[str, Any]:
    """The variables of the template."""
    records = list(prepared.records.values())
    folder, variant = prepared.folder, prepared.facts.variants[prepared.variant]
    problems = [{"name": problem.name, "text": _local(folder, problem.reason)} for problem in prepared.problems]
    return {
        "facts": prepared.facts,
        "variant": prepared.variant,
        "about_variant": variant.about,
        "total": _row("all", prepared.items, prepared.records),
        "image_size": _size_range(records),
        "n_empty": sum(record.instances == 0 for record in records),
        "places": _places(prepared),
        "lists": _lists(prepared),
        "published": _published(prepared),
        "sizes": _size_chart(records),
        "counts": _count_chart(records),
        "samples": [_sample(prepared, item) for item in _choose(prepared.items)],
        "problems": _shortened(problems),
        "remarks": _shortened([{"name": "", "text": _local(folder, remark)} for remark in prepared.remarks]),
        "leaks": _shortened([{"name": "", "text": leak} for leak in prepared.leaks]),
    }


def _local(folder: Path, text: str) -> str:
    """A message without the folder of results: the page says the same wherever that is."""
    return text.replace(f"{folder}{os.sep}", "")


def _shortened(entries: Sequence[dict[str, str]]) -> dict[str, Any]:
    """The first of many entries, and how many there are."""
    return {"n": len(entries), "shown": entries[:MAX_LISTED]}


def _size_range(records: Sequence[Record]) -> str:
    """Height and width of the images with fewest and most pixels."""
    shapes = sorted({record.shape for record in records}, key=lambda shape: (math.prod(shape), shape))
    texts = [_shape(shape) for shape in shapes]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"


def _shape(shape: tuple[int, int]) -> str:
    """Height and width as text."""
    return f"{shape[0]:,} \N{MULTIPLICATION SIGN} {shape[1]:,}"


def _number(value: float) -> str:
    """Three digits of a number, or all of a larger one: 0.25, 26.9, 1,024."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# Tables


def _places(prepared: Prepared) -> list[dict[str, Any]]:
    """Rows of folds and sections, each sum after its parts."""
    training, testing = ([item for item in prepared.items if item.section == section] for section in SECTIONS)
    folds = defaultdict(list)
    for item in training:
        folds[-1 if item.fold is None else item.fold].append(item)
    parts = {f"training, fold {fold}" if fold >= 0 else "training, no fold": folds[fold] for fold in sorted(folds)}
    if len(parts) > 1:
        parts["training"] = training
    if testing:
        parts["testing"] = testing
    if training and testing:
        parts["all"] = prepared.items
    return [_row(name, items, prepared.records) for name, items in parts.items()]


def _row(name: str, items: Sequence[Item], records: dict[str, Record]) -> dict[str, Any]:
    """Figures of some items."""
    instances = [records[item.name].instances for item in items]
    return {
        "name": name,
        "images": len(items),
        "groups": len({item.group for item in items}),
        "instances": sum(instances),
        "median": f"{np.median(instances):,.1f}".removesuffix(".0"),
    }


def _lists(prepared: Prepared) -> list[dict[str, Any]]:
    """Rows of the lists: training images, testing images, instances."""
    return [
        {
            "name": f"{name}.json",
            "sections": [sum(item.section == section for item in items) for section in SECTIONS],
            "instances": sum(prepared.records[item.name].instances for item in items),
        }
        for name, items in prepared.subsets.items()
    ]


def _published(prepared: Prepared) -> list[dict[str, Any]]:
    """Rows of the published counts of images beside those of the lists; a single count is that of all images."""
    counts = prepared.facts.variants[prepared.variant].counts
    rows = []
    for part, published in counts.items():
        here = sum(len(counts) == 1 or item.section == part for item in prepared.items)
        difference = f"{here - published:+,}".replace("-", "\N{MINUS SIGN}") if here != published else "0"
        name = "all" if len(counts) == 1 else part
        rows.append({"name": name, "published": published, "here": here, "difference": difference})
    return rows


# Charts


def _size_chart(records: Iterable[Record]) -> dict[str, Any] | None:
    """Histogram of diameters over whole octaves, quartiles, and how many are beyond; None without instances."""
    records = list(records)
    all_counts = np.array(all_sizes(records))
    used = np.flatnonzero(all_counts)
    if not len(used):
        return None
    start = used[0] // EDGES_AN_OCTAVE * EDGES_AN_OCTAVE
    stop = (used[-1] // EDGES_AN_OCTAVE + 1) * EDGES_AN_OCTAVE
    counts, edges = all_counts[start:stop], SIZE_EDGES[start : stop + 1]
    below = np.concatenate([[0], np.cumsum(counts)])
    octaves = (stop - start) // EDGES_AN_OCTAVE
    step = EDGES_AN_OCTAVE * math.ceil(octaves / MAX_TICKS)
    ranges = [f"{_number(low)} to {_number(high)}" for low, high in pairwise(edges)]
    return _chart(counts, ranges, [(_number(edges[i]), i / len(counts)) for i in range(0, len(edges), step)]) | {
        "quartiles": [_number(value) for value in np.interp(np.array([0.25, 0.5, 0.75]) * below[-1], below, edges)],
        "beyond": sum(record.instances for record in records) - int(below[-1]),
        "largest": _number(SIZE_EDGES[-1]),
    }


def _count_chart(records: Iterable[Record]) -> dict[str, Any]:
    """Histogram of the number of instances of an image over equal ranges."""
    instances = np.array([record.instances for record in records])
    width = _round_step(int(instances.max()) + 1, MAX_BARS)
    counts = np.bincount(instances // width)
    starts = range(0, len(counts) * width, width)
    ranges = [f"{start:,}" if width == 1 else f"{start:,} to {start + width - 1:,}" for start in starts]
    shift = 0.5 if width == 1 else 0.0  # a bar of one number has the label below its middle
    step = math.ceil(len(counts) / MAX_TICKS)
    ticks = [(f"{i * width:,}", (i + shift) / len(counts)) for i in range(0, len(counts) + (width > 1), step)]
    return _chart(counts, ranges, ticks)


def _chart(counts: NDArray[np.integer], ranges: Sequence[str], ticks: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Bars, labels below as (text, place 0..1) and levels at round numbers; heights and places in percent."""
    step = _round_step(int(counts.max()), MAX_LEVELS)
    top = -(-int(counts.max()) // step) * step
    return {
        "bars": [
            {"range": text, "count": int(n), "height": round(100 * int(n) / top, 2)}
            for text, n in zip(ranges, counts, strict=True)
        ],
        "ticks": [{"label": label, "place": round(100 * place, 2)} for label, place in ticks],
        "levels": [{"label": f"{n:,}", "place": round(100 * n / top, 2)} for n in range(0, top + 1, step)],
    }


def _round_step(span: int, parts: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, ... that reaches over a span in so many steps."""
    return next(digit * 10**power for power in count() for digit in (1, 2, 5) if digit * 10**power * parts >= span)


# Pictures


def _choose(items: Iterable[Item]) -> list[Item]:
    """A few items from each section and finest subset, evenly spaced by name; the same whatever their order."""
    parts = defaultdict(list)
    for item in sorted(items, key=lambda item: item.name):
        parts[SECTIONS.index(str(item.section)), item.subsets[0] if item.subsets else ""].append(item)
    chosen = _spaced(sorted(parts), MAX_SAMPLES)
    share, rest = divmod(MAX_SAMPLES, len(chosen))
    return [item for i, part in enumerate(chosen) for item in _spaced(parts[part], share + (i < rest))]


def _spaced(values: Sequence[T], n: int) -> list[T]:
    """At most n values, each from the middle of one of n equal stretches."""
    n = min(n, len(values))
    return [values[(2 * i + 1) * len(values) // (2 * n)] for i in range(n)]


def _sample(prepared: Prepared, item: Item) -> dict[str, Any]:
    """One picture with its caption, or the reason why there is none."""
    record = prepared.records[item.name]
    place = f"training, fold {item.fold}" if item.section == "training" else str(item.section)
    picture, reason = "", ""
    try:
        picture = _picture(prepared.folder, record)
    except (CellBundleError, MemoryError) as error:
        reason = _local(prepared.folder, str(error)) or type(error).__name__
    window = (min(record.shape[0], SAMPLE_WINDOW), min(record.shape[1], SAMPLE_WINDOW))
    shown = "" if window == record.shape else f"the middle {_shape(window)} of "
    return {
        "name": item.name,
        "instances": record.instances,
        "facts": [place, *item.subsets[:1], f"{shown}{_shape(record.shape)} px"],
        "picture": picture,
        "reason": reason,
    }


def _picture(folder: Path, record: Record) -> str:
    """Data URI of the middle of an image, scaled down, with the outline of every instance."""
    window = tuple(
        slice((side - min(side, SAMPLE_WINDOW)) // 2, (side + min(side, SAMPLE_WINDOW)) // 2) for side in record.shape
    )
    image = read_image(folder / record.image.path).data[(slice(None), *window)]
    labels = read_labels(folder / record.label.path)[window]
    scale = min(1.0, SAMPLE_SIDE / max(labels.shape))
    height, width = (max(1, round(scale * side)) for side in labels.shape)
    small = [_resize(plane, (width, height), Image.Resampling.BOX) for plane in image]
    drawn = draw_outlines(np.stack(small), _resize(labels, (width, height), Image.Resampling.NEAREST))
    # Outlines are one pixel wide: with fewer colours than pixels they would be grey.
    data = imagecodecs.jpeg8_encode(drawn, level=JPEG_QUALITY, subsampling="444")
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def _resize(plane: NDArray, size: tuple[int, int], method: Image.Resampling) -> NDArray:
    """(H, W) float32 or int32 at another size (width, height)."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, method))
