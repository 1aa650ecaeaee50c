"""From what the user has, archives or folders, to the tree of published files."""

import hashlib
import logging
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import ConfigError, DatasetError
from ..io.regular import IRREGULAR, is_irregular
from .archives import archive_stem, extract, first_names, is_archive
from .download import fetch
from .facts import Facts, File, names, read_facts
from .progress import Progress, silent
from .tree import Tree, list_files, set_irregular_aside

logger = logging.getLogger(__name__)

AUTO = "auto"
MAX_NESTING = 3  # archives in archives, as Kaggle packs them
MAX_COMPARED = 10**6  # members of an archive that are looked for, to see whether it lies there extracted as well
N_SHOWN = 3  # files that an error shows
SHOWN_LENGTH = 60  # of their names
EXTRACTED = re.compile(r".*-[0-9a-f]{12}(\.incomplete)?", re.DOTALL)  # names of folders that archives are extracted to


def open_source(
    facts: Facts, raw: Path, output: Path, work: Path, variant: str = AUTO, progress: Progress = silent
) -> tuple[Tree, str]:
    """List the published files, with those in archives extracted.

    Args:
        facts: of the data set.
        raw: folder of published files, extracted or not; or a single archive.
        output: folder of the results, which may lie in ``raw``.
        work: folder that archives are extracted to; what is there already is used again.
        variant: key of ``facts.variants``, or "auto" for the first whose signature fits.
        progress: shows how far the extraction is.

    Returns:
        The tree and the key of its variant.

    Raises:
        ConfigError: if there is no such variant.
        DatasetError: if the files are not those of the data set, or an archive is damaged or unsafe.
    """
    if variant not in (AUTO, *facts.variants):
        raise ConfigError(
            f"{facts.name} has no variant {variant!r}; choose one of: {', '.join((AUTO, *facts.variants))}"
        )
    if not raw.exists():
        raise DatasetError(f"{raw} is not there. {how_to_get(facts)}")
    if is_irregular(raw):
        raise DatasetError(f"{raw}: {IRREGULAR}")
    files, irregular = set_irregular_aside(list_files(raw, output) if raw.is_dir() else {raw.name: raw})
    for name in irregular:
        logger.warning("%s: %s", name, IRREGULAR)
    done: set[str] = set()
    used: dict[Path, str] = {}
    for _ in range(MAX_NESTING):
        archives = _archives(facts, files, done, work, any_name=_fitting(facts, Tree(raw, files), variant) is None)
        if not archives:
            break
        for name in archives:
            prefix = archive_stem(name) if archive_stem(name) not in used.values() else name
            target = _target(work, files[name])
            done.add(name)
            used[target] = prefix
            with progress(f"extracting {name}", "B") as step:
                extract(files[name], target, progress=step)
            inside = list_files(target)
            files = _without_copies(files, inside) | {f"{prefix}/{inner}": path for inner, path in inside.items()}
    _remove_others(work, used)
    tree = Tree(raw, dict(sorted(files.items())), irregular)
    found = _fitting(facts, tree, variant)
    if found is None:
        raise DatasetError(_not_recognised(facts, tree, variant))
    return tree, found


def download(facts: Facts, raw: Path, variant: str = AUTO, progress: Progress = silent) -> None:
    """Fetch the files of a variant that are not in a folder yet.

    Args:
        facts: of the data set.
        raw: the folder; made when needed.
        variant: key of ``facts.variants``; "auto" is the first one.
        progress: shows how far the download is.

    Raises:
        DatasetError: if a file needs a login, cannot be fetched, or has another hash than published.
    """
    chosen = facts.variants[next(iter(facts.variants)) if variant == AUTO else variant]
    raw.mkdir(parents=True, exist_ok=True)
    missing = [file for file in chosen.files if not (raw / file.name).exists()]
    by_hand = [file for file in missing if file.url is None and not file.optional]
    if by_hand or not chosen.files:
        raise DatasetError(f"{facts.title} cannot be fetched without you. {how_to_get(facts, by_hand, raw)}")
    for file in missing:
        if file.url is not None:
            logger.info("fetching %s", file.url)
            with progress(file.name, "B") as step:
                fetch(file.url, raw / file.name, sha256=file.sha256, progress=step)


