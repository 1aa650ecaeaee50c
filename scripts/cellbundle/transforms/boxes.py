"""Label maps to what two-stage detectors learn from."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..instances.labels import label_components, renumber


class InstanceMapsd(MapTransform):
    """Replace label maps (1, H, W) by ``{"label_map": (H, W) int32, "class_map": (H, W) int64}``, ids 1..N.

    The pair has one size for all images, so batches are tensors; ``cellbundle.engine.detection.prepare_instances``
    makes boxes and masks of it. To be used after all geometric augmentation, so that boxes belong to what is left.
    Parts of an instance that do not touch get ids of their own: mirrored padding puts them far apart, in one box.

    Args:
        keys: entries to replace.
        min_size: instances with fewer pixels become background, such as slivers at the border of a crop.
        classes_key: entry with the class of each id, (N + 1,) int64, as ``LoadClassesd`` makes it; without it, all
            instances have the class 1.
        map_key: entry to drop.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        min_size: int = 1,
        classes_key: str = "classes",
        map_key: str = "class_label",
    ) -> None:
        super().__init__(keys)
        self.min_size, self.classes_key, self.map_key = min_size, classes_key, map_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with pairs of maps in place of label maps."""
        result = dict(data)
        table = result.pop(self.classes_key, None)
        result.pop(self.map_key, None)
        for key in self.key_iterator(result):
            ids = np.asarray(result[key][0]).astype(np.int32)
            parts, _ = label_components(ids, connectivity=4)
            large = np.bincount(parts.reshape(-1)) >= self.min_size
            labels, _ = renumber(np.where(large[parts], parts, 0))
            classes = np.ones_like(ids, np.int64) if table is None else np.asarray(table)[ids]
            classes = np.where(labels > 0, classes, 0)
            result[key] = {"label_map": torch.from_numpy(labels), "class_map": torch.from_numpy(classes)}
        return result
