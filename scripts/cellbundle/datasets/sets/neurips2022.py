"""NeurIPS 2022 cell segmentation challenge: microscopy of many kinds, from many laboratories.

Images are PNG, BMP and TIFF files of 8 and 16 bits, grey and RGB; labels are TIFF files of ids. The tuning images have
names that training images have as well. Which images belong together is not published.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import ImageReadError
from ...io import Image, read_image, read_labels
from ...io.folder import is_image
from ..label_maps import locate_pairs
from ..model import Found, Item, Sample, Section
from ..splits import beside_validation as split
from ..tree import Tree

__all__ = ["convert", "locate", "split"]

# Folder: start of the names of items, section, fold. Testing/Hidden has no labels, only what a team predicted.
PARTS: dict[str, tuple[str, Section, int | None]] = {
    "training-labeled": ("", "training", None),
    "tuning": ("tuning_", "training", 0),
    "public": ("", "testing", None),
}
LABEL_END = "_label"
AXES = ("YXS", "CYX")  # of TIFF files that do not say it, or call their channels a stack
RGB = 3


def locate(tree: Tree, variant: str, options: Mapping[str, Any], work: Path) -> Found:
    """Find ``images/<stem>.*`` with ``labels/<stem>_label.tiff`` in each part; see ``DatasetModule``."""
    images, labels, remarks = [], [], []
    for part in PARTS:
        own_images = [name for name in tree.glob(f"{part}/images/*") if is_image(name)]
        own_labels = tree.glob(f"{part}/labels/*{LABEL_END}.tif*")
        if own_images and not own_labels:
            remarks.append(f"the {len(own_images)} images in {part} have no labels and are left out")
            continue
        images += own_images
        labels += own_labels
    found = locate_pairs(tree, images, labels, _item_name, _complete)
    found.remarks += remarks
    return found


def convert(item: Item, options: Mapping[str, Any]) -> Sample:
    """Read ids; the image stays as it is unless its axes are unclear or it is RGBA; see ``DatasetModule``."""
    labels = read_labels(item.labels[0])
    image = _read(item.image, labels.shape)
    if len(image.data) > RGB and image.axes[-1] in "CS":
        return Sample(image.data[:RGB].astype(image.dtype), labels)
    return Sample(item.image if image.axes_source != "option" else image.data.astype(image.dtype), labels)


def _read(path: Path, shape: tuple[int, ...]) -> Image:
    """Read an image; where its axes are unclear, in the way that gives it the (H, W) of its labels."""
    try:
        return read_image(path)
    except ImageReadError:
        for axes in AXES:
            try:
                image = read_image(path, axes=axes)
            except ImageReadError:
                continue
            if image.data.shape[1:] == shape:
                return image
        raise


def _part(name: str) -> tuple[str, Section, int | None]:
    return PARTS[PurePosixPath(name).parts[-3].lower()]


def _item_name(name: str) -> str:
    return _part(name)[0] + PurePosixPath(name).stem.removesuffix(LABEL_END)


def _complete(item: Item, name: str) -> Item:
    _, section, fold = _part(name)
    return replace(item, section=section, fold=fold)
