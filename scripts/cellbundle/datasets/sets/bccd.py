"""BCCD with mask (BBBC041Seg): blood smears, one black and white mask an image.

The masks know cells from background, not one cell from another: instances are connected parts, so that cells which
touch are one instance, unless they are split by their shape. Some masks hold values near black and white, as JPEG
leaves them. Folders are named ``original`` and ``mask``, or ``images`` and ``masks``.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from ...errors import DatasetError, LabelReadError
from ...instances.labels import label_components
from ...io import read_image
from ..model import Found, Item, Problem, Sample, Section
from ..splits import by_group as split
from ..tree import Tree, pair

__all__ = ["convert", "locate", "split"]

FOLDERS = {"original_mask": ("original", "mask"), "images_masks": ("images", "masks")}
SECTIONS: dict[str, Section] = {"train": "training", "test": "testing"}
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}
WHITE_FROM = 128
MIN_NOTCH = 0.15  # of the largest distance from the border in an instance


def locate(tree: Tree, variant: str, options: Mapping[str, Any], work: Path) -> Found:
    """Pair images and masks of ``train`` and ``test`` by name; see ``DatasetModule``."""
    del options, work
    images, masks = (
        [
            name
            for section in SECTIONS
            for name in tree.glob(f"{section}/{folder}/*")
            if PurePosixPath(name).suffix.lower() in SUFFIXES
        ]
        for folder in FOLDERS[variant]
    )
    pairs, broken = pair(images, masks, _key, _key)
    if not pairs:
        expected = " beside ".join(f"train/{folder}/*.png" for folder in FOLDERS[variant])
        raise DatasetError(f"{tree.root}: no image has a mask; expected {expected}, with equal names")
    repeated = len({PurePosixPath(key).name.casefold() for key in pairs}) < len(pairs)
    items = []
    for key, (image, mask) in pairs.items():
        section, stem = key.split("/")
        name = f"{section}_{stem}" if repeated else stem
        items.append(Item(name, tree.files[image], (tree.files[mask],), section=SECTIONS[section]))
    return Found(items, [Problem(key, reason) for key, reason in broken.items()])


def convert(item: Item, options: Mapping[str, Any]) -> Sample:
    """Number the 8-connected white parts of a mask; see ``DatasetModule``."""
    mask = read_image(item.labels[0], as_stored=True).data[0]
    if 0 < mask.max() < WHITE_FROM:
        raise LabelReadError(
            f"{item.labels[0]}: the largest value is {mask.max():g}; expected black (0) and white (255)"
        )
    white = mask >= WHITE_FROM
    labels, n = label_components(white, min_size=options["min_size"])
    n_small = label_components(white)[1] - n
    remarks = (f"specks of fewer than {options['min_size']} pixels are left out: {n_small}",) if n_small else ()
    return Sample(item.image, _split_touching(labels) if options["split_touching"] else labels, remarks)


def _split_touching(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Cut instances at their necks: a watershed of the distance from the border.

    The distance is taken relative to the largest one of the instance, so that the size of cells in pixels does not
    matter. Two parts are cells of their own if each is deeper than the neck between them by ``MIN_NOTCH``: two equal
    discs are cut if the neck is narrower than 85 % of their diameter.
    """
    depth = ndimage.distance_transform_edt(labels)
    deepest = ndimage.maximum(depth, labels, np.arange(labels.max() + 1))
    depth /= np.maximum(deepest, 1)[labels]
    centres = local_maxima(reconstruction(depth - MIN_NOTCH, depth)) & (labels > 0)
    return watershed(-depth, label_components(centres)[0], mask=labels > 0, connectivity=2)


def _key(name: str) -> str:
    """``train/<stem>``, the same for an image and its mask."""
    path = PurePosixPath(name)
    return f"{path.parent.parent.name.lower()}/{path.stem}"
