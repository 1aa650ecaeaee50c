"""TIFF, BigTIFF, OME-TIFF and ImageJ TIFF."""

import logging
import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC

from ...errors import ImageReadError
from ..regular import open_regular
from .axes import UNDESCRIBED
from .header import Stored
from .ome import Ome, Part, Pixels, Reference, as_xml, other_names, own_references, parse_ome, parts_in, short_names
from .orientation import TAG, known_orientation
from .pixel_size import tiff_pixel_size
from .tiff_limits import check_directories

logger = logging.getLogger(__name__)

JPEG = (COMPRESSION.OJPEG, COMPRESSION.JPEG)
ALPHA = (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)
FOREIGN_COLOURS = (PHOTOMETRIC.YCBCR, PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB, PHOTOMETRIC.ITULAB)
FIRST_PRIVATE_TAG = 32768
IMAGEJ_TAGS = (50838, 50839)
MAX_UUID = 60  # letters in a message
# tifffile opens other files that the metadata of OME-TIFF, Micro-Manager and NDTiff files name, wherever they are.
ONE_FILE: dict[str, Any] = {"_multifile": False, "is_mmstack": False, "is_ndtiff": False}
LACKING = "lacks planes that its metadata names; the file is incomplete, export it again"
TRUNCATED = "is truncated: a part of it lies behind the end of the file; copy or export it again"


class Member(NamedTuple):
    """A file of an OME-TIFF set: metadata of the set, which may be in another file, and how they name this one."""

    ome: Ome
    reference: Reference


class Opened(NamedTuple):
    """An open TIFF file, and its planes of each image that OME metadata describe if these name other files."""

    stored: Stored
    parts: list[Part]


@contextmanager
def open_tiff(path: Path) -> Iterator[Stored]:
    """Open the largest image of a TIFF file, at full resolution; other files that its metadata name are not opened.

    A colour table is a palette in a plain TIFF, and only for display in ImageJ and OME files: there values stay.
    The fourth sample of a pixel is transparency where the file says so; a fourth plane (C, H, W) is a channel.
    White-is-zero images keep the values as stored.

    Raises:
        ImageReadError: if the file is cut off, holds several images of one size, an unsupported colour space, or too
            little of a set of files to be an image.
    """
    with open_regular(path) as file, open_part(file) as opened:
        yield opened.stored


@contextmanager
def open_part(file: BinaryIO, member: Member | None = None) -> Iterator[Opened]:
    """Open a TIFF file as ``open_tiff`` does.

    Args:
        file: the open file.
        member: the metadata to use; by default its own.

    Raises:
        ImageReadError: as ``open_tiff``, and if the file is another one than the metadata name.
    """
    check_directories(file)
    with _tiff_file(file) as tiff:
        for directory in (tiff.pages.first, tiff.pages[-1]):
            _check_directory(tiff, directory.aspage())
        ome = own_metadata(tiff)
        parts = _named_parts(tiff, ome) if member is None else _parts_of(tiff, ome, member)
        if not parts:
            yield Opened(_stored(tiff, ome.images if ome else None), parts)
            return
    with _tiff_file(file, as_xml(parts)) as tiff:
        yield Opened(_stored(tiff, [part.pixels for part in parts]), parts)


def own_metadata(tiff: tifffile.TiffFile) -> Ome | None:
    """OME metadata in an open file, or None."""
    return parse_ome(tiff.ome_metadata) if tiff.is_ome and tiff.ome_metadata else None


def _tiff_file(file: BinaryIO, ome_xml: str | None = None) -> tifffile.TiffFile:
    file.seek(0)
    return tifffile.TiffFile(file, omexml=ome_xml, **ONE_FILE)


def _named_parts(tiff: tifffile.TiffFile, ome: Ome | None) -> list[Part]:
    """What the metadata of a file say of its own planes; nothing where tifffile reads them right without help."""
    if ome is None:
        return []
    if ome.metadata_file is not None:
        logger.warning(
            "%s: its metadata are in another file, which is not read (%s); it is read as a file of its own",
            tiff.filehandle.path,
            short_names([ome.metadata_file.name]),
        )
    own = own_references(ome, tiff.filename)
    others = other_names(ome, own)
    if not others and all(file.uuid == ome.uuid for file in own):
        return []
    parts = parts_in(ome, own, len(tiff.pages))
    if not parts:
        raise ImageReadError(
            f"has OME metadata of other files only, which are not read ({short_names(others)}), so its own planes are "
            "not described; export it as a file of its own"
        )
    if not others and any(len(part.planes) < part.pixels.n_planes for part in parts):
        raise ImageReadError(LACKING)
    if others:
        logger.warning(
            "%s: its metadata name other files, which are not read (%s); it is read as a file of its own",
            tiff.filehandle.path,
            short_names(others),
        )
    return parts


