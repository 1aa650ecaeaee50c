"""Sections and folds of a data set, and what leaks between them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..datalists.datalist import split_by_group
from ..errors import ConfigError
from .model import Item

MAX_TEST_SHARE = 0.5


def by_group(items: Sequence[Item], n_folds: int, seed: int, *, first_fold: int = 0) -> list[Item]:
    """Give each item without a section to training, and each training item without a fold one by its group.

    The groups of each finest subset are distributed for themselves, so that a list of one subset and the list of all
    have the same folds, and each fold has something of each subset that has groups enough; others fill the folds that
    are emptiest so far. A group of two subsets goes with the one that is first in the alphabet.

    Args:
        items: in any order.
        n_folds: number of folds, at most; a subset with fewer groups has fewer.
        seed: another seed gives another split.
        first_fold: number of the first fold to give; lower ones are left to what has a fold already.

    Returns:
        The same items, in the same order, with sections and folds.
    """
    result = [replace(item, section=item.section or "training") for item in items]
    undecided = [item for item in result if item.section == "training" and item.fold is None]
    folds: dict[str, int] = {}
    filled = [0] * n_folds
    for groups in _by_subset(undecided):
        parts = split_by_group(groups, min(n_folds, len(set(groups))), seed)
        sizes = Counter(parts)
        emptiest = sorted(range(n_folds), key=filled.__getitem__)  # where subsets with few groups do not pile up
        fold_of = dict(zip(sorted(sizes, key=lambda part: (-sizes[part], part)), emptiest, strict=False))
        folds |= {group: fold_of[part] for group, part in zip(groups, parts, strict=True)}
        for part, size in sizes.items():
            filled[fold_of[part]] += size
    chosen = {item.name for item in undecided}
    return [replace(item, fold=folds[item.group] + first_fold) if item.name in chosen else item for item in result]


def beside_validation(items: Sequence[Item], n_folds: int, seed: int) -> list[Item]:
    """As ``by_group``, but if some items are in fold 0, the published validation part, the others get folds from 1."""
    first = int(any(item.fold == 0 for item in items))
    return by_group(items, n_folds - first, seed, first_fold=first)


def hold_out(items: Sequence[Item], share: float, seed: int) -> list[Item]:
    """Give whole groups of the items without a section to testing, a share of each finest subset; others to training.

    Args:
        items: in any order.
        share: of the items for testing, 0..0.5, rounded to a half, a third, a quarter …; a subset with fewer than two
            groups has no testing.
        seed: another seed gives another split.

    Returns:
        The same items, in the same order; with sections, unless the share is 0.

    Raises:
        ConfigError: for another share.
    """
    if not 0 <= share <= MAX_TEST_SHARE:
        raise ConfigError(f"test_share is {share}; give a share of the images from 0 (no testing) to {MAX_TEST_SHARE}")
    if share == 0:
        return list(items)
    held: set[str] = set()
    for groups in _by_subset([item for item in items if item.section is None]):
        parts = min(round(1 / share), len(set(groups)))
        if parts > 1:
            chosen = split_by_group(groups, parts, seed)
            held |= {group for group, part in zip(groups, chosen, strict=True) if part == parts - 1}
    return [
        item if item.section else replace(item, section="testing" if item.group in held else "training")
        for item in items
    ]


def _by_subset(items: Sequence[Item]) -> list[list[str]]:
    """Groups of the items of each finest subset, one an item; a group of two subsets is whole in the first one."""
    subset_of: dict[str, str] = {}
    for item in items:
        subset = item.subsets[0] if item.subsets else ""
        subset_of[item.group] = min(subset, subset_of.get(item.group, subset))
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for item in items:
        groups[subset_of[item.group]].append(item.group)
    return [groups[subset] for subset in sorted(groups)]


def join_equal_images(items: Sequence[Item], digests: Mapping[str, str]) -> list[Item]:
    """Make one group of groups that hold the same image, so that copies do not come into two folds.

    Args:
        items: in any order.
        digests: hash of the pixels by name of the item; items without one are left as they are.

    Returns:
        The same items, in the same order; joined groups have the name that comes first in the alphabet.
    """
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            group = parent[group]
        return group

    first: dict[str, str] = {}
    for item in items:
        digest = digests.get(item.name)
        if digest:
            low, high = sorted((root(item.group), root(first.setdefault(digest, item.group))))
            parent[high] = low
    return [replace(item, group=root(item.group)) for item in items]


def find_shared(items: Sequence[Item], digests: Mapping[str, str]) -> list[str]:
    """Groups and images (by the hash of their pixels) that stand in two folds or in training and testing.

    Returns:
        A sentence for each.
    """
    places: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    members: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for item in items:
        place = f"fold {item.fold}" if item.section == "training" else "testing"
        for key in (("group", item.group), ("image", digests.get(item.name, ""))):
            if key[1]:
                places[key].add(place)
                members[key].append(item.name)
    return [
        (f"group {name!r}" if kind == "group" else f"the image of {' and '.join(sorted(members[kind, name])[:3])}")
        + f" stands in {' and '.join(sorted(found))}"
        for (kind, name), found in sorted(places.items())
        if len(found) > 1
    ]
