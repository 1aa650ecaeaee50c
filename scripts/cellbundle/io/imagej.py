"""ImageJ ROI sets (zip): one ROI for each instance, exact to the pixel."""

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray
from roifile import ROI_TYPE, ImagejRoi

from ..errors import ArrayError
from ..instances import Instances
from ..polygons import Polygon, outlines
from .write import atomic_path

# ImageJ reads 16-bit numbers above this one as negative; paths of composite ROIs are 32-bit floats instead.
MAX_SHORT = 60535
MAX_EXACT_FLOAT = 1 << 24
MOVE, LINE, CLOSE = 0, 1, 4  # java.awt.geom.PathIterator
ZIP_LEVEL = 1


def write_imagej(path: str | Path, instances: Instances) -> None:
    """Write an ROI set that ImageJ's ROI Manager opens.

    An instance in one piece without holes is a traced ROI, as the wand tool makes; any other is one composite ROI, so
    that there is one ROI for each id. ROIs are named by id, with leading zeros.

    Args:
        path: the .zip file to write; its folder must exist.
        instances: any number of instances; more than 65,535 make a Zip64 file, which ImageJ reads.

    Raises:
        ArrayError: if a side of the image is longer than 2²⁴ pixels.
        OSError: if the file cannot be written.

    Source: layout as in ImageJ's ``RoiDecoder.java`` and ``ShapeRoi.java`` (public domain).
    """
    if max(instances.labels.shape) > MAX_EXACT_FLOAT:
        raise ArrayError(
            f"ImageJ ROIs hold coordinates up to {MAX_EXACT_FLOAT}, got an image of shape {instances.labels.shape}; "
            "write GeoJSON instead"
        )
    digits = len(str(len(instances)))
    with atomic_path(path) as temporary, ZipFile(temporary, "w") as archive:
        for label, polygons in enumerate(outlines(instances.labels), start=1):
            name = f"{label:0{digits}d}"
            entry = ZipInfo(f"{name}.roi")  # its date is 1980, so the same instances give the same file
            archive.writestr(entry, _roi(polygons, name).tobytes(), ZIP_DEFLATED, ZIP_LEVEL)


def _roi(polygons: list[Polygon], name: str) -> ImagejRoi:
    """A traced ROI where that can hold the instance, else a composite one."""
    exterior = polygons[0].exterior
    roi = ImagejRoi(name=name)
    if len(polygons) == 1 and not polygons[0].holes and max(exterior.max(), len(exterior)) <= MAX_SHORT:
        roi.left, roi.top = exterior.min(axis=0).tolist()
        roi.right, roi.bottom = exterior.max(axis=0).tolist()
        roi.roitype = ROI_TYPE.TRACED
        roi.n_coordinates = len(exterior)
        roi.integer_coordinates = exterior - (roi.left, roi.top)
        return roi
    corners = np.concatenate([polygon.exterior for polygon in polygons])
    # ImageJ takes the frame of a composite ROI from its path, so here it only has to fit the 16 bits.
    roi.left, roi.top = corners.min(axis=0).clip(max=MAX_SHORT).tolist()
    roi.right, roi.bottom = corners.max(axis=0).clip(max=MAX_SHORT).tolist()
    roi.roitype = ROI_TYPE.RECT
    rings = [ring for polygon in polygons for ring in (polygon.exterior, *polygon.holes)]
    roi.multi_coordinates = np.concatenate([_path(ring) for ring in rings])
    roi.shape_roi_size = len(roi.multi_coordinates)
    return roi


def _path(ring: NDArray[np.int32]) -> NDArray[np.float32]:
    """A ring as operations and corners: move x y, line x y …, close."""
    steps = np.full((len(ring), 3), LINE, np.float32)
    steps[0, 0] = MOVE
    steps[:, 1:] = ring
    return np.append(steps, np.float32(CLOSE))
