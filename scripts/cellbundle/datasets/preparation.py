"""From published files to verified images, label maps and data lists: find, convert, split, report."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from ..io import printable
from ..io.ownership import STATE
from ..io.regular import IRREGULAR
from ..kernels.parallel import THREADS_VARIABLE, n_threads
from .checks import check_found, check_options, remark_on_split
from .convert import Record, convert_item, item_key, load_module, read_journal
from .facts import Facts, read_facts
from .folder import JOURNAL, check_folder, claim_folder, remark_on_leftovers
from .model import Item, Problem
from .prepared import Prepared, planned_files
from .progress import Progress, silent
from .results import write_results
from .source import AUTO, download, look_alikes, open_source
from .splits import find_shared, hold_out, join_equal_images
from .tree import Tree

logger = logging.getLogger(__name__)


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
    replace_foreign: bool = False,
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
        replace_foreign: replace files in ``output_dir`` that no preparation wrote.
        progress: shows how far it is.

    Returns:
        What was written. The files do not depend on the order of directories or the number of processes.

    Raises:
        ConfigError: if an option is not known, or the folder holds something else, such as files that no preparation
            wrote in the place of results.
        DatasetError: if the files are not those of the data set or nothing in them can be used.
    """
    facts = read_facts(name)
    share = facts.test_share if test_share is None else test_share
    hold_out([], share, seed)  # a wrong share shall not wait for the conversion
    chosen = check_options(facts, options or {}, n_folds, workers)
    raw, output = Path(raw_dir).absolute(), Path(output_dir).absolute()
    own = check_folder(output, raw, name, replace_foreign)
    if fetch:
        download(facts, raw, str(variant), progress)
    tree, variant = open_source(facts, raw, output, output / STATE / "extracted", str(variant), progress)
    work = output / STATE / "work"
    work.mkdir(parents=True, exist_ok=True)
    module = load_module(name)
    found = check_found(facts, variant, module.locate(tree, variant, chosen, work))
    found.problems += [Problem(printable(one), IRREGULAR) for one in tree.irregular]
    files = planned_files(name, found.items)
    own.check(files, replace_foreign)
    claim_folder(output, name, own, files)
    records, problems = _convert_all(facts, found.items, chosen, output, workers, progress)
    problems = [Problem(one.name, _relative(one.reason, raw, output)) for one in found.problems + problems]
    digests = {record.name: record.digest or "" for record in records.values()}
    items = module.split(hold_out(join_equal_images(found.items, digests), share, seed), n_folds, seed)
    items = sorted((item for item in items if item.name in records), key=lambda item: item.name)
    if not items:
        raise DatasetError(f"{raw}: no image of {facts.title} could be converted{_why_none(facts, tree, problems)}")
    remarks = [
        *found.remarks,
        *remark_on_split(items, n_folds, share),
        *remark_on_leftovers(output, records.values()),
        *(f"{item.name}: {remark}" for item in items for remark in records[item.name].remarks),
    ]
    prepared = Prepared(
        facts=facts,
        variant=variant,
        folder=output,
        items=items,
        records={item.name: records[item.name] for item in items},
        problems=sorted(problems, key=lambda problem: problem.name),
        remarks=[_relative(remark, raw, output) for remark in remarks],
        leaks=find_shared(items, digests),
    )
    write_results(prepared, tree)
    own.forget_missing()
    return prepared


def _why_none(facts: Facts, tree: Tree, problems: Sequence[Problem]) -> str:
    """What is wrong, if nothing could be converted: the first problem, and what the files may be instead."""
    reason = f": {problems[0].name}: {problems[0].reason}" if problems else ": all that was found is left out"
    return reason + "".join(f". It looks like {other}" for other in look_alikes(facts, tree))


def _relative(text: str, *folders: Path) -> str:
    """Text with paths relative to these folders, so that reports do not depend on where they lie."""
    for folder in folders:
        text = text.replace(f"{folder}{os.sep}", "")
    return text


def _convert_all(
    facts: Facts,
    items: Sequence[Item],
    options: Mapping[str, Any],
    output: Path,
    workers: int | None,
    progress: Progress,
) -> tuple[dict[str, Record], list[Problem]]:
    """Convert what is not finished yet; records by name, and problems."""
    problems: list[Problem] = []
    keys: dict[str, str] = {}
    for item in items:
        try:
            keys[item.name] = item_key(facts.name, item, options)
        except OSError as error:
            problems.append(Problem(item.name, f"{error.filename}: cannot be read ({error.strerror})"))
    records = _finished(output, keys)
    waiting = [(item, keys[item.name]) for item in items if item.name in keys.keys() - records.keys()]
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


def _finished(output: Path, keys: Mapping[str, str]) -> dict[str, Record]:
    """Records of the items that an earlier run made from the same, and whose files still have the same content."""
    journal = read_journal(output / JOURNAL)
    known = [journal[name] for name, key in keys.items() if name in journal and journal[name].key == key]
    with ThreadPoolExecutor(n_threads()) as pool:
        unchanged = pool.map(lambda record: record.image.is_there(output) and record.label.is_there(output), known)
        return {record.name: record for record, same in zip(known, unchanged, strict=True) if same}


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
