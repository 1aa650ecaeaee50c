"""Transforms that touch files: load an image with its labels, save a label map."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

from ..errors import DatalistError, LabelReadError
from ..io import read_image, read_labels, stem, write_labels
from .monai_label import answered_errors


class LoadCelld(MapTransform):
    """Load ``image`` as MetaTensor (C, H, W) float32 in raw units and, where present, ``label`` as (1, H, W) int32.

    Args:
        image_key: entry that holds the image's path.
        label_key: entry that holds the label's path; may be absent.
        axes: axes of image files that do not say them, for example "CYX".
        binary: what to do with 0/255 masks given as labels, see ``cellbundle.io.images.read.read_labels``.

    Raises:
        ImageReadError: if the image cannot be read or its axes are unclear.
        LabelReadError: if the label cannot be read or has another size than the image.
    """

    def __init__(
        self,
        image_key: str = "image",
        label_key: str = "label",
        axes: str | None = None,
        binary: Literal["refuse", "components"] = "refuse",
    ) -> None:
        super().__init__([image_key, label_key], allow_missing_keys=True)
        self.image_key, self.label_key, self.axes, self.binary = image_key, label_key, axes, binary

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with tensors in place of paths."""
        path = Path(data[self.image_key])
        with answered_errors(path):
            return self._load(dict(data), path)

    def _load(self, result: dict[Hashable, Any], path: Path) -> dict[Hashable, Any]:
        image = read_image(path, axes=self.axes)
        meta = {ImageMetaKey.FILENAME_OR_OBJ: str(path)}
        result[self.image_key] = MetaTensor(torch.from_numpy(image.data), meta=meta)
        if result.get(self.label_key) is not None:
            labels = read_labels(result[self.label_key], binary=self.binary)
            if labels.shape != image.data.shape[1:]:
                raise LabelReadError(
                    f"{result[self.label_key]}: label is {labels.shape[0]}x{labels.shape[1]}, its image {path} is "
                    f"{image.data.shape[1]}x{image.data.shape[2]}; both must have the same height and width"
                )
            result[self.label_key] = torch.from_numpy(labels[None])
        return result


class SaveLabelsd(MapTransform):
    """Write label maps (1, H, W) or (H, W) to ``<output_dir>/<stem>_labels.tif``, the stem taken from the image's path.

    Args:
        keys: entries to write.
        image_key: entry whose metadata name the file.
        output_dir: folder; made when needed.
        suffix: follows the stem.

    Raises:
        DatalistError: if the file has the label map of another image of the run.
    """

    def __init__(
        self, keys: KeysCollection = "pred", image_key: str = "image", output_dir: str = ".", suffix: str = "_labels"
    ) -> None:
        super().__init__(keys)
        self.image_key, self.output_dir, self.suffix = image_key, Path(output_dir), suffix
        self.written: dict[str, str] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the files and return ``data`` unchanged."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        path = str(data[self.image_key].meta[ImageMetaKey.FILENAME_OR_OBJ])
        name = stem(path)
        other = self.written.setdefault(name, path)
        if other != path:
            raise DatalistError(
                f"{path}: {self._path(path).name} has the label map of {other}; give images different names, or run "
                "them with another output_dir"
            )
        for key in self.key_iterator(dict(data)):
            labels = np.asarray(data[key]).squeeze(0) if data[key].ndim == 3 else np.asarray(data[key])
            write_labels(self._path(path), labels)
        return dict(data)

    def output_files(self, images: Sequence[str]) -> list[Path]:
        """Files that are written of some images."""
        return [self._path(image) for image in images]

    def _path(self, image: str) -> Path:
        return self.output_dir / f"{stem(image)}{self.suffix}.tif"
