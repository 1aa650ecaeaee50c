"""Omnipose: bacteria in fluorescence and phase contrast by species, and C. elegans, with a label map each.

Beside ``x.tif`` lie ``x_masks.tif`` and ``x_flows.tif``, which nobody needs. Stems come again in other folders. Many
images are tiles or times of one stage position, which names call ``xy<n>``; fluorescence and phase contrast have
positions in common.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..label_maps import convert, locate_pairs
from ..model import Found, Item, Section
from ..splits import by_group as split
from ..tree import Tree

__all__ = ["convert", "locate", "split"]

PLACE = re.compile(
    r"(?:.*/)?(bact_fluor|bact_phase|worm|worm_high_res)/(train|test)(?:_sorted)?/(?:([^/]+)/)?"
    r"([^/]+?)(_masks|_flows)?\.(?:tif|png)",
    re.IGNORECASE,
)
SECTIONS: dict[str, Section] = {"train": "training", "test": "testing"}
POSITION = re.compile(r"(.*?)(?:t-?\d+)?(xy\d+)", re.IGNORECASE)
CHANNEL = re.compile(r"_(?:phase|cyto)$", re.IGNORECASE)


def locate(tree: Tree, variant: str, options: Mapping[str, Any], work: Path) -> Found:
    """Find ``bact_phase/train_sorted/<species>/x.tif`` with ``x_masks.tif``, and so on; see ``DatasetModule``."""
    places = {name: place for name in tree.files if (place := PLACE.fullmatch(name))}
    if not options["worm_high_res"]:
        places = {name: place for name, place in places.items() if place[1].lower() != "worm_high_res"}
    images = [name for name, place in places.items() if place[5] is None]
    labels = [name for name, place in places.items() if (place[5] or "").lower() == "_masks"]

    def key(name: str) -> str:
        subset, part, species, stem, _ = places[name].groups()
        return "_".join(filter(None, (subset.lower(), part.lower(), species, stem)))

    def complete(item: Item, name: str) -> Item:
        subset, part, species, stem, _ = places[name].groups()
        group = _group(part.lower(), species, stem)
        return replace(item, group=group, section=SECTIONS[part.lower()], subsets=(subset.lower(),))

    return locate_pairs(tree, images, labels, key, complete)


def _group(part: str, species: str | None, stem: str) -> str:
    """The stage position, if the name tells it; else the image, which both channels may show."""
    position = POSITION.match(stem)
    words = (species, position[1] + position[2].lower()) if position else (part, species, CHANNEL.sub("", stem))
    return " ".join(filter(None, words))
