"""2018 Data Science Bowl: a folder an image, with one mask file a nucleus; or StarDist's label maps.

Most pictures are tiles of larger fields of view, and a random split puts tiles of one field into training and testing.
``dsb2018_fields.csv`` says for 570 images which field they are of, and the split by field that the figures of this
project were measured with. Other images get a split of their own; of what field they are is not known.
"""

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...io import read_labels
from ...io.formats.mask_files import paint_mask_files
from ..model import Found, Item, Problem, Sample, Section
from ..splits import by_group as split
from ..tree import Tree, pair

__all__ = ["convert", "locate", "split"]

FIELDS = Path(__file__).with_name("dsb2018_fields.csv")
ID_DIGITS = 16  # of 64: as many as the table has, far more than tell the images apart


def locate(tree: Tree, variant: str, options: Mapping[str, Any], work: Path) -> Found:
    """Find images and masks; see ``DatasetModule``."""
    return _locate_label_maps(tree) if variant == "stardist" else _locate_mask_files(tree)


def convert(item: Item, options: Mapping[str, Any]) -> Sample:
    """Paint the masks of an image into one label map, whatever order their files are in; see ``DatasetModule``."""
    if "masks" not in item.detail:
        return Sample(item.image, read_labels(item.labels[0]))
    painted = paint_mask_files(item.labels)
    return Sample(item.image, painted.labels, tuple(painted.remarks("masks")))


def _locate_mask_files(tree: Tree) -> Found:
    """Images and masks as published: ``<id>/images/<id>.png`` and ``<id>/masks/*.png``."""
    found = Found()
    images: defaultdict[str, list[str]] = defaultdict(list)
    masks: defaultdict[str, list[str]] = defaultdict(list)
    for names, pattern in ((images, "*/images/*.png"), (masks, "*/masks/*.png")):
        for name in tree.glob(pattern):
            names[str(PurePosixPath(name).parents[1])].append(name)
    fields = _read_fields()
    labelled = {str(PurePosixPath(folder).parent) for folder in masks}
    without = [folder for folder in images if str(PurePosixPath(folder).parent) not in labelled]
    if without:
        found.remarks.append(
            f"{len(without)} images such as {images[min(without)][0]} are left out: none there has masks"
        )
    for folder in sorted((images.keys() | masks.keys()) - set(without)):
        name = PurePosixPath(folder).name
        if len(images[folder]) != 1 or not masks[folder]:
            counts = f"{len(images[folder])} images and {len(masks[folder])} masks"
            found.problems.append(Problem(name, f"{folder} has {counts}; expected one image and at least one mask"))
            continue
        labels = tuple(tree.files[mask] for mask in masks[folder])
        group, section, fold = fields.get(name[:ID_DIGITS], (name, None, None))
        found.items.append(
            Item(name, tree.files[images[folder][0]], labels, group, section, fold, detail={"masks": "files"})
        )
    unknown = sum(item.section is None for item in found.items)
    if 0 < unknown < len(found.items):
        found.items = [replace(item, section=item.section or "training") for item in found.items]
        found.remarks.append(
            f"of {unknown} images it is not known which field of view they show; they are training images, and some "
            "may show the field of a test image"
        )
    return found


def _locate_label_maps(tree: Tree) -> Found:
    """Images and label maps of StarDist's subset: ``train/images/x.tif`` and ``train/masks/x.tif``."""
    found = Found()
    fields = _read_fields()
    sections: dict[str, Section] = {"train": "training", "test": "testing"}
    for folder, section in sections.items():
        pairs, broken = pair(tree.glob(f"{folder}/images/*.tif"), tree.glob(f"{folder}/masks/*.tif"), _stem, _stem)
        found.problems += [Problem(name, reason) for name, reason in broken.items()]
        for name, (image, label) in pairs.items():
            group = fields.get(name[:ID_DIGITS], (name,))[0]
            found.items.append(Item(name, tree.files[image], (tree.files[label],), group, section))
    return found


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _read_fields() -> dict[str, tuple[str, Section | None, int | None]]:
    """Field of view, section and fold by the first digits of the id."""
    with FIELDS.open(encoding="utf-8", newline="") as file:
        return {
            row["id"]: (row["field"], "testing" if row["section"] == "testing" else "training", _fold(row["fold"]))
            for row in csv.DictReader(file)
        }


def _fold(text: str) -> int | None:
    return int(text) if text else None
