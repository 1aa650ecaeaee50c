"""DeepBacs, mixed data set: bacteria without stains and with Nile red, with a label map each.

Image and label map have one name, in ``source`` and ``target``. Many images show the same cells: the frames of a
position, the crops of a field of S. aureus, and each of these once more in Nile red (``_NR``).
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..label_maps import convert, locate_pairs
from ..model import Found, Item, Section
from ..splits import by_group as split
from ..tree import Tree

__all__ = ["convert", "locate", "split"]

PARTS: dict[str, Section] = {"training": "training", "test": "testing"}
# pos1_frame_30 is of pos1, as is pos1_fr_20; JE2_002_4 and JE2_002_4_NR are the fourth crop of JE2_002.
FIELD = re.compile(r"(pos\d+)_fr(?:ame)?_\d+|(JE2.*?)(?:_\d)?(?:_NR)?", re.IGNORECASE)


def locate(tree: Tree, variant: str, options: Mapping[str, Any], work: Path) -> Found:
    """Find ``training/source/x.tif`` with ``training/target/x.tif``; and in ``test``; see ``DatasetModule``."""
    images, labels = (
        [name for part in PARTS for name in tree.glob(f"{part}/{kind}/*.tif")] for kind in ("source", "target")
    )
    return locate_pairs(tree, images, labels, _item_name, _complete)


def _part(name: str) -> str:
    return PurePosixPath(name).parts[-3].lower()


def _item_name(name: str) -> str:
    return f"{_part(name)}_{PurePosixPath(name).stem}"


def _complete(item: Item, name: str) -> Item:
    stem = PurePosixPath(name).stem
    field = FIELD.fullmatch(stem)
    group = (field[1] or field[2]) if field else stem
    return replace(item, section=PARTS[_part(name)], group=group)
