"""How fast the kernels are, next to every installed peer, with equal results.

python scripts/benchmarks/kernels.py [--labels DIR] [--sizes 1024 2048 4096 8192] [--output docs/benchmarks/kernels.md]
python scripts/benchmarks/kernels.py --labels DIR --agreement      equal results on every label map of DIR, no times

Mosaics are made of 256x256 tiles of the label maps in DIR, or of synthetic ones. We and the peer run alternately in one
process, after one call on a small map (imports, compilation). A peer that needs more than 15 seconds runs once, and
is stopped after --limit seconds; the ratio is then a lower bound. Results are compared first: for a wrong one no time
is printed. Above --peers pixels we run alone.
Growth with the number of pixels, the exponent of a fitted power law, is measured on the smallest mosaic, repeated: one
drawn mosaic differs from the next in how much of it is cell and how large the largest one is.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
import torch
from kernel_benchmark.cases import CASES, Case
from kernel_benchmark.inputs import cut_tiles, label_maps, mosaic, repeat
from kernel_benchmark.worker import SLOW, WARM_UP, Worker
from tqdm import tqdm

from cellbundle import synthetic
from cellbundle.kernels.parallel import n_threads


class Row(NamedTuple):
    """What was seen of one case at one size."""

    case: Case
    size: int
    n: int
    ours: list[float]
    theirs: list[float]
    note: str
    error: float | None = None


def version(package: str) -> str:
    """Version of an installed distribution, else nothing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def missing_package(case: Case) -> str:
    """A note if the peer is not installed, else nothing."""
    return "" if version(case.package) else f"{case.package} is not installed"


def format_row(row: Row, limit: float) -> str:
    """One line of the table."""
    case, wrong = row.case, row.error is not None and not row.error <= row.case.largest_error
    cells = [case.part, f"{row.size}² ({row.n})" if case.grows else "", case.peer]
    error = "" if row.error is None else f"{row.error:.2g} {case.error_name}"
    if wrong:
        return "| " + " | ".join([*cells, "", "", "", f"≥ {case.goal_for(row.n):g}", f"**wrong**: {error}"]) + " |"
    ours = f"{median(row.ours):.4f}" if row.ours else ""
    if row.theirs:
        theirs, ratio = f"{median(row.theirs):.3f}", f"{median(row.theirs) / median(row.ours):.1f}"
    elif row.note.startswith("stopped") and row.ours:
        theirs, ratio = f"> {limit:.0f}", f"> {limit / median(row.ours):.1f}"
    else:
        theirs, ratio = "", ""
    return "| " + " | ".join([*cells, ours, theirs, ratio, f"≥ {case.goal_for(row.n):g}", error or row.note]) + " |"


def format_growth(growth: dict[str, dict[int, float]]) -> list[str]:
    """A table of our seconds by part and size, with the exponent of the number of pixels."""
    sizes = sorted({size for seconds in growth.values() for size in seconds})
    lines = [
        "| growth | " + " | ".join(f"{size}², s" for size in sizes) + " | exponent |",
        "|---|" + "---|" * (len(sizes) + 1),
    ]
    for part, seconds in growth.items():
        slope = np.polyfit(2 * np.log(sizes), np.log([seconds[size] for size in sizes]), 1)[0]
        lines.append(f"| {part} | " + " | ".join(f"{seconds[size]:.4f}" for size in sizes) + f" | {slope:.2f} |")
    return lines


def versions() -> str:
    """What ran."""
    names = sorted({"numba", "numpy", "torch", *(case.package for case in CASES)})
    installed = [f"{name} {version(name) or 'not installed'}" for name in names]
    return f"Python {platform.python_version()}, {n_threads()} threads; " + ", ".join(installed) + "."


