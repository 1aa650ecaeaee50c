"""Reads the instances of one image, in any of the encodings of users' folders, into a label map."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArrayError, CellBundleError, LabelReadError
from ...instances.labels import label_components
from ...instances.painting import Painted, Ring, paint_rings, paint_rles
from ...instances.rle import Form
from ...io import Image, atomic_path, read_image, read_labels
from ...io.formats.cellpose_seg import read_cellpose_seg
from ...io.formats.coco import CocoImage, read_coco
from ...io.formats.colour_masks import read_colour_mask
from ...io.formats.geojson import read_geojson
from ...io.formats.imagej import read_imagej
from ...io.formats.kaggle import KaggleImage, read_kaggle
from ...io.formats.mask_files import paint_mask_files
from ...io.formats.yolo import read_yolo
from ..model import Item
from ._remarks import remarks_on

FORMS: dict[str, Form] = {"columns": "kaggle", "rows": "kaggle_rows"}
QUPATH = {"annotations": ("annotation",), "detections": ("cell", "detection")}  # types of objects
AUTO, DETECTIONS = "auto", "detections"
MAX_SHOWN = 3

Read = tuple[NDArray[np.integer], list[str]]  # a label map, and remarks


def read_instances(item: Item, options: Mapping[str, Any]) -> Read:
    """Read the label files of an item.

    Args:
        item: with its encoding in ``detail``, and for the shared encodings the file of its part in ``part``.
        options: of the data set.

    Returns:
        (H, W) label map of integers, any ids; and sentences about what is odd.

    Raises:
        CellBundleError: if a file cannot be read, is of another encoding, or does not fit the image.
    """
    return READERS[item.detail["encoding"]](item, options)


def kind_of_raster(path: Path) -> str | None:
    """Tell label maps ("label_map"), masks that do not tell cells apart ("binary") and "colours" from each other.

    A map whose only id is 1, in several places, counts as binary.

    Returns:
        The encoding; None if the file has no instance or cannot be read.
    """
    try:
        labels = read_labels(path)
    except LabelReadError:
        return _kind_of_refused(path)
    highest = labels.max()
    if highest == 1 and label_components(labels)[1] > 1:
        return "binary"
    return "label_map" if highest else None


def cut_file(encoding: str, path: Path) -> Iterator[tuple[str, list[str]]]:
    """Cut a file for many images into the parts that ``read_instances`` reads.

    Args:
        encoding: "coco" or "kaggle_rle".
        path: the file.

    Yields:
        Name of an image as it stands in the file, and its part as JSON; several, if it is listed under several ids.

    Raises:
        LabelReadError: if the file cannot be read.
    """
    found: Mapping[str, Sequence[CocoImage | KaggleImage]] = (
        read_coco(path) if encoding == "coco" else {name: [image] for name, image in read_kaggle(path).items()}
    )
    for name, images in found.items():
        parts = ({key: value for key, value in vars(image).items() if key != "path"} for image in images)
        yield name, [json.dumps(part) for part in parts]


def save_part(path: Path, text: str) -> None:
    """Write the part of one image where ``read_instances`` will find it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _label_map(item: Item, options: Mapping[str, Any]) -> Read:
    try:
        return read_labels(item.labels[0]), []
    except LabelReadError as error:
        kind = kind_of_raster(item.labels[0])
        if kind in ("binary", "colours"):
            raise LabelReadError(f"{error} (for this data set: the option encoding: {kind})") from error
        raise


def _binary(item: Item, options: Mapping[str, Any]) -> Read:
    data = _mask(item.labels[0]).data
    values = np.unique(data[data != 0])
    if len(values) > 1:
        shown = ", ".join(f"{value:g}" for value in values[:MAX_SHOWN])
        raise LabelReadError(
            f"{item.labels[0]}: holds {len(values)} values besides 0 ({shown}, ...), expected one; a label map needs "
            "encoding: label_map, and a mask that JPEG has blurred must be made black and white"
        )
    return label_components((data != 0).any(axis=0))[0], []


