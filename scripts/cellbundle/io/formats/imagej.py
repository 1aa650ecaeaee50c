"""ImageJ ROI sets (zip): one ROI for each instance, exact to the pixel; all ROIs that enclose an area are read."""

from pathlib import Path, PurePosixPath
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi

from ...errors import ArrayError, LabelReadError
from ...instances import Instances
from ...instances.polygons import Polygon, outlines
from ..images.errors import named
from ..write import atomic_path

# ImageJ reads 16-bit numbers above this one as negative; paths of composite ROIs are 32-bit floats instead.
MAX_SHORT = 60535
MAX_EXACT_FLOAT = 1 << 24
MOVE, LINE, CLOSE = 0, 1, 4  # java.awt.geom.PathIterator
ZIP_LEVEL = 1
ROI_SIGNATURE = b"Iout"
AREAS = (ROI_TYPE.POLYGON, ROI_TYPE.RECT, ROI_TYPE.OVAL, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED)
MIN_CORNERS = 3


class Roi(NamedTuple):
    """An area of an ImageJ ROI file.

    Attributes:
        name: of the ROI, or of its file if it has none.
        rings: (n, 2) corners (x, y) of its parts and holes; the outer corner of the first pixel is (0, 0), as for
            ``cellbundle.instances.painting.paint_rings``.
    """

    name: str
    rings: list[NDArray]


def read_imagej(path: str | Path) -> list[Roi]:
    """Read ROIs that enclose an area, as ImageJ's ROI Manager saves them.

    ``paint_rings([roi.rings for roi in rois], shape)`` gives them the pixels that ImageJ gives them, apart from single
    ones whose centre is exactly on a slanted edge. Rectangles and ovals fill a frame of whole pixels, as in ImageJ.
    Positions in a stack are not regarded.

    Args:
        path: a .zip file of .roi files, or one .roi file; known by content.

    Returns:
        The ROIs in the order of the file.

    Raises:
        LabelReadError: if the file cannot be read, or a ROI encloses no area that can be read (a point, line or text;
            a rounded rectangle, spline or path of curves); the message names the ROI.
    """
    path = Path(path)
    with named(path, LabelReadError):
        with path.open("rb") as file:
            if file.read(len(ROI_SIGNATURE)) == ROI_SIGNATURE:
                return [_read_roi(path.name, path.read_bytes())]
        rois = []
        with ZipFile(path) as archive:
            for name in _roi_files(archive):
                with named(Path(name), LabelReadError):
                    rois.append(_read_roi(name, archive.read(name)))
        return rois


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


def _roi_files(archive: ZipFile) -> list[str]:
    """Names of the ROI files in an archive; macOS adds others that start with ``._``."""
    names = archive.namelist()
    rois = [name for name in names if name.lower().endswith(".roi") and "/._" not in f"/{name}"]
    if names and not rois:
        raise LabelReadError(f"holds no .roi file among {len(names)} entries; save the ROIs from the ROI Manager")
    return rois


def _read_roi(name: str, data: bytes) -> Roi:
    """The area in the bytes of a file."""
    roi = ImagejRoi.frombytes(data)
    return Roi(roi.name or PurePosixPath(name).stem, _rings(roi))


def _rings(roi: ImagejRoi) -> list[NDArray]:
    """The corners of all parts and holes of an area."""
    refused = _why_refused(roi)
    if refused:
        raise LabelReadError(
            f"is {refused}, expected a polygon, freehand, traced, rectangle, oval or composite ROI; remove it, or "
            "convert it in ImageJ (Edit > Selection)"
        )
    if roi.roitype == ROI_TYPE.OVAL:
        return [np.array((roi.left, roi.top)) + _oval(roi.right - roi.left, roi.bottom - roi.top)]
    rings = list(roi.coordinates(multi=True))
    if min(map(len, rings), default=0) < MIN_CORNERS:
        raise LabelReadError(f"has an outline of fewer than {MIN_CORNERS} corners; draw it again")
    return rings


def _why_refused(roi: ImagejRoi) -> str | None:
    """What a ROI is that encloses no area that can be read."""
    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.IMAGE):
        return f"of type {roi.subtype.name.lower()}"
    if roi.roitype not in AREAS:
        return f"of type {roi.roitype.name.lower()}"
    if roi.options & ROI_OPTIONS.SPLINE_FIT:
        return "fitted with a spline"
    return "a rounded rectangle" if roi.rounded_rect_arc_size else None


def _oval(width: int, height: int) -> NDArray[np.int64]:
    """(n, 2) corners of the pixels whose centres lie in an ellipse, relative to its frame."""
    y = np.arange(height)
    reach = width * np.sqrt(height**2 - (2 * y + 1.0 - height) ** 2) / height
    left = np.ceil((width - 1 - reach) / 2).astype(np.int64)
    y, left = y[2 * left < width], left[2 * left < width]  # the outermost rows may hold no centre
    edges = np.column_stack([y, y + 1]).ravel()
    left_side, right_side = (np.column_stack([x.repeat(2), edges]) for x in (left, width - left))
    return np.concatenate([left_side, right_side[::-1]])
