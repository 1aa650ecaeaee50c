"""OME-Zarr (NGFF 0.1 to 0.5), with the optional package zarr."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import DependencyError, ImageReadError
from .header import Stored, n_pixels
from .pixel_size import in_micrometres
from .zarr_array import ZarrArray, array_folder, read_array, read_json
from .zarr_chunks import check_files

MARKERS = (".zgroup", ".zattrs", "zarr.json")


def is_zarr(path: Path) -> bool:
    """Say whether a folder is a Zarr store."""
    return path.is_dir() and any((path / marker).exists() for marker in MARKERS)


@contextmanager
def open_zarr(path: Path) -> Iterator[Stored]:
    """Open the full resolution of an OME-Zarr image.

    Raises:
        DependencyError: if zarr is not installed.
        ImageReadError: if the store has no OME metadata, or an array that is not read (see ``read_array``).
    """
    try:
        import zarr  # noqa: F401, PLC0415 - optional
    except ImportError as error:
        raise DependencyError(
            f"{path}: reading OME-Zarr needs the package zarr; install it with: pip install 'cellbundle[zarr]'"
        ) from error
    version: Literal[2, 3] = 3 if (path / "zarr.json").exists() else 2
    attributes = _attributes(path, version)
    scales = attributes.get("ome", attributes).get("multiscales")
    if not scales:
        raise ImageReadError("is a Zarr store without OME multiscales metadata; export it as OME-Zarr or OME-TIFF")
    array = read_array(array_folder(path, scales[0]["datasets"][0]["path"]), version)
    axes = _axes(scales[0], len(array.shape))
    letters = "".join(axis["name"].upper() for axis in axes)
    yield Stored(
        shape=array.shape,
        axes=letters,
        dtype=array.dtype,
        decode=lambda: _pixels(array),
        pixel_size_um=_pixel_size(scales[0], axes),
        tile_pixels=n_pixels(array.file_shape, letters if len(letters) == len(array.shape) else "Q" * len(array.shape)),
    )


def _attributes(path: Path, version: int) -> dict[str, Any]:
    """Attributes of the group that is the store."""
    if version == 3:
        attributes: dict[str, Any] = read_json(path / "zarr.json").get("attributes", {})
        return attributes
    return read_json(path / ".zattrs") if (path / ".zattrs").exists() else {}


def _pixels(array: ZarrArray) -> NDArray:
    import zarr  # noqa: PLC0415 - optional

    check_files(array)
    opened: Any = zarr.open_array(array.folder, mode="r", zarr_format=array.version)
    if opened.shape != array.shape or opened.dtype != array.dtype:
        raise ImageReadError("changed while it was read")
    return np.asarray(opened[...])


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
