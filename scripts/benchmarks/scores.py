"""One row of scores for each data list, of any bundles, with the literature's figures beside it.

python scripts/benchmarks/scores.py --bundle NAME [--bundle NAME ...] [--weights FILE] [--specialist LIST=FILE ...]
    [--output docs/benchmarks/datasets.md] DATALIST:BASEDIR[:GROUPS.csv] ...

Scores are those of ``--mode eval`` of the bundle, means over images; GROUPS.csv (columns id and modality) adds a row
for each group of images. ``--weights`` is a generalist: one checkpoint for all lists; by default the bundle's own. A
specialist is a checkpoint for the list LIST alone (the file name without suffix).

Known data sets and what the literature says of them stand in scores.yaml; those without a list here get a
row that says so. A figure of the literature is of other images or another score unless its source says otherwise.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml
from tqdm import tqdm

from cellbundle.bundles import describe_bundle, find_bundle
from cellbundle.errors import CellBundleError
from cellbundle.evaluation import ALL, read_groups, summarise
from cellbundle.io import stem

KNOWN = Path(__file__).with_suffix(".yaml")
SCORES = ("ap50", "ap_mean", "f150", "pq")  # means over images
HEADER = ("AP@.5", "mean AP", "F1@.5", "PQ", "pooled AP@.5")


class DataList(NamedTuple):
    """A data list with the folder of its paths and perhaps a file of groups."""

    path: Path
    basedir: Path
    groups: Path | None

    @property
    def name(self) -> str:
        """File name without suffix."""
        return self.path.stem


def parse_list(text: str) -> DataList:
    """``DATALIST:BASEDIR`` or ``DATALIST:BASEDIR:GROUPS.csv``."""
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise argparse.ArgumentTypeError(f"{text!r} is not DATALIST:BASEDIR or DATALIST:BASEDIR:GROUPS.csv")
    return DataList(Path(parts[0]), Path(parts[1]), Path(parts[2]) if len(parts) == 3 else None)


def evaluate(root: Path, options: dict[str, Any]) -> None:
    """Run ``--mode eval`` of a bundle in this process."""
    from cellbundle.engine.workflow import CellWorkflow  # noqa: PLC0415  (slow, and only the child needs it)

    config = str(root / "configs" / "hyper_parameters.yaml")
    workflow = CellWorkflow(config_file=config, mode="eval", logging_file=False, **options)
    workflow.initialize()
    try:
        workflow.run()
    except CellBundleError as error:
        sys.exit(str(error))


def score(root: Path, data: DataList, weights: Path, limit: int | None) -> dict[str, dict[str, Any]] | str:
    """Summaries by group, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "datalist": str(data.path),
            "basedir": str(data.basedir),
            "pretrained_ckpt_path": str(weights.resolve()),
            "output_dir": folder,
        }
        if limit is not None:
            options["dataset#data"] = f"$find_entries(@data_list_files, @split, @fold, {limit})"
        command = [sys.executable, __file__, "--bundle", str(root), "--once", json.dumps(options)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # bundles share a package name
        if done.returncode:
            message = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            return message.partition(";")[0].replace(str(data.path), data.path.name)  # without advice and file names
        table = pd.read_csv(Path(folder, "scores.csv"))
        groups = read_groups(data.groups) if data.groups else {}
        table["group"] = [groups.get(stem(image), "") for image in table["image"]]
    summaries = summarise(table)
    return summaries if groups else {ALL: summaries[ALL]}


def known_set(name: str, known: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The known data set that a data list of this name is of."""
    return next((entry for entry in known if name.lower().startswith(tuple(entry["match"]))), None)


def literature(entry: dict[str, Any] | None, group: str = ALL) -> str:
    """What is known of a group of images, or of all."""
    figures = (entry or {}).get("literature", [])
    return "; ".join(f"{f['figure']} ({f['source']})" for f in figures if f.get("group", ALL) == group)


def format_scores(title: str, model: str, kind: str, summary: dict[str, Any], figures: str) -> str:
    """One row of measured scores."""
    means, pooled = summary["per_image_mean"], summary["pooled"]
    cells = [title, str(summary["n_images"]), model, kind, *(f"{means[key]:.3f}" for key in SCORES)]
    return "| " + " | ".join([*cells, f"{pooled['ap50']:.3f}", figures]) + " |"


def not_measured(title: str, model: str, kind: str, reason: str, figures: str) -> str:
    """One row without scores."""
    reason = " ".join(reason.split()).replace("|", "\\|")
    cells = [title, "", model, kind, f"not measured: {reason}", *[""] * (len(HEADER) - 1), figures]
    return "| " + " | ".join(cells) + " |"


def rows_of(
    root: Path, data: DataList, entry: dict[str, Any] | None, weights: Path, kind: str, limit: int | None
) -> list[str]:
    """The rows of one checkpoint on one data list, which is of the known data set ``entry``."""
    title = entry["title"] if entry else data.name
    model = f"{root.name} {describe_bundle(root).version}"
    if not weights.is_file():
        return [not_measured(title, model, kind, f"no weights, {weights.name} is not there", literature(entry))]
    result = score(root, data, weights, limit)
    if isinstance(result, str):
        return [not_measured(title, model, kind, result, literature(entry))]
    return [
        format_scores(title if group == ALL else f"{title}, {group}", model, kind, summary, literature(entry, group))
        for group, summary in sorted(result.items(), key=lambda pair: pair[0] != ALL)
    ]


def page(arguments: argparse.Namespace) -> str:
    """The whole page."""
    known = yaml.safe_load(KNOWN.read_text())
    specialists = dict(text.split("=", 1) for text in arguments.specialist)
    roots = [find_bundle(name) for name in arguments.bundle]
    rows = []
    measured = [known_set(data.name, known) for data in arguments.lists]
    for data, entry in zip(tqdm(arguments.lists, disable=None), measured, strict=True):
        for root in roots:
            own = arguments.weights or root / "models" / "model.pt"
            rows += rows_of(root, data, entry, own, "generalist", arguments.limit)
            if data.name in specialists:
                specialist = Path(specialists[data.name])
                rows += rows_of(root, data, entry, specialist, "specialist", arguments.limit)
    rows += [
        not_measured(entry["title"], "", "", f"no data list here; from {entry['where']}", literature(entry))
        for entry in known
        if entry not in measured
    ]
    part = "" if arguments.limit is None else f" Only the first {arguments.limit} images of each list."
    return "\n".join(
        [
            "# Scores by data set",
            "",
            "Written by `scripts/benchmarks/scores.py`, which says how it measures. Images of the split `testing`.",
            "AP is TP / (TP + FP + FN), a match IoU >= 0.5; means over images, but pooled AP@.5 over all cells. The",
            f"literature's figures are of the score that they name, and need not be of the same images.{part}",
            "",
            f"| data | n | bundle | kind | {' | '.join(HEADER)} | literature |",
            "|---|---|---|---|" + "---|" * (len(HEADER) + 1),
            *rows,
            "",
        ]
    )


def main(arguments: argparse.Namespace) -> None:
    """Print the page, and write it if asked to."""
    text = page(arguments)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", type=parse_list, nargs="*", metavar="DATALIST:BASEDIR[:GROUPS.csv]")
    parser.add_argument("--bundle", action="append", required=True, help="name or folder; may be repeated")
    parser.add_argument("--weights", type=Path, help="checkpoint of the only bundle")
    parser.add_argument("--specialist", action="append", default=[], metavar="LIST=FILE")
    parser.add_argument("--limit", type=int, help="first images of each list, to try it out")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if (parsed.weights or parsed.specialist) and len(parsed.bundle) > 1:
        parser.error("--weights and --specialist belong to one bundle; give one")
    if parsed.once:
        evaluate(Path(parsed.bundle[0]), json.loads(parsed.once))
    else:
        main(parsed)
