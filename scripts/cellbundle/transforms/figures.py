"""A transform that writes pictures of predictions."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey
from monai.utils.type_conversion import convert_to_numpy

from ..io import stem
from ..metrics.accumulate import flat_map
from ..report.hover_figure import write_hover_figure

BACKGROUND = 3  # channel of the maps: the probability of no class


class SaveHoverFigured(MapTransform):
    """Write ``cellbundle.report.hover_figure`` of label maps (1, H, W) to ``<output_dir>/<stem>.png``.

    To be used after the decoder. An item without true labels is left alone.

    Args:
        keys: entry of the predicted label map.
        maps_key: entry of the (3, H, W) maps, as ``DecodeHoverd`` leaves them: probability of a nucleus, horizontal and
            vertical distance; with classes (3 + 1 + K, H, W), probabilities of the background and of K classes follow.
        output_dir: folder; made when needed.
        class_names: of the classes 1..K.
        image_key: entry of the image, whose metadata name the file.
        label_key: entry of the true label map.
        true_classes_key: entry of the true class map (1, H, W) or (H, W), where there is one.
        pred_classes_key: entry of the predicted class map, where there is one.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        maps_key: str = "maps",
        output_dir: str | Path = "figures",
        class_names: Sequence[str] | None = None,
        image_key: str = "image",
        label_key: str = "label",
        true_classes_key: str = "class_label",
        pred_classes_key: str = "class_pred",
    ) -> None:
        super().__init__(keys)
        self.maps_key, self.image_key, self.label_key = maps_key, image_key, label_key
        self.true_classes_key, self.pred_classes_key = true_classes_key, pred_classes_key
        self.output_dir, self.class_names = Path(output_dir), list(class_names or ())

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the figures and return ``data`` unchanged."""
        result = dict(data)
        if result.get(self.label_key) is None:
            return result
        self.output_dir.mkdir(parents=True, exist_ok=True)
        image, maps = result[self.image_key], _array(result[self.maps_key]).astype(np.float32)
        shown = [channel for channel in range(len(maps)) if channel != BACKGROUND]
        for key in self.key_iterator(result):
            write_hover_figure(
                self._path(image.meta[ImageMetaKey.FILENAME_OR_OBJ]),
                _array(image),
                flat_map(result[self.label_key]),
                flat_map(result[key]),
                maps[shown],
                true_classes=flat_map(result.get(self.true_classes_key)),
                pred_classes=flat_map(result.get(self.pred_classes_key)),
                class_names=self.class_names,
            )
        return result

    def output_files(self, images: Sequence[str]) -> list[Path]:
        """Files that are written of some images, if they have labels."""
        return [self._path(image) for image in images]

    def _path(self, image: str) -> Path:
        return self.output_dir / f"{stem(image)}.png"


def _array(values: Any) -> Any:
    return np.asarray(convert_to_numpy(values))
