"""Data sets that are published as images, each with a file of instance ids: what their modules share."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import DatasetError
from ..io import read_labels
from .model import Found, Item, Problem, Sample
from .tree import Tree, pair


def locate_pairs(
    tree: Tree,
    images: Iterable[str],
    labels: Iterable[str],
    key: Callable[[str], str],
    complete: Callable[[Item, str], Item],
) -> Found:
    """Make an item of each image with its label file.

    Args:
        tree: the published files.
        images: names of image files in the tree.
        labels: names of label files in the tree.
        key: gives the name of the item from that of its image, and the same from that of its label file.
        complete: gets an item and the name of its image file; returns the item with group, section and subsets.

    Returns:
        The items, sorted by name; a problem for each image without a label file and the reverse.

    Raises:
        DatasetError: if there is neither an image nor a label file.
    """
    pairs, broken = pair(images, labels, key, key)
    if not pairs and not broken:
        raise DatasetError(f"{tree.root}: no image or label file lies where the data set has them; see its layout")
    items = [
        complete(Item(name, tree.files[image], (tree.files[label],)), image) for name, (image, label) in pairs.items()
    ]
    return Found(items, [Problem(name, reason) for name, reason in broken.items()])


def convert(item: Item, options: Mapping[str, Any]) -> Sample:
    """The image file as it is, and the ids of its label file; see ``DatasetModule``."""
    return Sample(item.image, read_labels(item.labels[0]))
