"""The folder of results: whose it is, and what earlier runs left in it."""

import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import ConfigError, DatasetError
from ..io.ownership import DATA_SET, STATE, Manifest
from .convert import IMAGES, LABELS, Record, read_journal
from .facts import names
from .manifest import MANIFEST, read_manifest
from .prepared import common_files

JOURNAL, OWNER = f"{STATE}/journal.jsonl", DATA_SET
HALF_WRITTEN = re.compile(r"\.[0-9a-f]{32}(\..*)?")  # what ``atomic_path`` writes before it gets its name
N_SHOWN = 3


def check_folder(output: Path, raw: Path, dataset: str, replace_foreign: bool = False) -> Manifest:
    """Return the list of the files in the folder of results that earlier runs wrote.

    Args:
        output: folder of the results.
        raw: folder of the published files.
        dataset: name of the data set.
        replace_foreign: files that no earlier run wrote may be replaced.

    Raises:
        ConfigError: if results cannot go to the folder, because it holds something else.
    """
    if output == raw or output in raw.parents:
        raise ConfigError(f"output_dir {output} holds the published files in {raw}; give another folder")
    existing = next(path for path in (output, *output.parents) if path.exists())
    if not existing.is_dir():
        raise ConfigError(f"output_dir {output} cannot be made: {existing} is a file; give another folder")
    held = _held(output)
    if held not in (None, dataset):
        raise ConfigError(f"{output} holds the data set {held}; give {dataset} an output_dir of its own")
    own = Manifest(output, lambda: _earlier_files(output, dataset))
    files = common_files(dataset)
    if not any(name.startswith(f"{IMAGES}/") for name in own.names):  # the names of all others are not known yet
        parts = [output / part for part in (IMAGES, LABELS)]
        files += [path.relative_to(output) for part in parts if part.is_dir() for path in sorted(part.iterdir())]
    own.check(files, replace_foreign)
    return own


def claim_folder(output: Path, dataset: str, own: Manifest, files: Iterable[Path]) -> None:
    """Make the folder of results, and remove the half files of a run that was killed.

    Args:
        output: the folder.
        dataset: name of the data set.
        own: the files that earlier runs wrote.
        files: that are going to be written, relative to the folder.
    """
    is_known = _held(output) == dataset
    own.add(files)
    for part in (STATE, IMAGES, LABELS):
        (output / part).mkdir(parents=True, exist_ok=True)
    for folder in (output, *(output / part for part in (STATE, IMAGES, LABELS))) if is_known else ():
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


def _held(output: Path) -> str | None:
    """The data set in a folder, None if there is none, or the file that says it is damaged."""
    owner = output / OWNER
    held = owner.read_bytes().decode("utf-8", "replace").strip() if owner.is_file() else ""
    return held if held in names() else None


def _earlier_files(output: Path, dataset: str) -> list[Path]:
    """Files that the journal and the manifest name, for a folder without a list of its files."""
    records = read_journal(output / JOURNAL).values()
    files = [Path(file.path) for record in records for file in (record.image, record.label)]
    if _held(output) == dataset:
        files += common_files(dataset)
    try:
        listed = [row.path for row in read_manifest(output)] if (output / MANIFEST).is_file() else []
    except DatasetError:
        listed = []
    return [*files, *map(Path, [*listed, MANIFEST] if f"{dataset}.json" in listed else ())]
