"""COCO JSON: one annotation for each instance, with a run-length mask."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..instances import Instances
from ..kernels.geometry import boxes_and_areas
from ..masks import labels_to_rles
from .write import atomic_path

IMAGE_ID = 1
DEFAULT_CATEGORY = "cell"  # of instances without a class

ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


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
    n, (height, width) = len(instances), instances.labels.shape
    boxes, areas = boxes_and_areas(instances.labels, n)
    rles = labels_to_rles(instances.labels)
    scores = instances.table["score"].tolist() if "score" in instances.table else [math.nan] * n
    rows = zip(boxes.tolist(), areas.tolist(), rles, category_ids, scores, strict=True)
    for label, ((y0, x0, y1, x1), area, counts, category, score) in enumerate(rows, start=1):
        annotation = {
            "id": label,
            "image_id": IMAGE_ID,
            "category_id": category,
            "segmentation": {"size": [height, width], "counts": counts},
            "area": area,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
        }
        if math.isfinite(score):
            annotation["score"] = score
        yield annotation
