"""``cellbundle evaluate`` and ``cellbundle validate-data``: scores of label maps, and checks of data lists."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError, printable

Datalist = Annotated[Path, typer.Option(help="JSON data list.")]
Basedir = Annotated[Path, typer.Option(help="Folder that the paths in the data list are relative to.")]


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of <name>_labels.tif.")],
    datalist: Datalist,
    basedir: Basedir,
    split: Annotated[str, typer.Option(help="testing, validation or training.")] = "testing",
    fold: Annotated[int, typer.Option(help="Number of the validation fold.")] = 0,
    groups: Annotated[Path | None, typer.Option(help="CSV file with a column id, the name without suffix.")] = None,
    column: Annotated[str, typer.Option(help="Column of --groups to group by.")] = "modality",
    group_key: Annotated[str, typer.Option(help="Without --groups: key of the entries to group by.")] = "datalist_name",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for report.html, report.json and scores.csv.")
    ] = None,
    replace_foreign: Annotated[
        bool, typer.Option("--replace-foreign", help="Replace files in --output that cellbundle did not write.")
    ] = False,
) -> int:
    """Score label maps, whoever made them, against the labels of a data list.

    Prints means over images: AP at IoU 0.5 and 0.75, mean AP over 0.5:0.95, precision, recall and F1 at 0.5, PQ, AJI
    and Dice.
    """
    from ..evaluation import (  # noqa: PLC0415
        check_report_folder,
        evaluate_folder,
        format_report,
        read_groups,
        write_evaluation,
    )

    if output:
        check_report_folder(output, replace_foreign)
    names = read_groups(groups, column) if groups else None
    with _progress("image") as progress:
        evaluation = evaluate_folder(
            predictions, datalist, basedir, split, fold, groups=names, group_key=group_key, progress=progress
        )
    typer.echo(printable(format_report(evaluation.summaries, evaluation.failures)))
    if output:
        title = f"{predictions.resolve().name}: {split} images of {datalist.stem}"
        notes = [f"data list {datalist}", f"split {split}"]
        write_evaluation(evaluation, output, title=title, notes=notes, replace_foreign=replace_foreign)
        typer.echo(printable(f"\n{output / 'report.html'}"))
    return 1 if evaluation.failures else 0


def validate_data(
    datalist: Datalist,
    basedir: Basedir,
    labels: Annotated[bool, typer.Option("--labels/--no-labels", help="Whether every entry needs a label.")] = True,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON file for the findings.")] = None,
    replace_foreign: Annotated[
        bool, typer.Option("--replace-foreign", help="Replace --output also if this command did not write it.")
    ] = False,
) -> int:
    """Read every file of a data list and say what is wrong, before a training does."""
    from ..datalists.inspect import Finding  # noqa: PLC0415
    from ..datalists.validate import inspect_datalist  # noqa: PLC0415
    from ..io import atomic_path  # noqa: PLC0415

    if output and not replace_foreign:
        _check_findings(output)
    with _progress("entry") as progress:
        result = inspect_datalist(datalist, basedir, require_labels=labels, progress=progress)
    for part, counts in result.counts.items():
        typer.echo(printable(f"{part}: {counts.images} images, {counts.instances} instances"))
    findings: list[Finding] = result.findings
    for finding in findings:
        typer.echo(printable(f"{finding.severity}: {finding.kind}: {finding.path}: {finding.message}"))
    errors = sum(finding.severity == "error" for finding in findings)
    typer.echo(printable(f"{errors} errors, {len(findings) - errors} warnings"))
    if output:
        content = [vars(finding) for finding in findings]
        with atomic_path(output) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")
    return 1 if errors else 0


def _check_findings(path: Path) -> None:
    """Raise ``ConfigError`` if a file exists that does not hold findings and nothing else."""
    from ..datalists.inspect import Finding  # noqa: PLC0415

    if not os.path.lexists(path):
        return
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        content = None
    keys = {field.name for field in fields(Finding)}
    if not isinstance(content, list) or any(not isinstance(entry, dict) or set(entry) != keys for entry in content):
        raise ConfigError(
            f"{path} exists and was not written by this command; choose another --output, or replace it with "
            "--replace-foreign"
        )


@contextmanager
def _progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, only where a person looks."""
    from tqdm import tqdm  # noqa: PLC0415

    with tqdm(unit=unit, disable=None) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update
