"""NuInsSeg: H&E images of 31 human and mouse organs, every nucleus outlined by hand.

Published with a folder an organ that holds several pictures of the same nuclei; ``label masks modify`` has one id a
nucleus (``label masks`` gives overlaps an id of their own). It is also passed on as YOLO polygons, flat or in the
folders of a split. The authors' five folds are those of scikit-learn's ``KFold``, not kept in a file.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...datalists.datalist import read_sections, resolve_entry
from ...errors import DatasetError
from ...io import read_image, read_labels
from ...io.formats.yolo import read_yolo
from ..model import Found, Item, Problem, Sample, Section
from ..tree import Tree, pair
from ._remarks import remarks_on

PATTERNS = {
    "published": ("*/tissue images/*.png", "*/label masks modify/*.tif"),
    "yolo": ("images/*.png", "labels/*.txt"),
    "yolo_by_kind": ("images/*/*.png", "labels/*/*.txt"),
}
KINDS = {"tissue images", "label masks modify", "images", "labels"}  # folders that tell images from labels
PLACES: dict[str, tuple[Section, int | None]] = {
    "train": ("training", None),
    "val": ("training", 0),
    "valid": ("training", 0),
    "test": ("testing", None),
}
SPLIT, KEPT = "split.json", ("fold", "group")  # of its entries
OFFICIAL_SEED = 19  # random_state of the published folds


def locate(tree: Tree, variant: str, options: Mapping[str, Any], work: Path) -> Found:
    """Pair images and label files by name; see ``DatasetModule``. Sections come from split.json, else from folders."""
    del options, work
    images, labels = (tree.glob(pattern) for pattern in PATTERNS[variant])
    pairs, broken = pair(images, labels, _key, _key)
    if not pairs:
        expected = " beside ".join(PATTERNS[variant])
        raise DatasetError(f"{tree.root}: no image has a label file; expected {expected}, with equal names")
    repeated = len({PurePosixPath(key).name.casefold() for key in pairs}) < len(pairs)
    items = []
    for key, (image, label) in pairs.items():
        folder, stem = PurePosixPath(key).parent.name, PurePosixPath(key).name
        section, fold = PLACES.get(folder.lower(), (None, None))
        name = f"{folder}_{stem}".replace(" ", "_") if repeated and folder else stem
        items.append(Item(name, tree.files[image], (tree.files[label],), section=section, fold=fold))
    found = Found(items, [Problem(key, reason) for key, reason in broken.items()])
    lists = [tree.files[name] for name in tree.glob(SPLIT)]
    if len(lists) > 1:
        raise DatasetError(f"there are several splits: {', '.join(map(str, lists))}; keep one")
    return _keep_split(found, lists[0]) if lists else found


def convert(item: Item, options: Mapping[str, Any]) -> Sample:
    """Read ids, or paint polygons; see ``DatasetModule``."""
    del options
    label = item.labels[0]
    if label.suffix.lower() != ".txt":
        return Sample(item.image, read_labels(label))
    height, width = read_image(item.image).data.shape[1:]
    painted, _ = read_yolo(label, (height, width))
    return Sample(item.image, painted.labels, tuple(remarks_on(item, painted, "nuclei")))


def split(items: Sequence[Item], n_folds: int, seed: int) -> list[Item]:
    """Folds of ``KFold(n_folds, shuffle=True, random_state=19 + seed)`` over the sorted names; see ``DatasetModule``.

    Five folds with seed 0 are the published ones. A copy of an image goes where the first of the two goes. Sections and
    folds that items have already are kept; where there is a validation part (fold 0), the others get folds from 1.

    Source: README of masih4/NuInsSeg; scikit-learn's ``KFold`` cuts a permutation into parts, the larger ones first.
    """
    result = [replace(item, section=item.section or "training") for item in items]
    first = int(any(item.fold is not None for item in result))
    names: list[str] = []
    leaders: dict[str, str] = {}  # first item of each group
    for item in sorted(result, key=lambda item: item.name):
        if item.section == "training" and item.fold is None:
            names.append(item.name)
            leaders.setdefault(item.group, item.name)
    generator = np.random.RandomState(OFFICIAL_SEED + seed)
    parts = np.array_split(generator.permutation(len(names)), n_folds - first)
    fold_of = {names[position]: fold for fold, part in enumerate(parts, start=first) for position in part}
    return [replace(item, fold=fold_of[leaders[item.group]]) if item.name in fold_of else item for item in result]


def _key(name: str) -> str:
    """Name without the folder that tells images from labels and without suffix: ``human bladder/human_bladder_01``."""
    *folders, file = name.split("/")
    del folders[-1 if folders[-1].lower() in KINDS else -2]
    return "/".join([*folders, PurePosixPath(file).stem])


def _keep_split(found: Found, path: Path) -> Found:
    """Sections, folds and groups of a datalist; images that it does not name are problems, and the other way round."""
    entries: dict[str, dict[str, Any]] = {}
    for section, listed in read_sections(path).items():
        for number, content in enumerate(listed):
            where = f"{path}: {section}[{number}]"
            entry = resolve_entry(content, path.parent, where, require_labels=False)
            if entry["image"] in entries:
                raise DatasetError(f"{where} names {entry['image']} again; each image belongs to one place")
            entries[entry["image"]] = {"section": section} | {key: entry[key] for key in KEPT if key in entry}
    items, problems = [], list(found.problems)
    for item in found.items:
        image = os.path.abspath(item.image)  # noqa: PTH100 - as in resolve_entry
        if image in entries:
            items.append(replace(item, **entries.pop(image)))
        else:
            problems.append(Problem(item.name, f"is not in {path}; add it, or remove that file for other folds"))
    reported = {PurePosixPath(problem.name).name for problem in found.problems}
    missing = [name for name in map(Path, entries) if name.stem not in reported]
    problems += [
        Problem(name.stem, f"{path} names {name}, which is not there; get the missing data") for name in missing
    ]
    return Found(items, problems)
