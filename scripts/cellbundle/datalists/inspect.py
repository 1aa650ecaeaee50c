"""What is wrong with the image and the label map of one datalist entry."""

import hashlib
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..addresses import redact_text
from ..errors import CellBundleError
from ..instances.labels import label_components, renumber
from ..instances.regions import find_regions
from ..io import Image, read_image, read_labels
from ..io.images.no_data import sentences
from ..io.images.orientation import remark_on_orientation
from .datalist import FILE_KEYS, Entry

Severity = Literal["error", "warning"]

LIMITS = {2**bits - 1: bits for bits in (8, 16)}  # of ids
TINY_PIXELS = 3  # instances up to this area are leftovers of a brush or a resize
FAR_GAP = 0.5  # in diameters of the largest part; a gap below it may be another cell lying across


@dataclass(frozen=True)
class Finding:
    """One problem of a datalist.

    Attributes:
        severity: ``error`` for what stops a training or makes its scores wrong, ``warning`` for what to look at.
        kind: ``malformed-list``, ``malformed-entry``, ``path-escapes``, ``missing-file``, ``unreadable-image``,
            ``blank-image``, ``no-data``, ``unreadable-label``, ``binary-mask``, ``label-dtype``, ``size-mismatch``,
            ``empty-label``, ``orientation``, ``region-instances``, ``scattered-instances``, ``tiny-instances``,
            ``leakage``, ``group-leakage``, ``duplicate-content`` or ``channels``.
        path: the file relative to the basedir, the entry such as ``training[3]``, or the list.
        message: what was got, what was expected, what to do.
    """

    severity: Severity
    kind: str
    path: str
    message: str


@dataclass
class Facts:
    """What the files of one entry hold, as far as they could be read.

    Attributes:
        name: path of the image relative to the basedir.
        place: ``fold 0``, ``fold none`` or ``testing``: where equal images are no leak.
        findings: problems of this entry alone.
        digest: SHA-256 of the pixels; None for images that are not worth comparing.
        channels: of the image as stored.
        instances: in the label map.
    """

    name: str
    place: str
    findings: list[Finding] = field(default_factory=list)
    digest: str | None = None
    channels: int | None = None
    instances: int = 0

    def note(self, severity: Severity, kind: str, path: str, message: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(severity, kind, path, message))


def inspect_entry(section: str, entry: Entry, base: Path) -> Facts:
    """Read the files of one entry.

    Args:
        section: ``training`` or ``testing``.
        entry: with absolute paths below ``base``, as ``cellbundle.datalists.datalist.read_datalist`` gives it.
        base: absolute path of the basedir.
    """
    place = f"fold {entry.get('fold', 'none')}" if section == "training" else section
    facts = Facts(relative_name(entry["image"], base), place)
    present = {key: Path(entry[key]) for key in FILE_KEYS if key in entry and _is_present(facts, entry[key], base)}
    image = _check_image(facts, present["image"]) if "image" in present else None
    if "label" in present:
        _check_label(facts, present["label"], relative_name(present["label"], base), image)
    return facts


def _is_present(facts: Facts, path: str, base: Path) -> bool:
    """Note a file that is missing, or is elsewhere behind a symbolic link."""
    name = relative_name(path, base)
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for names that are too long
        facts.note("error", "missing-file", name, f"is not in {base}; check the basedir, or get the data first")
        return False
    target = Path(path).resolve()
    if not target.is_relative_to(base.resolve()):
        message = f"is a link to {target}, outside the basedir; a copy of the folder loses it, so put the file there"
        facts.note("warning", "path-escapes", name, message)
    return True


def _check_image(facts: Facts, path: Path) -> Image | None:
    """Note problems, channels and digest; None if the image cannot be read."""
    try:
        image = read_image(path)
    except CellBundleError as error:
        facts.note("error", "unreadable-image", facts.name, reason(error, path))
        return None
    data = image.data
    for sentence in sentences(image.no_data, data):
        facts.note("warning", "no-data", facts.name, sentence)
    facts.channels = len(data)
    facts.digest = pixel_digest(data)
    if facts.digest is None:
        facts.note("warning", "blank-image", facts.name, f"has the value {data.min():g} everywhere; export it again")
    return image


def pixel_digest(data: NDArray[np.float32]) -> str | None:
    """Hash of the pixels of an image, equal for equal content in another file format or as grey RGB.

    Args:
        data: (C, H, W) float32, as ``cellbundle.io.read_image`` gives it.

    Returns:
        SHA-256 in hexadecimal digits; None for an image of one value, which says nothing.
    """
    if data.min() == data.max():
        return None
    pixels = np.ascontiguousarray(data[:1] if (data == data[0]).all() else data)
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(pixels.data)
    return digest.hexdigest()