def benchmark(arguments: argparse.Namespace, cases: list[Case]) -> Iterator[str]:
    """The page after each size, so that hours of peers are not lost."""
    tiles = cut_tiles(label_maps(arguments.labels))
    source = f"label maps of `{arguments.labels.name}`" if arguments.labels else "synthetic label maps"
    runs = f"medians of {arguments.repeats} alternating runs (one, of a peer that needs more than {SLOW} s)"
    worker = Worker(arguments.memory << 30)
    rows: list[Row] = []
    growth: dict[str, dict[int, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "labels.npy")
        smallest = mosaic(tiles, arguments.sizes[0])
        for size in arguments.sizes:
            labels = mosaic(tiles, size)
            np.save(path, labels)
            for case in tqdm([case for case in cases if case.grows or size == arguments.sizes[0]], f"{size}²"):
                note = missing_package(case)
                with_peer = not note and size <= arguments.peers
                ours, theirs, said, error = worker.run(case, path, arguments.repeats, with_peer, arguments.limit)
                rows.append(Row(case, size, int(labels.max(initial=0)), ours, theirs, note or said, error))
            np.save(path, repeat(smallest, size // arguments.sizes[0]))
            for part, case in tqdm({case.part: case for case in cases if case.grows}.items(), f"{size}² repeated"):
                ours = worker.run(case, path, arguments.repeats, with_peer=False, limit=arguments.limit)[0]
                growth.setdefault(part, {})[size] = median(ours)
            lines = [
                "# The kernels beside their peers",
                "",
                "Written by `scripts/benchmarks/kernels.py`, which says how it measures. Results were compared first;",
                "whether they agree on every single label map is on [its own page](agreement.md).",
                "",
                f"Mosaics of {len(tiles)} tiles of {source}; {runs}. {versions()}",
                "",
                "| part | pixels (instances) | peer | ours, s | peer, s | ratio | goal | largest difference |",
                "|---|---|---|---|---|---|---|---|",
                *(format_row(row, arguments.limit) for row in rows),
                "",
                *(format_growth(growth) if size > arguments.sizes[0] else []),
            ]
            yield (text := "\n".join(lines) + "\n")
    yield f"{text}\n{first_calls()}"


def agreement(arguments: argparse.Namespace, cases: list[Case]) -> str:
    """A table of how far the results are apart on every single label map."""
    torch.set_num_threads(n_threads())
    errors: dict[Case, list[float]] = {case: [] for case in cases}
    count = 0
    cases = [case for case in cases if case.grows]  # the others hardly depend on the label map
    installed = [case for case in cases if not missing_package(case)]
    for labels in tqdm(islice(label_maps(arguments.labels), None, None, arguments.every), file=sys.stderr):
        count += 1
        peers = cache(lambda case_inputs, theirs, labels=labels: theirs(case_inputs(labels)))  # some serve two cases
        for case in installed:
            inputs = case.inputs(labels)
            errors[case].append(case.error(inputs, case.ours(inputs), peers(case.inputs, case.theirs)))
    lines = [
        "# Agreement of the kernels with their peers",
        "",
        "Written by `scripts/benchmarks/kernels.py --agreement`.",
        "",
        f"{count} label maps, one by one. {versions()}",
        "",
        "| part | peer | difference, mean | largest | allowed | maps beyond it |",
        "|---|---|---|---|---|---|",
    ]
    for case in cases:
        if case in installed:
            beyond = sum(not error <= case.largest_error for error in errors[case])
            seen = f"{fmean(errors[case]):.2g} {case.error_name} | {max(errors[case]):.2g}"
        else:
            seen, beyond = f"{missing_package(case)} |", 0
        lines.append(f"| {case.part} | {case.peer} | {seen} | {case.largest_error:g} | {beyond} |")
    return "\n".join(lines) + "\n"


def time_first_calls() -> dict[str, float]:
    """Seconds of the first call of every part of ours in this process."""
    warm = synthetic.generate("fluorescence", (WARM_UP, WARM_UP), 6, seed=1)[1]
    seconds = {}
    for part, case in {case.part: case for case in CASES}.items():
        inputs = case.inputs(warm)
        started = time.perf_counter()
        case.ours(inputs)
        seconds[part] = time.perf_counter() - started
    return seconds


def first_calls() -> str:
    """A table of the first calls in two processes that share an empty cache of machine code."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--first-calls"]
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        runs = [
            json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)
            for _ in range(2)
        ]
    lines = ["| part | first call compiles, s | first call of the next process, s |", "|---|---|---|"]
    lines += [f"| {part} | {seconds:.1f} | {runs[1][part]:.2f} |" for part, seconds in runs[0].items()]
    lines.append(f"| all | {sum(runs[0].values()):.1f} | {sum(runs[1].values()):.2f} |")
    return "\n".join(lines) + "\n"


def main(arguments: argparse.Namespace) -> None:
    """Print the page, and write it if asked to."""
    wanted = arguments.only or [""]
    cases = [case for case in CASES if any(text in f"{case.part}, {case.peer}" for text in wanted)]
    for text in [agreement(arguments, cases)] if arguments.agreement else benchmark(arguments, cases):
        if arguments.output:
            arguments.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="folder of label maps; synthetic ones without it")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1024, 2048, 4096, 8192], help="sides of mosaics, pixels"
    )
    parser.add_argument("--peers", type=int, default=4096, help="largest side at which peers run")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which a peer is stopped")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=int, default=16, help="GB of address space that a peer may use")
    parser.add_argument("--only", nargs="+", help="rows whose part or peer contains one of these texts")
    parser.add_argument("--agreement", action="store_true", help="compare the results on every label map instead")
    parser.add_argument("--every", type=int, default=1, help="with --agreement, take only every n-th label map")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    parser.add_argument("--first-calls", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.first_calls:
        print(json.dumps(time_first_calls()))
    else:
        main(parsed)
