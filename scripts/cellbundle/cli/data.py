"""``cellbundle data``: public data sets, and your own, as data lists that every bundle reads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, printable

if TYPE_CHECKING:
    from ..datasets import Facts, Prepared

SHOWN = 10  # problems and remarks that are printed; the report has all

Name = Annotated[str, typer.Argument(help="Data set, as `cellbundle data list` names it.")]


def list_data_sets() -> int:
    """List the data sets: name, licence, what is in it."""
    from ..datasets import names, read_facts  # noqa: PLC0415

    for facts in map(read_facts, names()):
        typer.echo(f"{facts.name:12s} {facts.title} ({facts.licence})\n{'':12s} {facts.about}")
    return 0


def info(name: Name) -> int:
    """Show what is known about a data set: source, licence, citation, layout, options, notes."""
    from ..datasets import read_facts  # noqa: PLC0415

    typer.echo(_describe(read_facts(name)))
    return 0


def prepare(
    name: Name,
    raw_dir: Annotated[
        Path | None,
        typer.Option("--raw-dir", "--raw_dir", help="Published files: folder, or archive. By default raw/NAME."),
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "--output_dir", "-o", help="Results. By default data/NAME.")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch what is missing, if no login is needed.")] = False,
    variant: Annotated[str, typer.Option(help="Published form, see `info`; found by itself.")] = "auto",
    n_folds: Annotated[int, typer.Option("--n-folds", "--n_folds", help="Folds of the training images.")] = 5,
    test_share: Annotated[
        float | None, typer.Option("--test-share", "--test_share", help="Share held out, where no split is published.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the folds and of what is held out.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes; by default all cores.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of this data set, see `info`; repeatable.")
    ] = None,
    drop_regions: Annotated[
        bool, typer.Option("--drop-regions", help="Own images: leave out instances that surround others.")
    ] = False,
    replace_foreign: Annotated[
        bool,
        typer.Option("--replace-foreign", help="Replace files in the results' folder that cellbundle did not write."),
    ] = False,
) -> int:
    """Convert a data set: images, label maps, data lists with folds, a manifest with hashes, and report.html.

    The same command goes on after an interruption and redoes only what changed. Exit code 1 says that some images
    could not be converted; they are in failures.csv.
    """
    from ..datasets import prepare as prepare_data_set  # noqa: PLC0415
    from ..datasets.progress import bar  # noqa: PLC0415

    prepared = prepare_data_set(
        name,
        raw_dir or Path("raw", name),
        output_dir or Path("data", name),
        variant=variant,
        n_folds=n_folds,
        test_share=test_share,
        seed=seed,
        workers=workers,
        fetch=download,
        options=dict(map(_parse_option, option or ())) | ({"drop_regions": True} if drop_regions else {}),
        replace_foreign=replace_foreign,
        progress=bar,
    )
    typer.echo(printable(_summarise(prepared)))
    return 1 if prepared.problems else 0


def verify(
    name: Annotated[str, typer.Argument(help="Folder that `prepare` wrote, or the data set in data/NAME.")],
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "--output_dir", "-o", help="The folder, if it is not data/NAME.")
    ] = None,
) -> int:
    """Compare every file of a prepared data set with its manifest, and name those that changed."""
    from ..datasets import verify as verify_folder  # noqa: PLC0415
    from ..datasets.progress import bar  # noqa: PLC0415

    folder = output_dir or (Path(name) if Path(name).is_dir() else Path("data", name))
    with bar("checking", "file") as step:
        damages = verify_folder(folder, step)
    for damage in damages:
        typer.echo(printable(f"{damage.path}: {damage.reason}"))
    typer.echo(printable(f"{len(damages)} damaged files in {folder}" if damages else f"{folder} is as it was written"))
    if damages:
        typer.echo("the same `prepare` command writes damaged files anew")
    return 1 if damages else 0


def _parse_option(text: str) -> tuple[str, Any]:
    import yaml  # noqa: PLC0415

    key, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"--option {text!r} has no value; write it as KEY=VALUE")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--option {text!r} cannot be read; write the value as in YAML") from error


def _describe(facts: "Facts") -> str:
    """Text of ``info``."""
    parts = [
        f"{facts.name}: {facts.title}\n{facts.about}",
        f"licence: {facts.licence}\npassing on: {facts.redistribution}\nlogin: {facts.login}\npage: {facts.page}\n"
        f"cite: {facts.citation}",
        f"raw_dir holds: {facts.layout}",
    ]
    for key, variant in facts.variants.items():
        counts = ", ".join(f"{n} {section}" for section, n in variant.counts.items())
        files = "".join(f"\n  {file.name}  {file.url or 'to be fetched by hand'}" for file in variant.files)
        parts.append(f"variant {key}: {variant.about}{f' ({counts} images)' if counts else ''}{files}")
    if facts.options:
        listed = [f"  {key}={option.default}  {option.about}" for key, option in facts.options.items()]
        parts.append("\n".join(["options (--option KEY=VALUE):", *listed]))
    parts += [f"note: {note}" for note in facts.notes]
    if facts.excluded:
        parts.append("\n".join(["left out:", *(f"  {name}: {reason}" for name, reason in facts.excluded.items())]))
    return "\n\n".join(parts)


def _summarise(prepared: "Prepared") -> str:
    """What was written, what is odd, and what to do next."""
    lines = [f"{prepared.facts.title}, variant {prepared.variant}"]
    lines += [
        f"  {place:10s} {images:6d} images {groups:6d} groups {instances:8d} instances"
        for place, images, groups, instances in prepared.counts()
    ]
    for kind, sentences in (
        ("leak", prepared.leaks),
        ("remark", prepared.remarks),
        ("error", [f"{problem.name}: {problem.reason}" for problem in prepared.problems]),
    ):
        lines += [f"{kind}: {sentence}" for sentence in sentences[:SHOWN]]
        if len(sentences) > SHOWN:
            lines.append(f"{kind}: {len(sentences) - SHOWN} more, see report.html")
    if not prepared.leaks:
        lines.append("no group and no image stands in two places")
    first = prepared.datalists[prepared.facts.name]
    lines += [f"{prepared.folder / 'report.html'}", f"--datalist {first} --basedir {prepared.folder}"]
    return "\n".join(lines)
