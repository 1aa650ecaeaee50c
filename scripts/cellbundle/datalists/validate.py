"""Checks the files of a datalist before somebody trains for a day on broken ones."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..addresses import redact
from ..errors import ConfigError, DatalistError
from ..kernels.parallel import n_threads
from .datalist import FILE_KEYS, Entry, find_leaks, path_below, read_sections, resolve_entry, shorten
from .inspect import Facts, Finding, inspect_entry, reason, relative_name

__all__ = ["Finding", "SplitCounts", "Validation", "inspect_datalist"]

Progress = Callable[[int, int], None]

MAX_WORKERS = 4  # each holds one decoded image, and disks do not get faster with more readers


@dataclass(frozen=True)
class SplitCounts:
    """Size of one fold or of the testing part: entries with sound paths, and the instances that could be counted."""

    images: int
    instances: int


@dataclass(frozen=True)
class Validation:
    """All findings in the order of the list, those about several entries last; and counts by fold or section."""

    findings: list[Finding]
    counts: dict[str, SplitCounts]


def inspect_datalist(
    datalist: str | Path,
    basedir: str | Path,
    *,
    require_labels: bool = True,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Validation:
    """Read every file of a datalist and report what is wrong with it; nothing in list or files raises.

    Images count as the same if their decoded pixels are: a copy stays a copy when it is stored in another format,
    compression or integer type, or as RGB with equal channels. Images of one value are not compared.

    Args:
        datalist: JSON file, see ``cellbundle.datalists.datalist``.
        basedir: folder that the paths in it are relative to.
        require_labels: every entry needs a ``label``.
        progress: called as ``progress(done, total)`` in the calling thread after each entry.
        workers: threads that read files, at least 1; by default up to ``MAX_WORKERS``.

    Returns:
        Findings and counts; they do not depend on ``workers``.

    Raises:
        ConfigError: if ``workers`` is below 1.
    """
    workers = min(MAX_WORKERS, n_threads()) if workers is None else workers
    if workers < 1:
        raise ConfigError(f"workers is {workers}; give at least 1")
    base = Path(os.path.abspath(basedir))  # noqa: PTH100 - Path.resolve would follow symbolic links
    try:
        sections = read_sections(datalist)
    except DatalistError as error:
        return _nothing("malformed-list", datalist, reason(error, datalist))
    if not any(sections.values()):
        return _nothing("malformed-list", datalist, "has no entries; expected at least one {'image', 'label'}")
    if not base.is_dir():
        return _nothing("missing-file", basedir, "is not a folder; give the one that the paths in the list start from")
    findings, checked = _check_entries(sections, base, require_labels)
    facts = list(_inspect_all(checked, base, workers, progress))
    findings += [finding for one in facts for finding in one.findings]
    findings += _listed_leaks(checked, base, str(datalist))
    findings += [*_same_content(facts), *_mixed_channels(facts)]
    return Validation(findings, _count(facts))


def _nothing(kind: str, path: str | Path, message: str) -> Validation:
    """The result where no entry can be looked at."""
    return Validation([Finding("error", kind, redact(str(path)), message)], {})


def _check_entries(
    sections: dict[str, list[Any]], base: Path, require_labels: bool
) -> tuple[list[Finding], dict[str, list[Entry]]]:
    """Problems of the entries themselves, and the sound ones with absolute paths."""
    findings: list[Finding] = []
    checked: dict[str, list[Entry]] = {section: [] for section in sections}
    for section, entries in sections.items():
        for i, entry in enumerate(entries):
            problems, resolved = _check_entry(entry, base, f"{section}[{i}]", require_labels)
            findings += problems
            checked[section] += [resolved] if resolved else []
    return findings, checked


def _check_entry(entry: Any, base: Path, where: str, require_labels: bool) -> tuple[list[Finding], Entry | None]:
    """Problems of the entry itself, and the entry with absolute paths if there are none."""
    problems = []
    for key in FILE_KEYS if isinstance(entry, dict) else ():
        if isinstance(entry.get(key), str) and entry[key]:
            try:
                path_below(base, entry[key], repr(key))
            except DatalistError as error:
                problems.append(Finding("error", "path-escapes", where, str(error)))
    if problems:
        return problems, None
    try:
        return [], resolve_entry(entry, base, where, require_labels)
    except DatalistError as error:
        return [Finding("error", "malformed-entry", where, reason(error, where))], None


def _inspect_all(
    checked: dict[str, list[Entry]], base: Path, workers: int, progress: Progress | None
) -> Iterator[Facts]:
    """Facts of all entries in their order."""
    entries = [(section, entry) for section in checked for entry in checked[section]]
    pool = ThreadPoolExecutor(workers)
    try:
        for done, facts in enumerate(pool.map(lambda item: inspect_entry(item[0], item[1], base), entries), start=1):
            if progress:
                progress(done, len(entries))
            yield facts
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest of the list


def _listed_leaks(checked: dict[str, list[Entry]], base: Path, datalist: str) -> Iterator[Finding]:
    """Files and groups that the list itself names in two places."""
    named = {
        section: [entry | {key: relative_name(entry[key], base) for key in FILE_KEYS if key in entry} for entry in part]
        for section, part in checked.items()
    }
    for leak in find_leaks(named):
        kind = "group-leakage" if leak.startswith("group ") else "leakage"
        yield Finding("error", kind, datalist, f"{leak}; move it to one place")


def _same_content(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Images with equal pixels; one file that is listed in two places is left to ``find_leaks``."""
    same = defaultdict(list)
    for one in facts:
        if one.digest:
            same[one.digest].append(one)
    for first, *others in (group for group in same.values() if len(group) > 1):
        copies = shorten([f"{one.name} ({one.place})" for one in others])
        message = f"({first.place}) has the same pixels as {copies}; keep one"
        if all(one.place == first.place for one in others):
            yield Finding("warning", "duplicate-content", first.name, message)
        elif any(one.name != first.name for one in others):
            yield Finding("error", "leakage", first.name, f"{message}, or move all to one place")


def _mixed_channels(facts: Sequence[Facts]) -> Iterator[Finding]:
    counts = defaultdict(list)
    for one in facts:
        if one.channels:
            counts[one.channels].append(one.name)
    if len(counts) > 1:
        parts = [f"{len(names)} with {n} channels (such as {names[0]})" for n, names in sorted(counts.items())]
        rarest = min(counts.values(), key=len)
        message = f"images differ: {', '.join(parts)}; check that the network is meant for all of them"
        yield Finding("warning", "channels", rarest[0], message)


def _count(facts: Sequence[Facts]) -> dict[str, SplitCounts]:
    """Counts of the folds in their order, then of testing."""
    places: dict[str, list[Facts]] = defaultdict(list)
    for one in facts:
        places[one.place].append(one)
    order = sorted(places, key=lambda place: (place == "testing", len(place), place))
    return {place: SplitCounts(len(places[place]), sum(one.instances for one in places[place])) for place in order}
