"""What a user asks for and what is found, before and beside the conversion."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..io import printable
from .facts import Facts
from .model import Found, Item, Problem


def check_options(facts: Facts, given: Mapping[str, Any], n_folds: int, workers: int | None) -> dict[str, Any]:
    """Every option of the data set with its value.

    Raises:
        ConfigError: if one is not known or has a value of another type, or for too few folds or workers.
    """
    if n_folds < 2:
        raise ConfigError(f"n_folds is {n_folds}; give at least 2, one to validate on")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; give at least 1")
    unknown = sorted(set(given) - set(facts.options))
    if unknown:
        known = ", ".join(facts.options) or "none"
        raise ConfigError(f"{facts.name} has no option {', '.join(unknown)}; its options are: {known}")
    for key, value in given.items():
        default = facts.options[key].default
        allowed = (int, float) if isinstance(default, float) else type(default)
        if default is not None and not isinstance(value, allowed):
            raise ConfigError(f"option {key} is {value!r}; expected {type(default).__name__} such as {default!r}")
    return {key: given.get(key, option.default) for key, option in facts.options.items()}


def check_found(facts: Facts, variant: str, found: Found) -> Found:
    """Leave out what is excluded or has no name of its own, and remark on counts that are not the published ones.

    Returns:
        The items sorted by name, with the problems and remarks so far and these.
    """
    problems, remarks = list(found.problems), list(found.remarks)
    counts = facts.variants[variant].counts
    for part, published in counts.items():
        of_part = [item for item in found.items if len(counts) == 1 or (item.section or "training") == part]
        if len(of_part) != published:
            what = "images" if len(counts) == 1 else f"{part} images"
            remarks.append(f"{len(of_part)} {what} found, {published} are published")
    spellings: defaultdict[str, list[Item]] = defaultdict(list)
    for item in sorted(found.items, key=lambda item: (item.name, item.image)):
        if item.name in facts.excluded:
            remarks.append(f"{item.name} is left out: {facts.excluded[item.name]}")
        elif item.name != printable(item.name):
            problems.append(Problem(printable(item.name), "has a name that is not UTF-8; rename the file"))
        else:
            spellings[item.name.casefold()].append(item)
    problems += [_double(same) for same in spellings.values() if len(same) > 1]
    items = sorted((same[0] for same in spellings.values() if len(same) == 1), key=lambda item: item.name)
    return Found(items, problems, remarks)


def remark_on_split(items: Sequence[Item], n_folds: int, share: float) -> list[str]:
    """Sentences about folds and a testing part that were asked for and could not be made, for want of groups."""
    folds = {item.fold for item in items if item.section == "training"}
    remarks = []
    if 0 < len(folds) < n_folds:
        remarks.append(
            f"there are {len(folds)} folds instead of {n_folds}, because of published folds or too few groups"
        )
    if share > 0 and all(item.section == "training" for item in items):
        remarks.append(f"there are no testing images, because there are too few groups to hold out {share:g} of them")
    return remarks


def _double(same: Sequence[Item]) -> Problem:
    """Several images with one name, at least where upper and lower case are the same."""
    files = ", ".join(str(item.image) for item in same)
    names = list(dict.fromkeys(item.name for item in same))
    if len(names) == 1:
        return Problem(names[0], f"stands for several images: {files}; keep one, or prepare them as two data sets")
    reason = f"are one name where upper and lower case are the same: {files}; rename one of the images"
    return Problem(" and ".join(names), reason)
