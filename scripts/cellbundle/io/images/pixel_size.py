"""Pixel sizes in µm from what files say about them."""

import math
from collections.abc import Mapping, Sequence

import tifffile

from .ome import Pixels

MICRON = ("µm", "μm", "\\u00b5m", "um", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres")
UM_PER_UNIT = {
    **dict.fromkeys(MICRON, 1.0),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
}
# An inch is left out: 72 or 300 dots an inch is what programs write when they know no size.
TAG_UNITS = {3: "cm", 4: "mm", 5: "um"}
MAX_TAG_PIXEL_UM = 100.0  # coarser tags are print resolutions


def in_micrometres(sizes: tuple[object, object], units: tuple[object, object]) -> tuple[float, float] | None:
    """Convert (y, x) sizes to µm.

    Args:
        sizes: (y, x) pixel sizes; numbers or None.
        units: (y, x) unit names, any case.

    Returns:
        (y, x) in µm, or None if a size is missing, not a positive number, or of an unknown unit.
    """
    factors = [UM_PER_UNIT.get(str(unit).strip().lower(), math.nan) for unit in units]
    numbers = [float(size) if isinstance(size, int | float) else math.nan for size in sizes]
    y, x = (number * factor for number, factor in zip(numbers, factors, strict=True))
    return (y, x) if 0 < y < math.inf and 0 < x < math.inf else None


def tiff_pixel_size(
    tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, ome: Sequence[Pixels] | None
) -> tuple[float, float] | None:
    """Read the pixel size of a TIFF series from OME, else ImageJ, else resolution tags in metric units.

    Args:
        tiff: the open file.
        series: one of the file.
        ome: images that OME metadata describe, one for each series; None if there are no such metadata.

    Returns:
        (y, x) in µm, or None.
    """
    if ome is not None:
        return _ome_pixel_size(ome[tiff.series.index(series)].attributes) if len(ome) == len(tiff.series) else None
    tags = series.keyframe.tags
    y, x = (_inverse(tags.valueof(name)) for name in ("YResolution", "XResolution"))
    if tiff.is_imagej:
        unit = (tiff.imagej_metadata or {}).get("unit")
        return in_micrometres((y, x), (unit, unit))
    unit = TAG_UNITS.get(int(tags.valueof("ResolutionUnit", default=0)))
    size = in_micrometres((y, x), (unit, unit))
    return size if size is not None and max(size) < MAX_TAG_PIXEL_UM else None


def _ome_pixel_size(pixels: Mapping[str, str]) -> tuple[float, float] | None:
    return in_micrometres(
        (_number(pixels.get("PhysicalSizeY")), _number(pixels.get("PhysicalSizeX"))),
        (pixels.get("PhysicalSizeYUnit", "µm"), pixels.get("PhysicalSizeXUnit", "µm")),
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _inverse(ratio: tuple[int, int] | None) -> float | None:
    """Units a pixel, from pixels a unit as a TIFF ratio."""
    return ratio[1] / ratio[0] if ratio and ratio[0] else None
