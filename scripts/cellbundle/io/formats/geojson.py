"""GeoJSON of QuPath: every instance is written as a detection with class and measurements; all kinds are read."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...errors import ConfigError, LabelReadError
from ...instances import Instances
from ...instances.polygons import Polygon, outlines
from ..images.errors import named
from ..overlay import OUTLINE_COLOURS
from ..write import atomic_path

# QuPath's "cell" is a pair, a cell and the nucleus in it, and it draws and measures both. An instance is one outline,
# which may be either, so it is a "detection": thousands stay fast, which they do not as annotations.
OBJECT_TYPE = "detection"

GEOMETRIES = {"cell": "geometry", "nucleus": "nucleusGeometry"}
MIN_POSITIONS = 4  # of a closed ring

ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class Feature(NamedTuple):
    """An object of a GeoJSON file.

    Attributes:
        rings: (n, 2) float64 corners (x, y) of exteriors and holes in pixels, the first one again at the end; the
            outer corner of the first pixel is (0, 0), as for ``instances.painting.paint_rings``. Of a cell without a
            nucleus, none.
        name: as QuPath shows it, often None.
        classification: name of the class, parts of it joined by ``": "`` as in QuPath, or None.
        object_type: ``"cell"``, ``"detection"``, ``"annotation"`` … as the file has it, or None.
    """

    rings: list[NDArray[np.float64]]
    name: str | None
    classification: str | None
    object_type: str | None


def read_geojson(path: str | Path, *, part: Literal["cell", "nucleus"] = "cell") -> list[Feature]:
    """Read polygons as QuPath exports them: a FeatureCollection, a list of features or one feature.

    Annotations come with detections and cells; ``object_type`` tells them apart. Child objects follow their parent.

    Args:
        path: a GeoJSON file in pixels.
        part: of QuPath's cells, the outline of the whole ``"cell"`` or of its ``"nucleus"``.

    Returns:
        The features in the order of the file; ``paint_rings([feature.rings for feature in features], shape)`` paints
        them.

    Raises:
        LabelReadError: if the file cannot be read, a feature is no polygon (a point, a line), or no feature has a
            nucleus where it is asked for.
        ConfigError: for another part.

    Source: RFC 7946; properties as QuPath 0.2 to 0.6 writes them (``QuPathTypeAdapters.java``, ``GsonTools.java``).
    """
    if part not in GEOMETRIES:
        raise ConfigError(f"part is {part!r}; choose one of {', '.join(GEOMETRIES)}")
    with named(Path(path), LabelReadError):
        objects = _objects(json.loads(Path(path).read_bytes()))
        features = [_read_feature(entry, number, part) for number, entry in enumerate(objects, start=1)]
        if part == "nucleus" and features and not any(feature.rings for feature in features):
            raise LabelReadError("has no feature with a nucleusGeometry; set part='cell' to read the other outlines")
    return features


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


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    """The features of a document, each followed by its children."""
    kind = document.get("type") if isinstance(document, dict) else None
    if kind not in ("FeatureCollection", "Feature") and not isinstance(document, list):
        raise LabelReadError(f"is no GeoJSON of features (type {kind!r}); export objects from QuPath as GeoJSON")
    listed = document["features"] if kind == "FeatureCollection" else [document] if kind == "Feature" else document
    for entry in listed:
        yield entry
        yield from _objects((entry.get("properties") or {}).get("childObjects", []))


def _read_feature(entry: dict[str, Any], number: int, part: str) -> Feature:
    """A feature with the rings of its polygons."""
    properties = entry.get("properties") or {}
    geometry = entry.get(GEOMETRIES[part]) or {"type": None, "coordinates": []}
    kind = geometry["type"]
    if kind not in ("Polygon", "MultiPolygon") and (kind or part == "cell"):
        raise LabelReadError(
            f"feature {number} has the geometry {kind}, expected Polygon or MultiPolygon; export only outlines of cells"
        )
    polygons = [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]
    return Feature(
        [_read_ring(ring, number) for polygon in polygons for ring in polygon],
        properties.get("name"),
        _class_name(properties.get("classification")),
        properties.get("objectType"),
    )


def _read_ring(ring: Any, number: int) -> NDArray[np.float64]:
    """(n, 2) corners, checked."""
    corners = np.array(ring, np.float64)
    if corners.ndim != 2 or corners.shape[0] < MIN_POSITIONS or corners.shape[1] < 2 or not np.isfinite(corners).all():
        raise LabelReadError(
            f"feature {number} has a ring of shape {corners.shape}, expected at least {MIN_POSITIONS} positions x, y"
        )
    return corners[:, :2]


def _class_name(classification: Any) -> str | None:
    """Name of a class: a text, ``name``, ``names`` of a derived class, or before QuPath 0.4 a ``parentClass``."""
    if not isinstance(classification, dict):
        return classification
    names = classification.get("names") or [classification.get("name")]
    parts = [_class_name(classification.get("parentClass")), *names]
    return ": ".join(part for part in parts if part) or None
