"""From published files to verified images, label maps and data lists: find, convert, split, report."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DatasetError
from ..kernels.parallel import THREADS_VARIABLE, n_threads
from .convert import IMAGES, LABELS, Record, convert_item, item_key, load_module, read_journal
from .facts import Facts, read_facts
from .model import Found, Item, Problem
from .prepared import Prepared, write_results
from .progress import Progress, silent
from .source import AUTO, download, open_source
from .splits import find_shared, hold_out, join_equal_images

logger = logging.getLogger(__name__)

STATE = ".cellbundle"
JOURNAL, OWNER = f"{STATE}/journal.jsonl", f"{STATE}/dataset"


def prepare(
    name: str,
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    variant: str | float = AUTO,
    n_folds: int = 5,
    test_share: float | None = None,
    seed: int = 0,
    workers: int | None = None,
    fetch: bool = False,
    options: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Convert a data set into images, label maps, data lists, a manifest and a report.

    What an earlier run finished is not done again, and a run that is killed leaves no half file. Broken pairs are left
    out and returned as problems; all else is written.

    Args:
        name: of the data set.
        raw_dir: folder of the published files, extracted or in archives; or one archive.
        output_dir: folder of the results; made when needed.
        variant: form in which the files are published, or "auto"; a number, as YAML reads ``1.1``, counts as text.
        n_folds: number of folds of the training images, at least 2.
        test_share: share of the images that is held out for testing, by group, where no split is published; by
            default that of the facts.
        seed: of the folds and of what is held out.
        workers: processes; by default as many as there are cores.
        fetch: download missing files first.
        options: of this data set, see its facts.
        progress: shows how far it is.

    Returns:
        What was written. The files do not depend on the order of directories or the number of processes.

    Raises:
        ConfigError: if an option is not known or the folder holds something else.
        DatasetError: if the files are not those of the data set or nothing in them can be used.
    """
    facts = read_facts(name)
    share = facts.test_share if test_share is None else test_share
    hold_out([], share, seed)  # a wrong share shall not wait for the conversion
    chosen = _check_options(facts, options or {}, n_folds, workers)
    raw, output = Path(raw_dir).absolute(), Path(output_dir).absolute()
    if fetch:
        download(facts, raw, str(variant), progress)
    _claim(output, raw, facts)
    tree, variant = open_source(facts, raw, output, output / STATE / "extracted", str(variant), progress)
    work = output / STATE / "work"
    work.mkdir(parents=True, exist_ok=True)
    module = load_module(name)
    found = _check_found(facts, variant, module.locate(tree, variant, chosen, work))
    records, problems = _convert_all(facts, found.items, chosen, output, workers, progress)
    digests = {record.name: record.digest or "" for record in records.values()}
    items = hold_out(join_equal_images(found.items, digests), share, seed)
    items = module.split(items, n_folds, seed)
    items = sorted((item for item in items if item.name in records), key=lambda item: item.name)
    if not items:
        reasons = [problem.reason for problem in found.problems + problems] or ["all that was found is left out"]
        raise DatasetError(f"{raw}: no image of {facts.title} could be converted: {reasons[0]}")
    prepared = Prepared(
        facts=facts,
        variant=variant,
        folder=output,
        items=items,
        records={item.name: records[item.name] for item in items},
        problems=sorted(
            (Problem(problem.name, _relative(problem.reason, raw, output)) for problem in found.problems + problems),
            key=lambda problem: problem.name,
        ),
        remarks=[
            _relative(remark, raw, output)
            for remark in found.remarks + [f"{n}: {one}" for n in sorted(records) for one in records[n].remarks]
        ],
        leaks=find_shared(items, digests),
    )
    write_results(prepared, tree)
    return prepared


def _relative(text: str, *folders: Path) -> str:
    """Text with paths relative to these folders, so that reports do not depend on where they lie."""
    for folder in folders:
        text = text.replace(f"{folder}{os.sep}", "")
    return text


def _check_options(facts: Facts, given: Mapping[str, Any], n_folds: int, workers: int | None) -> dict[str, Any]:
    """Every option of the data set with its value."""
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
        if default is not None and not isinstance(
            value, type(default) if not isinstance(default, float) else (int, float)
        ):
            raise ConfigError(f"option {key} is {value!r}; expected {type(default).__name__} such as {default!r}")
    return {key: given.get(key, option.default) for key, option in facts.options.items()}


