"""Cellpose: cells of many kinds, with a label map each.

``train.zip`` and ``test.zip`` both number their images from 000, so the folder belongs to the name of an image and to
the search for its label map. ``train_cyto2.zip``, images that users sent in later, is for training only.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..label_maps import convert, locate_pairs
from ..model import Found, Item, Section
from ..splits import by_group as split
from ..tree import Tree

__all__ = ["convert", "locate", "split"]

PARTS: dict[str, tuple[Section, str]] = {  # folder: section and subset
    "train": ("training", "cyto"),
    "test": ("testing", "cyto"),
    "train_cyto2": ("training", "cyto2"),
}


def locate(tree: Tree, variant: str, options: Mapping[str, Any], work: Path) -> Found:
    """Find ``train/000_img.png`` with ``train/000_masks.png``, and the same in ``test``; see ``DatasetModule``."""
    parts = [part for part, (_, subset) in PARTS.items() if variant == "cyto2" or subset == "cyto"]
    images, labels = (
        [name for part in parts for name in tree.glob(f"{part}/*_{kind}.png")] for kind in ("img", "masks")
    )
    return locate_pairs(tree, images, labels, _item_name, _complete)


def _item_name(name: str) -> str:
    """``train_000`` of both ``train/000_img.png`` and ``train/000_masks.png``."""
    path = PurePosixPath(name)
    return f"{path.parent.name.lower()}_{path.stem.rpartition('_')[0]}"


def _complete(item: Item, name: str) -> Item:
    section, subset = PARTS[PurePosixPath(name).parent.name.lower()]
    return replace(item, section=section, subsets=(subset,))