def _colours(item: Item, options: Mapping[str, Any]) -> Read:
    table = dict(sorted(options["colours"].items(), key=lambda pair: str(pair[1])))  # its order does not matter here
    return read_colour_mask(item.labels[0], table)[1], []


def _mask_files(item: Item, options: Mapping[str, Any]) -> Read:
    return _painted(item, paint_mask_files(item.labels))


def _coco(item: Item, options: Mapping[str, Any]) -> Read:
    image = CocoImage(item.labels[0], **_part(item))
    cells = image.without_crowds()
    labels, remarks = _painted(item, cells.paint())
    if n := len(image.ids) - len(cells.ids):
        remarks.append(f"{n} regions of many cells (iscrowd) are left out")
    return labels, remarks


def _yolo(item: Item, options: Mapping[str, Any]) -> Read:
    return _painted(item, read_yolo(item.labels[0], _shape(item, options), corners=options["yolo_corners"])[0])


def _kaggle_rle(item: Item, options: Mapping[str, Any]) -> Read:
    image = KaggleImage(**_part(item))
    height, width = image.shape or _shape(item, options)
    try:
        return _painted(item, paint_rles(image.runs, (height, width), FORMS[options["rle_order"]]))
    except ArrayError as error:
        raise LabelReadError(f"{item.labels[0]}: image {item.name}: {error}") from error


def _imagej(item: Item, options: Mapping[str, Any]) -> Read:
    return _rings(item, options, [roi.rings for roi in read_imagej(item.labels[0])])


def _geojson(item: Item, options: Mapping[str, Any]) -> Read:
    features = read_geojson(item.labels[0])
    choice = options["geojson_objects"]
    cells = [one for one in features if one.object_type in QUPATH[DETECTIONS if choice == AUTO else choice]]
    if features and not cells and choice != AUTO:
        raise LabelReadError(f"{item.labels[0]}: has no {choice} among {len(features)} objects; see geojson_objects")
    labels, remarks = _rings(item, options, [one.rings for one in cells or features])
    if n := len(features) - len(cells or features):
        auto = f"{n} annotations beside cells or detections are taken for regions and left out"
        remarks.append(auto if choice == AUTO else f"{n} objects are no {choice} and left out")
    return labels, remarks


def _cellpose_seg(item: Item, options: Mapping[str, Any]) -> Read:
    return read_cellpose_seg(item.labels[0]), []


READERS: dict[str, Callable[[Item, Mapping[str, Any]], Read]] = {
    "label_map": _label_map,
    "mask_files": _mask_files,
    "coco": _coco,
    "yolo": _yolo,
    "kaggle_rle": _kaggle_rle,
    "imagej": _imagej,
    "geojson": _geojson,
    "cellpose_seg": _cellpose_seg,
    "colours": _colours,
    "binary": _binary,
}


def _rings(item: Item, options: Mapping[str, Any], instances: Sequence[Sequence[Ring]]) -> Read:
    """Paint polygons along the edges of pixels."""
    try:
        return _painted(item, paint_rings(instances, _shape(item, options)))
    except ArrayError as error:
        raise LabelReadError(f"{item.labels[0]}: {error}") from error


def _painted(item: Item, painted: Painted) -> Read:
    return painted.labels, remarks_on(item, painted, "instances")


def _shape(item: Item, options: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the image, which its EXIF orientation may exchange."""
    height, width = read_image(item.image, exif=options["exif"]).data.shape[1:]
    return height, width


def _part(item: Item) -> dict[str, Any]:
    return json.loads(Path(item.detail["part"]).read_text(encoding="utf-8"))


def _mask(path: Path) -> Image:
    """A picture of labels."""
    try:
        return read_image(path, as_stored=True)
    except CellBundleError as error:
        raise LabelReadError(str(error)) from error


def _kind_of_refused(path: Path) -> str | None:
    """Encoding of a picture that is no label map."""
    try:
        read_labels(path, binary="components")
    except LabelReadError:
        try:
            return "colours" if len(read_image(path, as_stored=True).data) == 3 else None
        except CellBundleError:
            return None
    return "binary"
