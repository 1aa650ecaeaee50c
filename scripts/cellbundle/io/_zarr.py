"""OME-Zarr (NGFF 0.1 to 0.5), with the optional package zarr."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DependencyError, ImageReadError
from ._pixel_size import in_micrometres
from ._stored import Stored

MARKERS = (".zgroup", ".zattrs", "zarr.json")


def is_zarr(path: Path) -> bool:
    """Say whether a folder is a Zarr store."""
    return path.is_dir() and any((path / marker).exists() for marker in MARKERS)


@contextmanager
def open_zarr(path: Path) -> Iterator[Stored]:
    """Open the full resolution of an OME-Zarr image.

    Raises:
        DependencyError: if zarr is not installed.
        ImageReadError: if the store has no OME metadata.
    """
    try:
        import zarr  # noqa: PLC0415 - optional
    except ImportError as error:
        raise DependencyError(
            f"{path}: reading OME-Zarr needs the package zarr; install it with: pip install 'cellbundle[zarr]'"
        ) from error
    group = zarr.open_group(path, mode="r")
    attributes: dict[str, Any] = dict(group.attrs)
    scales = attributes.get("ome", attributes).get("multiscales")
    if not scales:
        raise ImageReadError("is a Zarr store without OME multiscales metadata; export it as OME-Zarr or OME-TIFF")
    array: Any = group[scales[0]["datasets"][0]["path"]]
    axes = _axes(scales[0], array.ndim)
    yield Stored(
        shape=array.shape,
        axes="".join(axis["name"].upper() for axis in axes),
        dtype=np.dtype(array.dtype),
        decode=lambda: np.asarray(array[...]),
        pixel_size_um=_pixel_size(scales[0], axes),
    )


def _axes(scale: Mapping[str, Any], ndim: int) -> list[dict[str, str]]:
    """Axes as dictionaries: version 0.3 has bare names, earlier ones are always TCZYX."""
    axes = scale.get("axes") or "tczyx"[-ndim:]
    return [axis if isinstance(axis, dict) else {"name": axis} for axis in axes]


def _pixel_size(scale: Mapping[str, Any], axes: list[dict[str, str]]) -> tuple[float, float] | None:
    transforms = scale["datasets"][0].get("coordinateTransformations", [])
    factors = next((item["scale"] for item in transforms if item["type"] == "scale"), None)
    if factors is None:
        return None
    sizes = {axis["name"]: (factor, axis.get("unit")) for axis, factor in zip(axes, factors, strict=True)}
    (y, y_unit), (x, x_unit) = sizes.get("y", (None, None)), sizes.get("x", (None, None))
    return in_micrometres((y, x), (y_unit, x_unit))
