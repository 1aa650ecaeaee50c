"""Classes of instances, from data lists to lookup tables and maps, and from predictions to tables."""

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

from ..errors import ConfigError, DatalistError, LabelReadError
from ..instances.labels import renumber
from ..io import read_labels, stem
from ..io.table import write_rows
from ..metrics.classes import majority_classes

Classes = str | Path | Mapping[str, Any] | Sequence[Any]


class LoadClassesd(MapTransform):
    """Read the classes of instances, number the instances 1..N and add ``class_label``, the map of classes.

    An entry of a data list says them under ``classes``: the path of a map of classes with the image's size or of a JSON
    file, or the JSON content itself, ``{"id": class, ...}`` or the list of the classes of the ids in their order. A
    class is a number 1..K or a name.

    Without class names, the transform does nothing.

    Args:
        class_names: of the classes 1..K.
        label_key: entry with the label map (1, H, W) int32; may be absent.
        classes_key: entry that is replaced by a table (N + 1,) int64, 0 for the background.
        map_key: entry for the map (1, H, W) int64.

    Raises:
        DatalistError: if an entry with a label has no classes.
        LabelReadError: if a class is not known or an instance has none.
    """

    def __init__(
        self,
        class_names: Sequence[str] | None = None,
        label_key: str = "label",
        classes_key: str = "classes",
        map_key: str = "class_label",
    ) -> None:
        super().__init__(label_key, allow_missing_keys=True)
        self.class_names, self.label_key = list(class_names or ()), label_key
        self.classes_key, self.map_key = classes_key, map_key
        if any(not isinstance(name, str) for name in self.class_names) or len(set(self.class_names)) < len(
            self.class_names
        ):
            raise ConfigError(f"class_names must be different names, got {self.class_names}")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the classes."""
        result = dict(data)
        given = result.pop(self.classes_key, None)
        if not self.class_names or result.get(self.label_key) is None:
            return result
        if given is None:
            raise DatalistError(
                f"the configuration has the classes {', '.join(self.class_names)}, but the entry of {_name(result)} "
                f"has no {self.classes_key!r}; add them, or leave class_names empty"
            )
        labels = np.asarray(result[self.label_key])[0]
        try:
            table = self._table(labels, given)
        except LabelReadError as error:
            where = given if isinstance(given, str | Path) else f"classes of {_name(result)} in the data list"
            raise LabelReadError(f"{where}: {error}") from None
        numbered, _ = renumber(labels)
        result[self.label_key] = torch.from_numpy(numbered[None])
        result[self.classes_key] = torch.from_numpy(table)
        result[self.map_key] = torch.from_numpy(table[numbered][None])
        return result

    def _table(self, labels: np.ndarray, given: Classes) -> np.ndarray:
        """Class of the background and of each instance in the order of the ids, (N + 1,) int64."""
        ids = [int(i) for i in np.unique(labels) if i > 0]
        if isinstance(given, str | Path) and Path(given).suffix.lower() == ".json":
            given = _read_json(Path(given))
        if isinstance(given, str | Path):
            found = self._from_map(labels, read_labels(given), ids)
        elif isinstance(given, Mapping):
            found = [given.get(str(i)) for i in ids]
        elif isinstance(given, Sequence):
            found = list(given)
        else:
            raise LabelReadError(f"are {given!r}; expected a list, an object of ids, or the path of a file")
        if len(found) != len(ids):
            raise LabelReadError(f"{len(found)} classes for {len(ids)} instances; give one for each")
        return np.array([0, *(self._number(name, i) for i, name in zip(ids, found, strict=True))], np.int64)

    def _from_map(self, labels: np.ndarray, classes: np.ndarray, ids: list[int]) -> list[Any]:
        """Class that most pixels of each instance have."""
        if classes.shape != labels.shape:
            raise LabelReadError(f"the map of classes is {classes.shape}, the label is {labels.shape}")
        if classes.max(initial=0) > len(self.class_names):
            raise LabelReadError(f"holds class {classes.max()}; there are {len(self.class_names)}")
        return [int(number) or None for number in majority_classes(labels, classes, len(self.class_names))]

    def _number(self, name: Any, instance: int) -> int:
        if name in self.class_names:
            return self.class_names.index(name) + 1
        if isinstance(name, int) and not isinstance(name, bool) and 1 <= name <= len(self.class_names):
            return name
        raise LabelReadError(
            f"instance {instance} has the class {name!r}; expected 1..{len(self.class_names)} or one of "
            f"{', '.join(self.class_names)}"
        )


def _name(data: Mapping[Hashable, Any]) -> str:
    """The image that an entry is about, as far as it is known."""
    return str(getattr(data.get("image"), "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, "an image"))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabelReadError(f"cannot be read as JSON: {error}") from error


class SaveClassesd(MapTransform):
    """Write the predicted classes of an image to ``<output_dir>/<stem>_classes.csv``: id, class, name, two scores.

    To be used after ``DecodeHoverd``. Predictions without classes are left alone.

    Args:
        class_names: of the classes 1..K.
        output_dir: folder; made when needed.
        image_key: entry whose metadata name the file.
    """

    def __init__(
        self, class_names: Sequence[str] | None = None, output_dir: str | Path = ".", image_key: str = "image"
    ) -> None:
        super().__init__("classes", allow_missing_keys=True)
        self.class_names, self.output_dir, self.image_key = list(class_names or ()), Path(output_dir), image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the file and return ``data`` unchanged."""
        result = dict(data)
        if not self.class_names or "class_scores" not in result:
            return result
        self.output_dir.mkdir(parents=True, exist_ok=True)
        path = self._path(result[self.image_key].meta[ImageMetaKey.FILENAME_OR_OBJ])
        columns = zip(result["classes"], result["class_scores"], result["scores"], strict=True)
        rows = [
            (i, int(number), self.class_names[number - 1], f"{class_score:.4f}", f"{score:.4f}")
            for i, (number, class_score, score) in enumerate(columns, 1)
        ]
        write_rows(path, ("id", "class", "name", "class_score", "score"), rows)
        return result

    def output_files(self, images: Sequence[str]) -> list[Path]:
        """Files that are written of some images."""
        return [self._path(image) for image in images] if self.class_names else []

    def _path(self, image: str) -> Path:
        return self.output_dir / f"{stem(image)}_classes.csv"
