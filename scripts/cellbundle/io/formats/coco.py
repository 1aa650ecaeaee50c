"""COCO JSON: one annotation for each instance; written with run lengths, read with polygons too."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, cast

import numpy as np
from pycocotools import mask as coco_mask

from ...errors import ArrayError, LabelReadError
from ...instances import Instances
from ...instances.detections import Detections, mask_rles
from ...instances.overlaps import labels_to_rles
from ...instances.painting import Painted, extent, paint_rles
from ...instances.rle import coco_rle
from ...kernels.geometry import boxes_and_areas
from ..images.errors import named
from ..write import atomic_path

IMAGE_ID = 1
DEFAULT_CATEGORY = "cell"  # of instances without a class
MIN_POINTS = 3

ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, eq=False)
class CocoImage:
    """One image of a COCO file with its annotations, in the order of the file.

    Attributes:
        path: the file.
        file_name: of the image, as it stands in the file.
        height: of the image, in pixels.
        width: of the image, in pixels.
        ids: of the annotations.
        segmentations: of each annotation: a list of polygons ``[x1, y1, x2, y2 …]``, or a dictionary of ``size`` and
            ``counts``, run lengths that are compressed (str) or not (a list). Not checked until they are painted.
        categories: name of the category of each annotation.
        is_crowd: whether an annotation is a region of instances that have no outlines of their own.
    """

    path: Path
    file_name: str
    height: int
    width: int
    ids: list[Any]
    segmentations: list[Any]
    categories: list[str]
    is_crowd: list[bool]

    def without_crowds(self) -> "CocoImage":
        """The image without regions of many instances."""
        keep = [not crowd for crowd in self.is_crowd]
        lists = (self.ids, self.segmentations, self.categories, self.is_crowd)
        ids, segmentations, categories, is_crowd = (list(compress(values, keep)) for values in lists)
        return replace(self, ids=ids, segmentations=segmentations, categories=categories, is_crowd=is_crowd)

    def paint(self) -> Painted:
        """Paint all annotations, by pycocotools' rule which pixels a polygon holds.

        The polygons of one annotation are its parts: a pixel in any of them belongs to it.

        Returns:
            The label map, with the ids 1, 2 … in the order of the annotations, and what is lost in it.

        Raises:
            LabelReadError: if a polygon or run lengths are broken or do not fit the image; the message names the
                annotation.
        """
        current = None

        def encoded() -> Iterator[Any]:
            nonlocal current
            for index, segmentation in zip(self.ids, self.segmentations, strict=True):
                current = index
                yield _run_lengths(segmentation, self.height, self.width)

        try:
            painted = paint_rles(encoded(), (self.height, self.width), "coco")
        except ArrayError as error:  # run lengths are read one at a time, so it is about the current annotation
            raise LabelReadError(f"{self.path}: annotation {current} of {self.file_name}: {error}") from error
        return painted.framed([_extent(one) for one in self.segmentations])


def read_coco(path: str | Path) -> dict[str, list[CocoImage]]:
    """Read a COCO data set.

    Args:
        path: a JSON file with ``images``, ``annotations`` and ``categories``.

    Returns:
        The images by file name, in the order of the file. Where one file is listed under several ids, as in LIVECell,
        each of them is an image with its own annotations.

    Raises:
        LabelReadError: if the file cannot be read, a key is missing, or an annotation is of an unknown image or
            category; the message names the entry.

    Source: https://cocodataset.org/#format-data.
    """
    path = Path(path)
    with named(path, LabelReadError):
        document = _checked(json.loads(path.read_bytes()), ("images", "annotations", "categories"), "the document")
        images: dict[Any, CocoImage] = {}
        for image in document["images"]:
            _checked(image, ("id", "file_name", "height", "width"), "an image")
            if image["id"] in images:
                raise LabelReadError(f"lists two images with the id {image['id']}; give each its own")
            height, width = image["height"], image["width"]
            if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
                raise LabelReadError(f"image {image['id']} has height {height} and width {width}, expected pixels")
            images[image["id"]] = CocoImage(path, image["file_name"], height, width, [], [], [], [])
        names: dict[Any, str] = {}
        for entry in document["categories"]:
            _checked(entry, ("id", "name"), "a category")
            if names.setdefault(entry["id"], entry["name"]) != entry["name"]:
                raise LabelReadError(f"lists two categories with the id {entry['id']}; give each its own")
        for annotation in document["annotations"]:
            _add(annotation, images, names)
    by_name: dict[str, list[CocoImage]] = {}
    for found in images.values():
        by_name.setdefault(found.file_name, []).append(found)
    return by_name


def _checked(entry: Any, keys: Sequence[str], what: str) -> Mapping[str, Any]:
    """The entry, which must be a dictionary with these keys."""
    missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
    if missing:
        name = f" (id {entry['id']})" if isinstance(entry, dict) and "id" in entry else ""
        raise LabelReadError(f"{what}{name} has no {', '.join(missing)}; expected a COCO data set for segmentation")
    return cast("Mapping[str, Any]", entry)


def _add(annotation: Any, images: Mapping[Any, CocoImage], names: Mapping[Any, str]) -> None:
    """Add an annotation to its image."""
    _checked(annotation, ("id", "image_id", "category_id", "segmentation"), "an annotation")
    for key, known in (("image_id", images), ("category_id", names)):
        if annotation[key] not in known:
            raise LabelReadError(
                f"annotation {annotation['id']} has the {key} {annotation[key]}, which the file does not list"
            )
    image = images[annotation["image_id"]]
    image.ids.append(annotation["id"])
    image.segmentations.append(annotation["segmentation"])
    image.categories.append(names[annotation["category_id"]])
    image.is_crowd.append(bool(annotation.get("iscrowd", 0)))


def _run_lengths(segmentation: Any, height: int, width: int) -> Any:
    """Run lengths of a mask as they stand, or of the union of its polygons."""
    if isinstance(segmentation, dict):
        return segmentation
    if not isinstance(segmentation, list) or not segmentation:
        raise ArrayError(f"segmentation is {segmentation!r}, expected polygons or run lengths")
    for polygon in segmentation:
        _check_polygon(polygon, max(height, width))
    return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))


def _extent(segmentation: Any) -> tuple[float, float, float, float]:
    """Smallest and largest coordinates of checked polygons; NaN for run lengths."""
    polygons = [] if isinstance(segmentation, dict) else segmentation
    return extent([np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons])


def _check_polygon(polygon: Any, side: int) -> None:
    try:
        numbers = np.asarray(polygon, np.float64)
    except (TypeError, ValueError) as error:
        raise ArrayError(f"a polygon holds what is no number ({error}); expected x1, y1, x2, y2 …") from error
    if numbers.ndim != 1 or len(numbers) < 2 * MIN_POINTS or len(numbers) % 2:
        raise ArrayError(
            f"a polygon has {numbers.size} numbers, expected x1, y1, x2, y2 … of at least {MIN_POINTS} points"
        )
    if not (np.abs(numbers - side / 2) <= 1.5 * side).all():  # pycocotools needs memory for every pixel on the way
        raise ArrayError(
            f"a polygon reaches from {numbers.min():g} to {numbers.max():g}, far out of an image with sides up to "
            f"{side}; expected pixels"
        )


def write_coco(path: str | Path, instances: Instances, file_name: str) -> None:
    """Write all instances of one image as a COCO data set, one annotation a line.

    Masks are compressed run lengths, exact, holes and several parts included; ids of annotations are ids of the label
    map. Categories are the classes in alphabetical order, ids from 1.

    Args:
        path: the file to write; its folder must exist.
        instances: any number of instances.
        file_name: name of the image, as it shall stand in the file.

    Raises:
        OSError: if the file cannot be written.

    Source: https://cocodataset.org/#format-data; ``score`` as in its result format.
    """
    height, width = instances.labels.shape
    names = [name or DEFAULT_CATEGORY for name in instances.classes]
    categories = {name: index for index, name in enumerate(sorted(set(names) or {DEFAULT_CATEGORY}), start=1)}
    images = [{"id": IMAGE_ID, "file_name": file_name, "height": height, "width": width}]
    listed = [{"id": index, "name": name} for name, index in categories.items()]
    annotations = ",\n".join(map(ENCODER.encode, _annotations(instances, [categories[name] for name in names])))
    text = (
        f'{{"images":{ENCODER.encode(images)},\n"categories":{ENCODER.encode(listed)},\n'
        f'"annotations":[\n{annotations}\n]}}\n'
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _annotations(instances: Instances, category_ids: list[int]) -> Iterator[dict[str, Any]]:
    """One annotation for each instance."""
    n = len(instances)
    boxes_yxyx, areas = boxes_and_areas(instances.labels, n)
    rles = labels_to_rles(instances.labels)
    scores = instances.table["score"].tolist() if "score" in instances.table else [math.nan] * n
    rows = zip(boxes_yxyx.tolist(), areas.tolist(), rles, category_ids, scores, strict=True)
    for label, ((y0, x0, y1, x1), area, counts, category, score) in enumerate(rows, start=1):
        annotation = {
            "id": label,
            "image_id": IMAGE_ID,
            "category_id": category,
            "segmentation": coco_rle(counts, instances.labels.shape),
            "area": area,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
        }
        if math.isfinite(score):
            annotation["score"] = score
        yield annotation


def result_texts(detections: Detections) -> list[str]:
    """An entry of a result file for each detection, as JSON without the image: what ``write_results`` takes."""
    rows = zip(
        detections.classes.tolist(),
        mask_rles(detections),
        detections.boxes_yxyx.tolist(),
        detections.scores.tolist(),
        strict=True,
    )
    return [
        ENCODER.encode(
            {
                "category_id": category,
                "segmentation": coco_rle(counts, detections.shape),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
            }
        )
        for category, counts, (y0, x0, y1, x1), score in rows
    ]


def write_results(path: str | Path, images: Iterable[tuple[int | str, Sequence[str]]]) -> None:
    """Write detections of many images in COCO's result format, one a line, as ``COCO.loadRes`` reads it.

    Args:
        path: the file to write; its folder must exist.
        images: id of each image, and its ``result_texts``.

    Raises:
        OSError: if the file cannot be written.

    Source: https://cocodataset.org/#format-results.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        before = "["
        for image_id, texts in images:
            for text in texts:
                file.write(f'{before}\n{{"image_id":{ENCODER.encode(image_id)},{text[1:]}')
                before = ","
        file.write("[]\n" if before == "[" else "\n]\n")


def write_image_info(path: str | Path, images: Sequence[Mapping[str, Any]], class_names: Sequence[str] = ()) -> None:
    """Write which images and categories the numbers of a result file mean, as COCO's ``image_info`` files say it.

    Args:
        path: the file to write; its folder must exist.
        images: ``id``, ``file_name``, ``height`` and ``width`` of each.
        class_names: of the categories 1..K; without names there is one category.

    Raises:
        OSError: if the file cannot be written.
    """
    names = class_names or [DEFAULT_CATEGORY]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    listed = ",\n".join(map(ENCODER.encode, images))
    with atomic_path(path) as temporary:
        temporary.write_text(f'{{"images":[\n{listed}\n],\n"categories":{ENCODER.encode(categories)}}}\n', "utf-8")
