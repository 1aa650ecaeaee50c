"""GeoJSON that QuPath opens: every instance as a detection with class and measurements."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..instances import Instances
from ..polygons import Polygon, outlines
from .overlay import OUTLINE_COLOURS
from .write import atomic_path

# QuPath's "cell" is a pair, a cell and the nucleus in it, and it draws and measures both. An instance is one outline,
# which may be either, so it is a "detection": thousands stay fast, which they do not as annotations.
OBJECT_TYPE = "detection"

ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def write_geojson(
    path: str | Path, instances: Instances, colours: Mapping[str, tuple[int, int, int]] | None = None
) -> None:
    """Write the outlines of all instances as a GeoJSON FeatureCollection, one feature a line.

    Coordinates are pixels, (0, 0) being the outer corner of the first one, and outlines follow the edges of pixels, so
    areas are exact. Measurements are the numeric columns of the table, without values that are not finite.

    Args:
        path: the file to write; its folder must exist.
        instances: any number of instances; the ids become the names.
        colours: RGB colour 0..255 of each class. Others get one in alphabetical order; give colours where several
            images with different classes belong together.

    Raises:
        OSError: if the file cannot be written.

    Source: RFC 7946; properties as QuPath 0.4 and later reads them (``QuPathTypeAdapters.java``).
    """
    features = zip(
        instances.table["label"].tolist(),
        outlines(instances.labels),
        _classifications(instances, colours or {}),
        _measurements(instances.table),
        strict=True,
    )
    text = ",\n".join(ENCODER.encode(_feature(*feature)) for feature in features)
    with atomic_path(path) as temporary:
        temporary.write_text(f'{{"type":"FeatureCollection","features":[\n{text}\n]}}\n', encoding="utf-8")


def _feature(
    label: int, polygons: list[Polygon], classification: dict[str, Any] | None, measurements: dict[str, float]
) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": OBJECT_TYPE, "name": str(label)}
    if classification is not None:
        properties["classification"] = classification
    if measurements:
        properties["measurements"] = measurements
    rings = [[_closed(ring) for ring in (polygon.exterior, *polygon.holes)] for polygon in polygons]
    single = len(rings) == 1
    geometry = {"type": "Polygon" if single else "MultiPolygon", "coordinates": rings[0] if single else rings}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _closed(ring: np.ndarray) -> list[list[int]]:
    """The corners with the first one again at the end, as GeoJSON wants it."""
    corners: list[list[int]] = ring.tolist()
    corners.append(corners[0])
    return corners


def _classifications(instances: Instances, colours: Mapping[str, tuple[int, int, int]]) -> list[dict[str, Any] | None]:
    """QuPath's classification of each instance, or None."""
    classes = instances.classes
    known: dict[str | None, dict[str, Any] | None] = {None: None}
    for index, name in enumerate(sorted({name for name in classes if name is not None})):
        colour = colours.get(name, OUTLINE_COLOURS[index % len(OUTLINE_COLOURS)])
        known[name] = {"name": name, "color": [int(value) for value in colour]}
    return [known[name] for name in classes]


def _measurements(table: pd.DataFrame) -> list[dict[str, float]]:
    """The finite numbers of each row, by column."""
    numbers = table.drop(columns="label").select_dtypes("number")
    columns: dict[str, list[float]] = {}
    for name, column in numbers.items():
        whole = column.dtype.kind in "iu" and not column.hasnans
        columns[str(name)] = column.tolist() if whole else column.to_numpy(float, na_value=np.nan).tolist()
    if not columns:
        return [{}] * len(table)
    return [
        {name: value for name, value in zip(columns, row, strict=True) if math.isfinite(value)}
        for row in zip(*columns.values(), strict=True)
    ]
