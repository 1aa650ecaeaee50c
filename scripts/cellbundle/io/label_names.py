"""Names of files that hold labels or by-products of a segmentation, not images."""

import re
from pathlib import PurePosixPath
from typing import Literal

IMAGE_FOLDERS = {"image", "images", "img", "imgs"}
LABEL_FOLDERS = {"label", "labels", "mask", "masks", "annotation", "annotations"}
IMAGE_TAIL = re.compile(r"(^|_)(img|image)$", re.IGNORECASE)
LABEL_TAIL = re.compile(r"(^|_)(cp_)?(masks?|labels?|seg)$", re.IGNORECASE)
BY_PRODUCT = re.compile(r"_(flows|cp_output)$", re.IGNORECASE)  # pictures that cellpose saves beside an image


def image_base(name: str) -> str:
    """Return folder and stem of an image, with which the names of labels beside it begin.

    Args:
        name: path below a folder, "/" between levels.
    """
    path = PurePosixPath(name)
    return f"{path.parent}/{IMAGE_TAIL.sub('', path.stem)}"


def folder_role(name: str) -> Literal["image", "label"] | None:
    """Return what the innermost folder with a telling name says that a file is."""
    for folder in reversed(PurePosixPath(name).parts[:-1]):
        if folder.lower() in IMAGE_FOLDERS:
            return "image"
        if folder.lower() in LABEL_FOLDERS:
            return "label"
    return None


def is_label_name(name: str, bases: set[str]) -> bool:
    """Return whether a picture holds labels, by its folder or its name.

    Args:
        name: path below a folder, "/" between levels.
        bases: ``image_base`` of all pictures below the folder.
    """
    path, role = PurePosixPath(name), folder_role(name)
    if role == "label" or not LABEL_TAIL.search(path.stem):
        return role == "label"
    return role is None or f"{path.parent}/{LABEL_TAIL.sub('', path.stem)}" in bases


def is_by_product(name: str) -> bool:
    """Return whether a picture is one that cellpose saves beside an image."""
    return BY_PRODUCT.search(PurePosixPath(name).stem) is not None
