"""Writes what challenges ask for when an evaluation ends: Kaggle's submission and COCO's results."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
from monai.utils.enums import CommonKeys as Keys

from ... import distributed
from ...errors import ConfigError
from ...instances.overlaps import labels_to_rles
from ...io import printable, stem
from ...io.formats.coco import result_texts, write_image_info, write_results
from ...io.formats.kaggle import ORDERS, write_submission
from .base import ItemHandler

logger = logging.getLogger(__name__)

SUBMISSION = "submission.csv"
RESULTS = "coco_results.json"
IMAGES = "coco_images.json"
ID_KEYS = ("image_id", "id")  # of an entry of a data list


@dataclass(frozen=True)
class ImageTexts:
    """What the files say of one image.

    Attributes:
        path: of the image.
        given_id: what its entry in the data list calls it; None if that says nothing.
        shape: (H, W).
        runs: Kaggle's run lengths of each instance of the label map.
        detections: ``cellbundle.io.formats.coco.result_texts``.
    """

    path: str
    given_id: Any
    shape: tuple[int, int]
    runs: list[str]
    detections: list[str]


class ResultFiles(ItemHandler):
    """A handler that keeps the texts of each image of an evaluator, and writes the files when the run is complete.

    - ``submission.csv``: ``idx,id,annotation``, a row for each instance of the label map; ``id`` is the name of the
      image without its suffix, or ``distinct_names`` where images share it; ``-1`` for an image without instances.
    - ``coco_results.json``: all detections, which may overlap, by ``image_id``: the ``image_id`` or ``id`` of the
      entries of the data list if those are different numbers, or texts, for all images; else the index of the image.
    - ``coco_images.json``: which file each ``image_id`` is, and the name of each category, without which numbers of
      images mean nothing to others.

    Images are in the order of their index. One that failed is in none of the files; one that is listed twice is in them
    once. Labels are not needed.

    Args:
        folder: made when needed; files of these names in it are replaced.
        class_names: of the classes 1..K.
        submission: whether to write ``submission.csv``.
        coco: whether to write the two COCO files; the decoder must give ``detections``.
        order: in which order pixels count in the submission: ``"row"`` (Sartorius 2021) or ``"column"`` (Data Science
            Bowl 2018).
        enabled: False does nothing.

    Raises:
        ConfigError: for another order, or if the decoder gives no detections for COCO.
    """

    def __init__(
        self,
        folder: str | Path,
        class_names: Sequence[str] | None = None,
        submission: bool = True,
        coco: bool = True,
        order: Literal["row", "column"] = "row",
        enabled: bool = True,
    ) -> None:
        if order not in ORDERS:
            raise ConfigError(f"order is {order!r}; choose one of {', '.join(ORDERS)}")
        super().__init__(enabled)
        self.folder, self.class_names, self.order = Path(folder), list(class_names or ()), order
        self.submission, self.coco = submission, coco
        self.images: dict[int, ImageTexts] = {}

    def files(self) -> list[Path]:
        """The files that are asked for."""
        names = [*([SUBMISSION] if self.submission else []), *([RESULTS, IMAGES] if self.coco else [])]
        return [self.folder / name for name in names]

    def start(self) -> None:
        """Forget an earlier run."""
        self.images = {}

    def add(self, index: int, item: Mapping[str, Any]) -> None:
        """Keep the texts of an image."""
        self.images[index] = self._texts(item)

    def _texts(self, item: Mapping[str, Any]) -> ImageTexts:
        if self.coco and "detections" not in item:
            raise ConfigError(f"{item['path']}: the decoder gives no detections for {RESULTS}; set coco to False")
        labels = np.asarray(item[Keys.PRED])[0]
        return ImageTexts(
            path=str(item["path"]),
            given_id=next((item[key] for key in ID_KEYS if key in item), None),
            shape=labels.shape,
            runs=labels_to_rles(labels, ORDERS[self.order]) if self.submission else [],
            detections=result_texts(item["detections"]) if self.coco else [],
        )

    def finish(self) -> None:
        """Write the files."""
        found = distributed.gather_by_index(self.images)
        self.images = {}
        if distributed.rank() != 0:
            return
        first = {found[index].path: index for index in sorted(found, reverse=True)}  # of one path, the first index
        indices = sorted(first.values())
        images = [found[index] for index in indices]
        names = distinct_names([image.path for image in images])
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.submission:
            runs = (image.runs for image in images)
            write_submission(self.folder / SUBMISSION, zip(names, runs, strict=True))
        if self.coco:
            self._write_coco(images, names, image_ids(images, indices))

    def _write_coco(self, images: Sequence[ImageTexts], names: Sequence[str], ids: Sequence[int | str]) -> None:
        write_results(self.folder / RESULTS, zip(ids, (image.detections for image in images), strict=True))
        rows = [
            {
                "id": image_id,
                "file_name": printable(PurePath(image.path).name) if name == printable(stem(image.path)) else name,
                "height": image.shape[0],
                "width": image.shape[1],
            }
            for image_id, name, image in zip(ids, names, images, strict=True)
        ]
        write_image_info(self.folder / IMAGES, rows, self.class_names)


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Name of each file without its suffix; where files share it, as many folders and the suffix as tell them apart.

    Args:
        paths: different ones.
    """
    parts = [PurePath(printable(path)).parts for path in paths]
    names = [stem(one[-1]) for one in parts]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        counts = Counter(names)
        names = [
            name if counts[name] == 1 else PurePath(*one[-depth:]).as_posix()
            for name, one in zip(names, parts, strict=True)
        ]
    return names


def image_ids(images: Sequence[ImageTexts], indices: Sequence[int]) -> Sequence[int | str]:
    """The ids of the data list if each image has its own, all numbers or all texts; else the indices."""
    given = [image.given_id for image in images]
    kinds = {type(one) for one in given}
    if kinds <= {int} or kinds <= {str}:
        if len(set(given)) == len(given):
            return given
        logger.warning("images of the data list share an id, so %s has their indices; see %s", RESULTS, IMAGES)
    elif kinds != {type(None)}:
        logger.warning("not all images of the data list have ids of one type, so %s has their indices", RESULTS)
    return indices
