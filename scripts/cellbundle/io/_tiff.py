"""TIFF, BigTIFF, OME-TIFF and ImageJ TIFF."""

import logging
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC

from ..errors import ImageReadError
from ._pixel_size import tiff_pixel_size
from ._stored import Stored

logger = logging.getLogger(__name__)

JPEG = (COMPRESSION.OJPEG, COMPRESSION.JPEG)
ALPHA = (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)
FOREIGN_COLOURS = (PHOTOMETRIC.YCBCR, PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB, PHOTOMETRIC.ITULAB)
FIRST_PRIVATE_TAG = 32768
IMAGEJ_TAGS = (50838, 50839)
# tifffile opens other files that the metadata of OME-TIFF, Micro-Manager and NDTiff files name, wherever they are.
ONE_FILE: dict[str, Any] = {"_multifile": False, "is_mmstack": False, "is_ndtiff": False}
TRUNCATED = "is truncated: a part of it lies behind the end of the file; copy or export it again"


@contextmanager
def open_tiff(path: Path) -> Iterator[Stored]:
    """Open the largest image of a TIFF file, at full resolution; other files that its metadata name are not opened.

    A colour table is a palette in a plain TIFF, and only for display in ImageJ and OME files: there values stay.
    The fourth sample of a pixel is transparency where the file says so; a fourth plane (C, H, W) is a channel.
    White-is-zero images keep the values as stored.

    Raises:
        ImageReadError: if the file is cut off, holds several images of one size, or an unsupported colour space.
    """
    with tifffile.TiffFile(path, **ONE_FILE) as tiff:
        for directory in (tiff.pages.first, tiff.pages[-1]):
            _check_directory(tiff, directory.aspage())
        series = _largest_series(tiff)
        page = series.keyframe
        if tiff.is_ome and series.kind != "ome":
            logger.warning(
                "%s: its metadata name other files, which are not read; it is read as a file of its own", path
            )
        kind = np.dtype(series.dtype).kind
        if kind not in "buif":
            raise ImageReadError(f"holds values of type {series.dtype}, expected integers or floats; convert the file")
        if page.photometric in FOREIGN_COLOURS and page.compression not in JPEG:
            raise ImageReadError(f"has colour space {PHOTOMETRIC(page.photometric).name}; save it as RGB")
        alpha = series.axes.endswith("S") and bool(page.extrasamples) and page.extrasamples[-1] in ALPHA
        yield Stored(
            shape=series.shape,
            axes=series.axes,
            dtype=np.dtype(series.dtype),
            decode=lambda: _pixels(series),
            pixel_size_um=tiff_pixel_size(tiff, series),
            palette=_palette(tiff, page),
            alpha=alpha,
            cmyk=page.photometric == PHOTOMETRIC.SEPARATED and kind == "u" and page.samplesperpixel - alpha == 4,
            lossy=page.compression in JPEG,
            tile_pixels=page.tilewidth * page.tilelength,
        )


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
        raise ImageReadError("lacks planes that its metadata names; the file is incomplete, export it again")
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