def how_to_get(facts: Facts, files: list[File] | None = None, raw: Path | None = None) -> str:
    """Where a user gets the files of a data set, and where they belong."""
    wanted = files or [file for variant in facts.variants.values() for file in variant.files if not file.optional]
    listed = ", ".join(dict.fromkeys(file.name for file in wanted)) or "the files"
    into = raw or "a folder and give that as raw_dir"
    login = "" if facts.login == "none" else f" (needed: {facts.login})"
    return f"Get {listed} from {facts.page}{login}, and put what is missing into {into}. Expected: {facts.layout}"


def look_alikes(facts: Facts, tree: Tree) -> list[str]:
    """Names of the other data sets whose signature the files have; one at the most is usual."""
    others = [read_facts(name) for name in names() if name not in (facts.name, "custom")]
    return [other.name for other in others if _fitting(other, tree, AUTO)]


def _fitting(facts: Facts, tree: Tree, variant: str) -> str | None:
    """The first variant whose signature the files have, or None."""
    candidates = facts.variants if variant == AUTO else [variant]
    return next((key for key in candidates if all(map(tree.glob, facts.variants[key].signature))), None)


def _archives(facts: Facts, files: Mapping[str, Path], done: set[str], work: Path, any_name: bool) -> list[str]:
    """Archives to extract: those of the data set; if there is none and nothing fits yet, any."""
    own = {file.name.lower() for variant in facts.variants.values() for file in variant.files}
    archives = [name for name in files if is_archive(Path(name)) and name not in done]
    chosen = [name for name in archives if Path(name).name.lower() in own] or (archives if any_name else [])
    # What an earlier run extracted need not be read again, which takes minutes for a large tar archive.
    return [name for name in chosen if _target(work, files[name]).exists() or not _is_extracted(files[name], files)]


def _is_extracted(archive: Path, files: Mapping[str, Path]) -> bool:
    """Whether all members of an archive lie there as files too; those without a folder, in one of its name."""
    members = first_names(archive, MAX_COMPARED)
    wanted = [member if "/" in member else f"{archive_stem(archive.name)}/{member}" for member in members]
    if not wanted:
        return False
    homes = [name[: -len(wanted[0])] for name in files if f"/{name}".endswith(f"/{wanted[0]}")]
    return any(all(f"{home}{member}" in files for member in wanted) for home in homes)


def _without_copies(files: Mapping[str, Path], inside: Mapping[str, Path]) -> dict[str, Path]:
    """Files but those that somebody has begun to extract from the same archive."""
    first = next((name for name in inside if "/" in name), None)
    homes = [name[: -len(first)] for name in files if f"/{name}".endswith(f"/{first}")] if first else []
    copies = {f"{home}{name}" for home in homes for name in inside}
    return {name: path for name, path in files.items() if name not in copies}


def _target(work: Path, archive: Path) -> Path:
    """Where an archive is extracted to: another place for another archive, or another content under the same name."""
    state = archive.stat()
    identity = hashlib.sha256(f"{archive.name} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()
    return work / f"{archive_stem(archive.name)}-{identity[:12]}"


def _remove_others(work: Path, used: Iterable[Path]) -> None:
    """Remove what was extracted from archives that are not there any more."""
    kept = {path.name for path in used}
    for path in work.iterdir() if work.is_dir() else ():
        if path.is_dir() and EXTRACTED.fullmatch(path.name) and path.name not in kept:
            shutil.rmtree(path)


def _not_recognised(facts: Facts, tree: Tree, variant: str) -> str:
    """What is wrong with files that are not those of the data set."""
    first = [name if len(name) <= SHOWN_LENGTH else f"...{name[-SHOWN_LENGTH:]}" for name in list(tree.files)[:N_SHOWN]]
    shown = ", ".join([*first, *(["..."] if len(tree.files) > N_SHOWN else [])]) or "no file"
    alike = look_alikes(facts, tree)
    hint = f" It looks like {' or '.join(alike)}." if alike else ""
    asked = "" if variant == AUTO else f", variant {variant}"
    return f"{tree.root} does not hold {facts.title}{asked}: found {shown}.{hint} {how_to_get(facts)}"
