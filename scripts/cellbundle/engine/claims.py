"""The files that a run is going to write: what is in their way and was not written by cellbundle is named first."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import distributed
from ..errors import ConfigError
from ..flags import as_bool
from ..io.ownership import Manifest
from ..record import LATEST


def planned_files(writers: Iterable[Any], images: Sequence[str]) -> list[Path]:
    """Files that handlers and transforms write of some images, as their method ``output_files`` names them.

    Args:
        writers: handlers and transforms; those without the method write nothing.
        images: paths.
    """
    methods = (getattr(writer, "output_files", None) for writer in writers)
    return [path for method in methods if method is not None for path in method(images)]


def claim_results(
    folder: str | Path, writers: Sequence[Any], data: Sequence[Mapping[str, Any]], replace_foreign: bool = False
) -> list[Manifest]:
    """List the files that an inference is going to write, where a configuration runs without a workflow.

    Args:
        folder: of the results.
        writers: transforms that write files.
        data: entries with ``image``.
        replace_foreign: files that cellbundle did not write may be replaced.

    Raises:
        ConfigError: if files that cellbundle did not write are in the way; the message names them.
    """
    files = planned_files(writers, [str(entry["image"]) for entry in data])
    return claim_files({folder: files}, replace_foreign=as_bool(replace_foreign))


def claim_files(
    files: Mapping[str | Path, Iterable[Path]],
    *,
    replace_foreign: bool = False,
    shown: Callable[[Path], str] = str,
    elsewhere: Callable[[Path], Collection[str]] = lambda folder: (),
) -> list[Manifest]:
    """List files as written by cellbundle in the records of their folders; call it in all processes.

    A folder without a record that holds ``latest.pt`` is that of a training of a former version: what is in the way
    there is its own.

    Args:
        files: that are going to be written, by folder; those outside of it are listed in the folders they are in.
        replace_foreign: files that cellbundle did not write may be replaced.
        shown: gives the name of a folder in messages.
        elsewhere: gives the files of the remote folder that a folder is a copy of, relative to it.

    Returns:
        The records.

    Raises:
        ConfigError: if files that cellbundle did not write are in the way, which the message names, or a folder cannot
            be written.
    """
    parts: dict[Path, list[Path]] = {}
    for given, paths in files.items():
        folder = _absolute(given)
        for path in map(_absolute, paths):
            home = folder if path.is_relative_to(folder) else path.parent
            parts.setdefault(home, []).append(path.relative_to(home))
    records = [
        Manifest(folder, _recovery(folder, names), shown=shown(folder), elsewhere=elsewhere(folder))
        for folder, names in parts.items()
    ]
    problem: str | None = None
    try:
        for record, names in zip(records, parts.values(), strict=True):
            record.check(names, replace_foreign)
    except ConfigError as error:
        problem = str(error)
    # All processes have looked before the first one writes, and none waits for one that has found something.
    if found := [text for text in distributed.gather(problem) if text]:
        raise ConfigError(found[0])
    for record, names in zip(records, parts.values(), strict=True) if distributed.rank() == 0 else ():
        try:
            record.add(names)
        except OSError as error:
            raise ConfigError(f"{record.shown} cannot be written ({error.strerror}); give another folder") from error
    return records


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow symbolic links


def _recovery(folder: Path, names: list[Path]) -> Callable[[], list[Path]] | None:
    """Gives the files of a training of a former version."""
    return (lambda: names) if (folder / LATEST).is_file() else None
