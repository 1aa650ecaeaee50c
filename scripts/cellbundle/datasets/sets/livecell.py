"""LIVECell: phase contrast of eight cell lines, up to 3,000 cells an image, as COCO polygons.

Annotations are published in three files for all lines, or in three for each; images in a folder a line, or in one. Some
files were annotated twice and stand there under two ids, and some are in train as well as in val. The published split
is kept: val is fold 0. Its testing images are of other wells, but train and val share wells and even fields of view.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import DatasetError
from ...io.formats.coco import read_coco
from ..coco_parts import cut_coco, part_path
from ..model import Found, Item, Problem, Sample
from ..splits import beside_validation as split
from ..tree import Tree
from ._remarks import remarks_on

__all__ = ["convert", "locate", "split"]

TYPES = ("A172", "BT474", "BV2", "Huh7", "MCF7", "SHSY5Y", "SkBr3", "SKOV3")
PARTS = ("test", "val", "train")  # a file in two of them belongs to the first
FOR_ALL_TYPES = "livecell_coco_"
ANNOTATIONS = re.compile(r"(?:livecell_\w+_)?(test|val|train)")  # stem, in lower case
IMAGE = re.compile(rf"({'|'.join(TYPES)})_Phase_[A-P]\d{{1,2}}_\d+_\d+d\d+h\d+m_\d+")  # type, well, place, time, crop
NOT_ANNOTATED = {"MCF7_Phase_E4_1_00d00h00m_1"}  # was published by mistake, and removed later


def locate(tree: Tree, variant: str, options: Mapping[str, Any], work: Path) -> Found:
    """Bring images and annotations together by the name of the file; see ``DatasetModule``.

    Annotations are cut into one file an image below ``work``, one published file at a time.
    """
    del variant, options
    found = Found()
    parts = _cut_annotations(tree, work, found.remarks)
    images = _find_images(tree, found.remarks)
    annotated_types, imaged_types = ({_cell_type(stem) for stem in stems} for stems in (parts, images))
    for only, what in ((annotated_types - imaged_types, "images"), (imaged_types - annotated_types, "annotations")):
        if only:
            found.remarks.append(f"{', '.join(sorted(only))}: left out, for there are no {what}")
    for stem in sorted(parts.keys() | images.keys()):
        if _cell_type(stem) in annotated_types ^ imaged_types:
            continue
        if stem in parts and stem in images:
            found.items.append(_item(stem, tree.files[images[stem]], *parts[stem]))
        elif stem in parts:
            reason = f"stands in the annotations for {parts[stem][0]}, but {stem}.tif is not there; get it"
            found.problems.append(Problem(stem, reason))
        elif stem not in NOT_ANNOTATED:
            reason = f"{images[stem]} is in no annotation file; get those for train, val and test"
            found.problems.append(Problem(stem, reason))
    if not found.items:
        reasons = "; ".join([*found.remarks, *(problem.reason for problem in found.problems[:1])])
        raise DatasetError(f"{tree.root}: no image has annotations: {reasons}")
    return found


def convert(item: Item, options: Mapping[str, Any]) -> Sample:
    """Paint the polygons of an image; see ``DatasetModule``."""
    del options
    ((image,),) = read_coco(item.labels[0]).values()
    cells = image.without_crowds()
    painted = cells.paint()
    n_crowds = len(image.ids) - len(cells.ids)
    crowds = f"{n_crowds} of {len(image.ids)} annotations are regions of many cells (iscrowd), left out"
    return Sample(item.image, painted.labels, (*([crowds] if n_crowds else []), *remarks_on(item, painted, "cells")))


def _cut_annotations(tree: Tree, work: Path, remarks: list[str]) -> dict[str, tuple[str, Path]]:
    """Part of the split and annotations of each image, by the stem of its name; adds remarks."""
    taken: dict[str, tuple[str, Path]] = {}
    doubled: set[str] = set()
    for part, names in _find_annotations(tree).items():
        cells: dict[str, tuple[int, Path]] = {}
        for name in names:
            folder = work / f"{part}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
            cut = cut_coco(tree.files[name], folder)
            doubled.update(cut.doubled)
            if cut.orphans:
                remarks.append(f"{name}: {cut.orphans} annotations belong to no image of the file and are left out")
            for stem, n in cut.cells.items():
                if n > cells.get(stem, (-1,))[0]:
                    cells[stem] = n, part_path(folder, stem)
        moved = cells.keys() & taken.keys()
        if moved:
            others = " and ".join(sorted({taken[stem][0] for stem in moved}))
            remarks.append(f"{len(moved)} images of {part} are in {others} as well; they are taken for {others}")
        taken = {stem: (part, path) for stem, (_, path) in cells.items()} | taken
    if doubled:
        remarks.append(f"{len(doubled)} images stand under several ids; of each, the set with most cells is taken")
    return taken


def _find_annotations(tree: Tree) -> dict[str, list[str]]:
    """Names of the COCO files of each part: those for one cell type, if there is one of each, for they are smaller."""
    files: defaultdict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for name in tree.glob("*.json"):
        stem = PurePosixPath(name).stem.lower()
        if known := ANNOTATIONS.fullmatch(stem):
            files[known[1]][stem.startswith(FOR_ALL_TYPES)].append(name)
    if not files:
        raise DatasetError(
            f"{tree.root}: has no annotations; expected {FOR_ALL_TYPES}{{train,val,test}}.json, or train.json, "
            "val.json and test.json in a folder for each cell type"
        )
    of_one_type = {part: len(files[part][False]) >= len(TYPES) or not files[part][True] for part in PARTS}
    return {part: files[part][not of_one_type[part]] for part in PARTS}


def _find_images(tree: Tree, remarks: list[str]) -> dict[str, str]:
    """Names of the images by their stem; adds a remark if some lie there twice."""
    images: dict[str, str] = {}
    n_copies = 0
    for name in tree.glob("*.tif"):
        stem = PurePosixPath(name).stem
        if IMAGE.fullmatch(stem):
            n_copies += stem in images
            images.setdefault(stem, name)
    if n_copies:
        remarks.append(f"{n_copies} images lie in two places; the first in the order of the alphabet is taken")
    return images


def _item(stem: str, image: Path, part: str, annotations: Path) -> Item:
    """An image of which everything is there."""
    cell_type, _, well, *_ = stem.split("_")
    return Item(
        stem,
        image,
        (annotations,),
        group=f"{cell_type}_{well}",
        section="testing" if part == "test" else "training",
        fold=0 if part == "val" else None,
        subsets=(cell_type,),
    )


def _cell_type(stem: str) -> str:
    return stem.partition("_")[0]