def _check_label(facts: Facts, path: Path, name: str, image: Image | None) -> None:
    """Note problems and number of instances of the label map of an image."""
    try:
        stored = read_labels(path)
        labels, facts.instances = renumber(stored)
    except CellBundleError as error:
        facts.note("error", _why_unreadable(path), name, reason(error, path))
        return
    shape = None if image is None else image.data.shape[1:]
    if shape not in (None, labels.shape):
        got = "x".join(map(str, labels.shape)), "x".join(map(str, shape or ()))
        message = f"label is {got[0]}, its image {facts.name} is {got[1]}; both must have the same height and width"
        facts.note("error", "size-mismatch", name, message)
    if not facts.instances:
        facts.note("warning", "empty-label", name, "has no instance; check that it is really a field without cells")
        return
    if image is not None and shape == labels.shape:
        turned = remark_on_orientation(image.data, labels, image.orientation, applied=False)
        facts.findings += [Finding("warning", "orientation", name, turned)] if turned else []
    if regions := remark_on_regions(labels, facts.instances):
        facts.note("warning", "region-instances", name, regions)
    tiny, scattered = _odd_instances(labels, facts.instances)
    if tiny:
        message = f"{tiny} of {facts.instances} instances have 1-{TINY_PIXELS} pixels; remove leftovers of drawing"
        facts.note("warning", "tiny-instances", name, message)
    if scattered:
        message = (
            f"{scattered} of {facts.instances} instances have parts far from each other{_cut(stored)}; give each cell "
            "its own id"
        )
        facts.note("warning", "scattered-instances", name, message)


def remark_on_cut_ids(stored: NDArray[np.integer], labels: NDArray[np.int32], n: int) -> str | None:
    """Say that the ids of a label map seem to be cut to 8 or 16 bits, so that several cells have the same.

    Args:
        stored: (H, W) label map as it was read.
        labels: the same with the ids 1..n.
        n: number of instances.

    Returns:
        A sentence; None if the largest id is none of these limits, or no instance has parts far from each other.
    """
    reason = _cut(stored)
    scattered = _odd_instances(labels, n)[1] if reason else 0
    return f"{scattered} of {n} instances have parts far from each other{reason}" if scattered else None


def remark_on_regions(labels: NDArray[np.int32], n: int) -> str | None:
    """Say that instances 1..n of a label map look like regions; None if none does."""
    found = find_regions(labels, n)
    if not found:
        return None
    pixels = np.bincount(labels.ravel())[found].max()
    return (
        f"{len(found)} of {n} instances look like regions, as they surround others or cover most of the image (the "
        f"largest has {pixels} pixels); `cellbundle data prepare custom --drop-regions` leaves them out"
    )


def _cut(stored: NDArray[np.integer]) -> str:
    """A reason why instances have several parts, or nothing."""
    highest = int(stored.max(initial=0))
    bits = LIMITS.get(highest)
    return (
        f": the largest id is {highest}, so ids may be cut to {bits} bits; export the labels with more" if bits else ""
    )


def _why_unreadable(path: Path) -> str:
    """Kind of finding for a file that ``read_labels`` refuses."""
    try:
        read_labels(path, binary="components")
    except CellBundleError:
        try:
            return "label-dtype" if read_image(path).dtype.kind == "f" else "unreadable-label"
        except CellBundleError:
            return "unreadable-label"
    return "binary-mask"


def _odd_instances(labels: NDArray[np.int32], n: int) -> tuple[int, int]:
    """Number of tiny instances, and of those with parts far from their largest one; ids are 1..n."""
    from scipy import ndimage  # noqa: PLC0415 - slow to import, and only this check needs it

    parts, _ = label_components(labels)
    areas = np.bincount(parts.ravel())
    owner = np.zeros(areas.size, np.int32)
    owner[parts.ravel()] = labels.ravel()
    boxes = ndimage.find_objects(parts)
    scattered = 0
    for instance in np.flatnonzero(np.bincount(owner[1:]) > 1):
        members = np.flatnonzero(owner == instance)
        largest = members[areas[members].argmax()]
        far = FAR_GAP * 2 * math.sqrt(areas[largest] / math.pi)
        scattered += any(_gap(boxes[largest - 1], boxes[part - 1]) > far for part in members)
    tiny = np.bincount(labels.ravel(), minlength=n + 1)[1:] <= TINY_PIXELS
    return int(tiny.sum()), scattered


def _gap(first: tuple[slice, ...], second: tuple[slice, ...]) -> float:
    """Distance of two boxes in pixels, 0 if they overlap or touch."""
    return math.hypot(*(max(0, a.start - b.stop, b.start - a.stop) for a, b in zip(first, second, strict=True)))


def relative_name(path: str | Path, base: Path) -> str:
    """A path below ``base`` as people write it in a datalist."""
    return Path(path).relative_to(base).as_posix()


def reason(error: CellBundleError, path: str | Path) -> str:
    """The message without the path that it starts with: findings have a field for it."""
    return str(error).removeprefix(redact_text(f"{path}: "))
