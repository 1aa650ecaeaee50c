"""The folder of results: whose it is, and what earlier runs left in it."""

import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import ConfigError, DatasetError
from .convert import IMAGES, LABELS, Record
from .manifest import MANIFEST, read_manifest

STATE = ".cellbundle"
JOURNAL, OWNER = f"{STATE}/journal.jsonl", f"{STATE}/dataset"
HALF_WRITTEN = re.compile(r"\.[0-9a-f]{32}(\..*)?")  # what ``atomic_path`` writes before it gets its name
N_SHOWN = 3


def check_folder(output: Path, raw: Path, dataset: str) -> None:
    """Raise ``ConfigError`` if results of a data set cannot go to a folder, because it holds something else."""
    if output == raw or output in raw.parents:
        raise ConfigError(f"output_dir {output} holds the published files in {raw}; give another folder")
    existing = next(path for path in (output, *output.parents) if path.exists())
    if not existing.is_dir():
        raise ConfigError(f"output_dir {output} cannot be made: {existing} is a file; give another folder")
    owner = output / OWNER
    held = owner.read_text(encoding="utf-8").strip() if owner.is_file() else None
    if held not in (None, dataset):
        raise ConfigError(f"{output} holds the data set {held}; give {dataset} an output_dir of its own")
    full = any((output / part).is_dir() and any((output / part).iterdir()) for part in (IMAGES, LABELS))
    if held is None and full and not _is_listed(output, dataset):
        raise ConfigError(f"{output} holds {IMAGES} or {LABELS} that are not ours; give another output_dir")


def claim_folder(output: Path, dataset: str) -> None:
    """Make the folder of results, and remove the half files of a run that was killed."""
    for part in (STATE, IMAGES, LABELS):
        (output / part).mkdir(parents=True, exist_ok=True)
    for folder in (output, *(output / part for part in (STATE, IMAGES, LABELS))):
        for path in folder.iterdir():
            if HALF_WRITTEN.fullmatch(path.name) and path.is_file():
                path.unlink()
    (output / OWNER).write_text(dataset + "\n", encoding="utf-8")


def remark_on_leftovers(output: Path, records: Iterable[Record]) -> list[str]:
    """A sentence about images and label maps of earlier runs that are not of this one; they are left where they are."""
    own = {path for record in records for path in (record.image.path, record.label.path)}
    found = (f"{part}/{path.name}" for part in (IMAGES, LABELS) for path in (output / part).iterdir())
    others = sorted(name for name in found if name not in own)
    if not others:
        return []
    shown = ", ".join(others[:N_SHOWN]) + (", ..." if len(others) > N_SHOWN else "")
    return [f"{len(others)} files of earlier runs are in no list: {shown}; delete them, or give another output_dir"]


def _is_listed(output: Path, dataset: str) -> bool:
    """Whether a folder without its state, which may be deleted, has a manifest of the data set."""
    try:
        return (output / MANIFEST).is_file() and f"{dataset}.json" in {row.path for row in read_manifest(output)}
    except DatasetError:
        return False
