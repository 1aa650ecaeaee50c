"""Size, shape and intensity of every instance of a label map, as a table."""

import math

import numpy as np
import pandas as pd

from ..errors import ArrayError, ConfigError
from ..kernels.geometry import boxes_and_areas
from ..kernels.overlap import compact_ids
from ..kernels.parallel import run_chunks
from ..kernels.properties import measure_intensities, measure_shapes
from .labels import check_labels

COLUMNS = (
    "label",
    "y",
    "x",
    "top",
    "left",
    "bottom",
    "right",
    "area",
    "perimeter",
    "axis_major_length",
    "axis_minor_length",
    "orientation",
    "eccentricity",
    "solidity",
    "equivalent_diameter",
)
"""Of every table, in pixels and radians."""
INTENSITY_COLUMNS = ("intensity_mean", "intensity_min", "intensity_max", "intensity_sd")
"""For every channel c of an image, each with ``_<c>`` appended."""
LENGTH_COLUMNS = ("perimeter", "axis_major_length", "axis_minor_length", "equivalent_diameter")
"""With ``_um`` appended where pixels have a size and are square."""
SQUARE_TOLERANCE = 0.01  # of the smaller side: a larger difference makes a length depend on its direction

MIN_INSTANCES_PER_THREAD = 64


def measure(
    labels: np.ndarray, image: np.ndarray | None = None, pixel_size_um: tuple[float, float] | None = None
) -> pd.DataFrame:
    """Measure every instance of a label map.

    The values are those of ``skimage.measure.regionprops`` on the image in double precision, with one exception: a
    shape with a horizontal or without a unique major axis has the orientation that exact arithmetic gives, always the
    same one, while there rounding errors decide.

    Args:
        labels: (H, W) integers, 0 background, other ids > 0 in any order and with any gaps. The pixels of an id are
            one instance, connected or not.
        image: (C, H, W) real numbers. NaN in an instance makes its values in that channel NaN.
        pixel_size_um: (y, x) sides of a pixel in µm.

    Returns:
        One row per instance, ascending by id, with these columns:

        - ``COLUMNS``: id; centroid y, x; half-open box; area in pixels; lengths in pixels; orientation, the angle from
          the y axis to the major axis, in radians; eccentricity, 0..1; solidity, the area over that of the convex
          hull; diameter of the disc of the same area. Ids, boxes and areas are int64 (ids of a uint64 map uint64),
          all else float64.
        - with ``image``: ``intensity_mean_<c>``, ``intensity_min_<c>``, ``intensity_max_<c>`` and ``intensity_sd_<c>``
          (population standard deviation) for every channel c = 0..C-1, float64.
        - with ``pixel_size_um``: ``area_um2``, ``y_um``, ``x_um``, float64; and the ``LENGTH_COLUMNS`` with ``_um``
          if the sides of a pixel differ by less than 1 %. They are absent for other pixels, because a length in
          pixels does not say in which direction it was measured, and no factor can convert it.

    Raises:
        ArrayError: if ``labels`` is not a 2-D map of ids, or ``image`` is not (C, H, W) of the same size.
        ConfigError: if ``pixel_size_um`` is not two positive finite numbers.
    """
    check_labels(labels)
    if image is not None:
        _check_image(image, labels.shape)
    indices, ids = compact_ids(labels)
    numbered = indices.reshape(labels.shape)
    boxes, areas = boxes_and_areas(numbered, ids.size - 1)
    present = np.flatnonzero(areas)
    boxes, areas = boxes[present], areas[present]
    table = _shapes(numbered, boxes, areas, present + 1)
    table["label"] = ids[present + 1].astype(np.int64 if np.can_cast(ids.dtype, np.int64) else np.uint64)
    columns = {name: table[name] for name in COLUMNS}
    if image is not None:
        columns |= _intensities(numbered, boxes, present + 1, image)
    if pixel_size_um is not None:
        columns |= _physical(columns, pixel_size_um)
    return pd.DataFrame(columns)


def equivalent_diameters(areas: np.ndarray) -> np.ndarray:
    """Diameters of the discs of some areas: (N,) numbers to (N,) float64."""
    return np.sqrt(4 / np.pi * areas)  # type: ignore[no-any-return]


def diameters(labels: np.ndarray) -> np.ndarray:
    """``equivalent_diameters`` of the instances of a label map.

    Args:
        labels: integers of any shape, 0 background, other ids > 0, perhaps with gaps.

    Returns:
        (N,) float64 in pixels, in the order of the ids.
    """
    areas = np.bincount(labels.ravel().astype(np.int64))[1:]
    return equivalent_diameters(areas[areas > 0])


def _shapes(labels: np.ndarray, boxes: np.ndarray, areas: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    """All of ``COLUMNS`` but the label, in any order."""
    shapes = np.empty((len(ids), 8))
    run_chunks(measure_shapes, len(ids), labels, boxes, ids, shapes, min_chunk=MIN_INSTANCES_PER_THREAD)
    y, x, perimeter, major, minor, orientation, eccentricity, convex_area = shapes.T
    top, left, bottom, right = boxes.T
    return {
        "y": y,
        "x": x,
        "top": top,
        "left": left,
        "bottom": bottom,
        "right": right,
        "area": areas,
        "perimeter": perimeter,
        "axis_major_length": major,
        "axis_minor_length": minor,
        "orientation": orientation,
        "eccentricity": eccentricity,
        "solidity": areas / convex_area,
        "equivalent_diameter": equivalent_diameters(areas),
    }


def _intensities(labels: np.ndarray, boxes: np.ndarray, ids: np.ndarray, image: np.ndarray) -> dict[str, np.ndarray]:
    # Of all types, only those that float32 holds exactly go there: the kernels then know two types.
    exact = np.float32 if np.can_cast(image.dtype, np.float32) else np.float64
    image = np.ascontiguousarray(image, exact)
    values = np.empty((len(ids), len(image), len(INTENSITY_COLUMNS)))
    run_chunks(measure_intensities, len(ids), labels, boxes, ids, image, values, min_chunk=MIN_INSTANCES_PER_THREAD)
    return {
        f"{name}_{channel}": values[:, channel, k]
        for channel in range(len(image))
        for k, name in enumerate(INTENSITY_COLUMNS)
    }


def _physical(columns: dict[str, np.ndarray], pixel_size_um: tuple[float, float]) -> dict[str, np.ndarray]:
    size = np.asarray(pixel_size_um)
    if size.shape != (2,) or size.dtype.kind not in "iuf" or not (np.isfinite(size) & (size > 0)).all():
        raise ConfigError(f"pixel_size_um is {pixel_size_um}; give (y, x) in µm, both positive")
    height, width = float(size[0]), float(size[1])
    area = height * width
    physical = {
        "area_um2": columns["area"] * area,
        "y_um": columns["y"] * height,
        "x_um": columns["x"] * width,
    }
    if abs(height - width) < SQUARE_TOLERANCE * min(height, width):
        physical |= {f"{name}_um": columns[name] * math.sqrt(area) for name in LENGTH_COLUMNS}
    return physical


def _check_image(image: np.ndarray, size: tuple[int, ...]) -> None:
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.dtype.kind not in "biuf":
        got = f"shape {np.shape(image)} dtype {getattr(image, 'dtype', type(image).__name__)}"
        raise ArrayError(f"image must be a 3-D array of real numbers (C, H, W), got {got}; add an axis for one channel")
    if image.shape[1:] != size:
        raise ArrayError(
            f"image must be (C, H, W) with H, W of the labels {size}, got shape {image.shape} dtype {image.dtype}; "
            "move the channels to the front"
        )
