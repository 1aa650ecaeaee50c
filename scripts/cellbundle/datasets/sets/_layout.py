"""Which files of a user's folder are images, and which hold the instances of which image.

A file belongs to an image by its key: the folders but those for images or labels as such, and the name without suffix
and without what marks labels, so that ``train/images/a.png``, ``train/labels/a_masks.tif`` and ``labels/train/a.txt``
all have the key ``train/a``.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...errors import DatasetError
from ...io import IMAGE_SUFFIXES
from ...io.folder import is_image
from ...io.label_names import (
    IMAGE_FOLDERS,
    IMAGE_TAIL,
    LABEL_FOLDERS,
    LABEL_TAIL,
    folder_role,
    image_base,
    is_by_product,
    is_label_name,
)
from ..model import Section
from ..tree import Tree, pair

ROI_TAIL = re.compile(r"(^|[_-])rois?(et)?$", re.IGNORECASE)
NO_LABELS = {"classes", "notes", "readme"}  # stems of texts that annotation tools put into the folder of labels
PLACES: dict[str, tuple[Section, int | None]] = {
    "train": ("training", None),
    "training": ("training", None),
    "val": ("training", 0),
    "valid": ("training", 0),
    "validation": ("training", 0),
    "test": ("testing", None),
    "testing": ("testing", None),
}

RASTERS = ("label_map", "binary", "colours")  # one image of labels beside each image
SHARED = ("coco", "kaggle_rle")  # one file for many images
SUFFIXES = {".geojson": "geojson", ".txt": "yolo", ".zip": "imagej", ".roi": "imagej"}
EXPECTED = {
    "label_map": "labels/<name>.tif, masks/<name>.png, or <name>_masks.tif beside the image",
    "binary": "masks/<name>.png, or <name>_mask.png beside the image",
    "colours": "masks/<name>.png, or <name>_mask.png beside the image",
    "mask_files": "<name>/masks/*.png with <name>/images/<name>.png, or masks/<name>/*.png",
    "coco": "a .json file with images, annotations and categories",
    "yolo": "labels/<name>.txt, or <name>.txt beside the image",
    "kaggle_rle": "a .csv file with the columns ImageId and EncodedPixels, or id and annotation",
    "imagej": "<name>.zip, <name>_RoiSet.zip or <name>.roi; or RoiSet.zip beside a single image",
    "geojson": "<name>.geojson or <name>.json",
    "cellpose_seg": "<name>_seg.npy",
}

SNIFFED_BYTES = 1 << 16
COCO_KEY = re.compile(rb'"(images|annotations)"\s*:\s*\[')
GEOJSON_TYPE = re.compile(rb'"type"\s*:\s*"Feature(Collection)?"')
TABLE_COLUMNS = ({"imageid", "id"}, {"encodedpixels", "annotation"})


@dataclass(frozen=True)
class Layout:
    """The files of a folder by what they may be.

    Attributes:
        images: name of the image file by its key; of several with one key, any.
        image_names: names of all image files, sorted.
        labels: names of the files that may hold labels, sorted, by their kind: "raster" or an encoding.
    """

    images: dict[str, str]
    image_names: list[str]
    labels: dict[str, list[str]]

    def key_of_label(self, name: str) -> str:
        """Key of the image that a label file belongs to by its name, or else what it would be."""
        plain = key(name)
        if plain in self.images:
            return plain
        folder = plain.rpartition("/")[0]
        tail = ROI_TAIL if PurePosixPath(name).suffix.lower() in (".zip", ".roi") else LABEL_TAIL
        stripped = key(name, tail)
        if stripped.rpartition("/")[2] == "" and stripped not in self.images:
            single = [one for one in self.images if one.rpartition("/")[0] == folder]
            return single[0] if len(single) == 1 else plain
        return stripped

    def key_of_mask(self, name: str) -> str:
        """Key of the image that a mask of a single instance belongs to by its folder, or else what it would be."""
        folder = key(name).rpartition("/")[0]
        beside = (f"{folder}/{folder.rpartition('/')[2]}", f"{folder}/")  # <id>/images/<id>.png, <id>/image.png
        return next((one for one in beside if one in self.images), folder)

    def fitting(self) -> list[str]:
        """Encodings in which at least one image has labels; "label_map" stands for all of ``RASTERS``."""
        by_name, by_folder = (
            {name for name in self.labels["raster"] if own(name) in self.images}
            for own in (self.key_of_label, self.key_of_mask)
        )
        fits = ["mask_files"] if by_folder - by_name else []
        if by_name - by_folder or (by_name and not fits):
            fits.append("label_map")
        others = {kind: names for kind, names in self.labels.items() if kind != "raster"}
        return fits + [
            kind
            for kind, names in others.items()
            if kind in SHARED or any(self.key_of_label(name) in self.images for name in names)
        ]

    def pairs(self, encoding: str) -> tuple[dict[str, list[str]], dict[str, str]]:
        """Label files of each image, and a sentence for each image or label file without the other, by key."""
        names = self.labels.get("raster" if encoding in (*RASTERS, "mask_files") else encoding, [])
        if encoding != "mask_files":
            pairs, broken = pair(self.image_names, names, key, self.key_of_label)
            return {image: [label] for image, label in pairs.values()}, broken
        folders = defaultdict(list)
        for name in names:
            folders[self.key_of_mask(name)].append(name)
        first = {masks[0]: own for own, masks in folders.items()}
        pairs, broken = pair(self.image_names, first, key, first.__getitem__)
        return {image: folders[own] for own, (image, _) in pairs.items()}, broken


def key(name: str, tail: re.Pattern[str] | None = None) -> str:
    """What a file and its partner have in common; ``tail`` is what marks labels."""
    path = PurePosixPath(name)
    folders = [part for part in path.parts[:-1] if part.lower() not in IMAGE_FOLDERS | LABEL_FOLDERS]
    stem = tail.sub("", path.stem) if tail else path.stem
    return "/".join([*folders, IMAGE_TAIL.sub("", stem)])


def read_layout(tree: Tree) -> Layout:
    """Sort the files of a folder; text files are opened for their first bytes only.

    Raises:
        DatasetError: if there is no image.
    """
    rasters = [name for name in tree.files if is_image(name)]
    bases = {image_base(name) for name in rasters}
    labels: defaultdict[str, list[str]] = defaultdict(list, raster=[])
    images = []
    for name in rasters:
        if is_label_name(name, bases):
            labels["raster"].append(name)
        elif not is_by_product(name):
            images.append(name)
    if not images:
        raise DatasetError(
            f"{tree.root}: has no image ({', '.join(sorted(IMAGE_SUFFIXES - {'.zarr'}))}) outside of folders for "
            "labels; give the folder with images and labels, and extract archives first"
        )
    by_key = {key(name): name for name in images}
    layout = Layout(by_key, images, labels)
    for name, path in tree.files.items():
        kind = _kind(name, path)
        if kind == "yolo" and layout.key_of_label(name) not in by_key:
            stem = PurePosixPath(name).stem.lower()
            kind = kind if folder_role(name) == "label" and stem not in NO_LABELS else None
        if kind:
            labels[kind].append(name)
    return layout


def place_of(words: Iterable[str]) -> tuple[Section, int | None] | None:
    """Section and fold that the first word for one stands for, or None."""
    return next((PLACES[word.lower()] for word in words if word.lower() in PLACES), None)


def _kind(name: str, path: Path) -> str | None:
    """Encoding of a file that is no picture, or None if it holds no labels."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".npy" and name.lower().endswith("_seg.npy"):
        return "cellpose_seg"
    if suffix not in (".json", ".csv"):
        return SUFFIXES.get(suffix)
    try:
        with path.open("rb") as file:
            head = file.read(SNIFFED_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); check the permissions") from error
    if suffix == ".csv":
        columns = set(re.split(r"[,;\t\s\"]+", head.split(b"\n")[0].decode("utf-8", "replace").lower()))
        return "kaggle_rle" if all(columns & one for one in TABLE_COLUMNS) else None
    if GEOJSON_TYPE.search(head):
        return "geojson"
    return "coco" if head.startswith(b"{") and COCO_KEY.search(head) else None