def _claim(output: Path, raw: Path, facts: Facts) -> None:
    """Make the folder of results, or refuse one that holds something else."""
    if output == raw or output in raw.parents:
        raise ConfigError(f"output_dir {output} holds the published files in {raw}; give another folder")
    owner = output / OWNER
    held = owner.read_text().strip() if owner.is_file() else None
    if held is None and any((output / part).exists() for part in (IMAGES, LABELS)):
        raise ConfigError(f"{output} holds {IMAGES} or {LABELS} that are not ours; give another output_dir")
    if held not in (None, facts.name):
        raise ConfigError(f"{output} holds the data set {held}; give {facts.name} an output_dir of its own")
    for part in (STATE, IMAGES, LABELS):
        (output / part).mkdir(parents=True, exist_ok=True)
    owner.write_text(facts.name + "\n")


def _check_found(facts: Facts, variant: str, found: Found) -> Found:
    """Leave out what is excluded and what has no name of its own; remark on counts that are not the published ones."""
    remarks = list(found.remarks)
    for part, published in facts.variants[variant].counts.items():
        only = len(facts.variants[variant].counts) == 1
        n = sum(only or (item.section or "training") == part for item in found.items)
        if n != published:
            remarks.append(f"{n} {'' if only else part + ' '}images found, {published} are published")
    items = [item for item in found.items if item.name not in facts.excluded]
    remarks += [
        f"{item.name} is left out: {facts.excluded[item.name]}" for item in found.items if item.name in facts.excluded
    ]
    spellings: dict[str, list[str]] = {}
    for item in items:
        spellings.setdefault(item.name.casefold(), []).append(item.name)
    double = {key: sorted(names) for key, names in spellings.items() if len(names) > 1}
    problems = [
        Problem(" and ".join(names), "are one name where upper and lower case are the same; rename one of the images")
        for names in double.values()
    ]
    items = sorted((item for item in items if item.name.casefold() not in double), key=lambda item: item.name)
    return Found(items, found.problems + problems, remarks)


def _convert_all(
    facts: Facts,
    items: Sequence[Item],
    options: Mapping[str, Any],
    output: Path,
    workers: int | None,
    progress: Progress,
) -> tuple[dict[str, Record], list[Problem]]:
    """Convert what is not finished yet; records by name, and problems."""
    journal = read_journal(output / JOURNAL)
    records: dict[str, Record] = {}
    problems: list[Problem] = []
    waiting: list[tuple[Item, str]] = []
    for item in items:
        try:
            key = item_key(facts.name, item, options)
        except OSError as error:
            problems.append(Problem(item.name, f"{error.filename}: cannot be read ({error.strerror})"))
            continue
        if item.name in journal and journal[item.name].is_current(output, key):
            records[item.name] = journal[item.name]
        else:
            waiting.append((item, key))
    if records:
        logger.info("%d of %d images are there already", len(records), len(items))
    with (output / JOURNAL).open("a", encoding="utf-8") as file, progress("converting", "image") as step:
        file.write("\n")  # ends a line that a killed run may have torn
        for done, result in enumerate(_results(facts.name, waiting, options, output, workers), start=1):
            if isinstance(result, Problem):
                problems.append(result)
            else:
                records[result.name] = result
                file.write(result.to_json() + "\n")
                file.flush()
            step(done, len(waiting))
    return records, problems


def _results(
    dataset: str, waiting: Sequence[tuple[Item, str]], options: Mapping[str, Any], output: Path, workers: int | None
) -> Iterator[Record | Problem]:
    """Results in the order of the items, from several processes if there are more than one item and one worker."""
    n = min(workers or n_threads(), len(waiting))
    jobs = [(dataset, item, key, options, output) for item, key in waiting]
    if n <= 1:
        yield from (convert_item(*job) for job in jobs)
        return
    # Forked workers start at once; others import the main module again, which may be all of MONAI.
    context = get_context("fork" if "fork" in get_all_start_methods() else None)
    pool = ProcessPoolExecutor(n, context, initializer=_use_one_thread)
    try:
        yield from pool.map(convert_item, *zip(*jobs, strict=True))
    except BrokenProcessPool as error:
        raise DatasetError(
            "a worker process was stopped, perhaps for want of memory; what is finished is kept, and the same command "
            "goes on (with fewer workers, if memory is short)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _use_one_thread() -> None:
    """In a worker, of which there is one for each processor."""
    os.environ[THREADS_VARIABLE] = "1"