def _parts_of(tiff: tifffile.TiffFile, ome: Ome | None, member: Member) -> list[Part]:
    """What the metadata of a set say of the planes of one of its files."""
    uuid = ome.uuid if ome else ""
    if not uuid or uuid != member.reference.uuid:
        raise ImageReadError(
            f"is not the file that the metadata of its set name: its UUID is {uuid[:MAX_UUID]!r}, expected "
            f"{member.reference.uuid[:MAX_UUID]!r}"
        )
    return parts_in(member.ome, {member.reference}, len(tiff.pages))


def _stored(tiff: tifffile.TiffFile, ome: Sequence[Pixels] | None) -> Stored:
    """Describe the largest image of an open file."""
    series = _largest_series(tiff)
    page = series.keyframe
    kind = np.dtype(series.dtype).kind
    if kind not in "buif":
        raise ImageReadError(f"holds values of type {series.dtype}, expected integers or floats; convert the file")
    if page.photometric in FOREIGN_COLOURS and page.compression not in JPEG:
        raise ImageReadError(f"has colour space {PHOTOMETRIC(page.photometric).name}; save it as RGB")
    alpha = series.axes.endswith("S") and bool(page.extrasamples) and page.extrasamples[-1] in ALPHA
    is_undescribed = ome is not None and series.kind != "ome"
    return Stored(
        shape=series.shape,
        axes=series.axes.replace("I", UNDESCRIBED) if is_undescribed else series.axes,
        dtype=np.dtype(series.dtype),
        decode=lambda: _pixels(series),
        pixel_size_um=tiff_pixel_size(tiff, series, ome),
        palette=_palette(tiff, page),
        alpha=alpha,
        cmyk=page.photometric == PHOTOMETRIC.SEPARATED and kind == "u" and page.samplesperpixel - alpha == 4,
        lossy=page.compression in JPEG,
        tile_pixels=page.tilewidth * page.tilelength,
        no_data=_declared_no_data(page),
        orientation=known_orientation(page.tags.valueof(TAG)),
    )


def _declared_no_data(page: tifffile.TiffPage) -> float | None:
    """Value of GDAL's tag, a text."""
    try:
        return float(str(page.tags.valueof("GDAL_NODATA")).strip("\0 "))
    except ValueError:
        return None


def _largest_series(tiff: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """The image with the largest plane; smaller ones are thumbnails, labels of a slide or loose pyramid levels."""
    areas = [
        math.prod(n for letter, n in zip(one.axes, one.shape, strict=True) if letter in "YX") for one in tiff.series
    ]
    if areas.count(max(areas)) > 1:
        raise ImageReadError(
            f"holds {areas.count(max(areas))} separate images of the same size, expected one; "
            "save the one to use as a file of its own"
        )
    series = tiff.series[areas.index(max(areas))]
    if len(areas) > 1:
        logger.info("%s: read %s, left %d smaller images", tiff.filename, series.shape, len(areas) - 1)
    if any(page is None for page in series.pages):
        raise ImageReadError(LACKING)
    return series


def _palette(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> NDArray[np.uint8] | None:
    if page.photometric != PHOTOMETRIC.PALETTE or page.colormap is None or tiff.is_imagej or tiff.is_ome:
        return None
    return (page.colormap >> 8).astype(np.uint8)


def _check_directory(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> None:
    """Refuse a directory that points behind the end of the file: tifffile would go on with what is left."""
    form, file = tiff.tiff, tiff.filehandle
    file.seek(page.offset)
    (count,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    entries = [struct.unpack_from(form.tagformat1, file.read(form.tagsize)) for _ in range(count)]
    (following,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    lost = {code for code, _ in entries} - {tag.code for tag in page.tags}
    if following >= file.size or any(code < FIRST_PRIVATE_TAG or code in IMAGEJ_TAGS for code in lost):
        raise ImageReadError(TRUNCATED)


def _pixels(series: tifffile.TiffPageSeries) -> NDArray:
    """Decode, but not what lies behind the end of the file: some decoders make up pixels."""
    for page in series.pages:
        if page is not None and page.compression != COMPRESSION.NONE:
            ends = (start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True))
            if max(ends) > page.parent.filehandle.size:
                raise ImageReadError(TRUNCATED)
    return series.asarray()
