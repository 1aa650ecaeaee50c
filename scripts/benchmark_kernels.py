"""How fast the kernels are, next to every installed peer, with equal results.

python scripts/benchmark_kernels.py [--labels DIR] [--sizes 1024 2048 4096 8192] [--output docs/benchmarks/kernels.md]
python scripts/benchmark_kernels.py --labels DIR --agreement      equal results on every label map of DIR, no times

Mosaics are made of 256x256 tiles of the label maps in DIR, or of synthetic ones. We and the peer run alternately in one
process, after one call on a small map (imports, compilation). A peer is stopped after --limit seconds; the ratio is
then a lower bound. Results are compared first: for a wrong one no time is printed. Above --peers pixels we run alone.
Growth with the number of pixels, the exponent of a fitted power law, is measured on the smallest mosaic, repeated: one
drawn mosaic differs from the next in how much of it is cell and how large the largest one is.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from cellbundle import synthetic
from cellbundle.io import read_labels
from cellbundle.kernels.parallel import n_threads
from cellbundle.labels import renumber
from kernel_cases import CASES, Case

TILE = 256
WARM_UP = 96  # side of the map of the first call, pixels
OURS_PER_PEER = 5  # we are so much faster that more calls cost nothing


class Row(NamedTuple):
    """What was seen of one case at one size."""

    case: Case
    size: int
    n: int
    ours: list[float]
    theirs: list[float]
    note: str
    error: float | None = None


# Inputs


def label_maps(folder: Path | None) -> Iterator[np.ndarray]:
    """All label maps of a folder, or synthetic ones."""
    if folder is None:
        for seed in range(32):
            yield synthetic.generate("fluorescence", (2 * TILE, 2 * TILE), 80, diameter=30, seed=seed)[1]
    else:
        yield from (renumber(read_labels(path))[0] for path in sorted(folder.iterdir()))


def cut_tiles(maps: Iterator[np.ndarray]) -> list[np.ndarray]:
    """All whole 256x256 tiles of label maps, (256, 256) int32."""
    return [
        renumber(labels[y : y + TILE, x : x + TILE])[0]
        for labels in maps
        for y in range(0, labels.shape[0] - TILE + 1, TILE)
        for x in range(0, labels.shape[1] - TILE + 1, TILE)
    ]


def mosaic(tiles: list[np.ndarray], size: int) -> np.ndarray:
    """(size, size) int32 label map, ids 1..N, of tiles in an order that the seed 0 draws."""
    across = -(-size // TILE)
    repeats = -(-(across**2) // len(tiles))
    order = np.random.default_rng(0).permutation(np.tile(np.arange(len(tiles)), repeats))
    labels = np.zeros((across * TILE, across * TILE), np.int32)
    highest = 0
    for place, number in enumerate(order[: across**2]):
        y, x = TILE * (place // across), TILE * (place % across)
        tile = tiles[number]
        labels[y : y + TILE, x : x + TILE] = np.where(tile > 0, tile + highest, 0)
        highest += int(tile.max(initial=0))
    return renumber(labels[:size, :size])[0]


def repeat(labels: np.ndarray, times: int) -> np.ndarray:
    """A label map (H, W) int32, ids 1..N, times x times beside itself, every instance with an id of its own."""
    n = int(labels.max(initial=0))
    shifts = n * np.arange(times**2, dtype=np.int32).reshape(times, 1, times, 1)
    copies = np.broadcast_to(labels[None, :, None, :], (times, len(labels), times, len(labels)))
    return np.where(copies > 0, copies + shifts, 0).reshape(times * len(labels), -1)


# The process that is measured


def serve(connection: Connection, memory: int) -> None:
    """Answer (case, file of a label map, repeats, whether the peer runs) with events, until the other side closes."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    torch.set_num_threads(n_threads())
    warm = synthetic.generate("fluorescence", (WARM_UP, WARM_UP), 6, seed=1)[1]
    while True:
        try:
            number, path, repeats, with_peer = connection.recv()
        except EOFError:
            return
        case = CASES[number]
        try:
            case.ours(case.inputs(warm))
            if with_peer:
                case.theirs(case.inputs(warm))
            inputs = case.inputs(np.load(path))
            for event in measure_case(case, inputs, repeats, with_peer):
                connection.send(event)
        except Exception as error:  # noqa: BLE001  (whatever a peer raises is its result)
            connection.send(("failed", f"{type(error).__name__}: {error}"[:80]))


def measure_case(case: Case, inputs: Any, repeats: int, with_peer: bool) -> Iterator[tuple[str, Any]]:
    """Events ``ours`` and ``theirs`` (seconds), ``start`` before the peer, ``error`` after its first, ``done``."""
    for number in range(repeats):
        for _ in range(OURS_PER_PEER):
            started = time.perf_counter()
            ours = case.ours(inputs)
            yield "ours", time.perf_counter() - started
        if with_peer:
            yield "start", None
            started = time.perf_counter()
            theirs = case.theirs(inputs)
            yield "theirs", time.perf_counter() - started
            if number == 0:
                yield "error", case.error(inputs, ours, theirs)
    yield "done", None


class Worker:
    """A process that measures, and is replaced when a peer has to be stopped."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.start()

    def start(self) -> None:
        """Start the process."""
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, self.memory), daemon=True)
        self.process.start()
        other.close()

    def run(self, case: Case, path: Path, repeats: int, with_peer: bool, limit: float) -> tuple[list, list, str, Any]:
        """Seconds of both sides, a note, and how far the results are apart (None if the peer did not finish)."""
        self.connection.send((CASES.index(case), path, repeats, with_peer))
        ours: list[float] = []
        theirs: list[float] = []
        error = None
        peer_runs = False
        while True:
            if peer_runs and not self.connection.poll(limit):
                self.process.kill()
                self.start()
                return ours, theirs, "" if theirs else f"stopped after {limit:.0f} s", error
            try:
                event, value = self.connection.recv()
            except EOFError:
                self.start()
                return ours, theirs, "the process died", error
            peer_runs = event == "start"
            if event == "ours":
                ours.append(value)
            elif event == "theirs":
                theirs.append(value)
            elif event == "error":
                error = value
            elif event == "failed":
                return ours, theirs, value, error
            elif event == "done":
                return ours, theirs, "", error


# What is printed


def missing_package(case: Case) -> str:
    """A note if the peer is not installed, else nothing."""
    try:
        importlib.metadata.version(case.package)
    except importlib.metadata.PackageNotFoundError:
        return f"{case.package} is not installed"
    return ""


def format_row(row: Row, limit: float) -> str:
    """One line of the table."""
    case, wrong = row.case, row.error is not None and not row.error <= row.case.largest_error
    cells = [case.part, f"{row.size}² ({row.n})", case.peer]
    error = "" if row.error is None else f"{row.error:.2g} {case.error_name}"
    if wrong:
        return "| " + " | ".join([*cells, "", "", "", f"≥ {case.goal:g}", f"**wrong**: {error}"]) + " |"
    ours = f"{median(row.ours):.4f}" if row.ours else ""
    if row.theirs:
        theirs, ratio = f"{median(row.theirs):.3f}", f"{median(row.theirs) / median(row.ours):.1f}"
    elif row.note.startswith("stopped") and row.ours:
        theirs, ratio = f"> {limit:.0f}", f"> {limit / median(row.ours):.1f}"
    else:
        theirs, ratio = "", ""
    return "| " + " | ".join([*cells, ours, theirs, ratio, f"≥ {case.goal:g}", error or row.note]) + " |"


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
    installed = []
    for name in names:
        try:
            installed.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            installed.append(f"{name} not installed")
    return f"Python {platform.python_version()}, {n_threads()} threads; " + ", ".join(installed) + "."


def benchmark(arguments: argparse.Namespace, cases: list[Case]) -> str:
    """The whole page."""
    tiles = cut_tiles(label_maps(arguments.labels))
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
                ours = worker.run(case, path, 1, with_peer=False, limit=arguments.limit)[0]
                growth.setdefault(part, {})[size] = median(ours)
    source = f"label maps of `{arguments.labels.name}`" if arguments.labels else "synthetic label maps"
    lines = [
        "# The kernels beside their peers",
        "",
        "Written by `scripts/benchmark_kernels.py`, which says how it measures. Results were compared first; whether",
        "they agree on every single label map is on [its own page](agreement.md).",
        "",
        f"Mosaics of {len(tiles)} tiles of {source}; medians of {arguments.repeats} alternating runs. {versions()}",
        "",
        "| part | pixels (instances) | peer | ours, s | peer, s | ratio | goal | largest difference |",
        "|---|---|---|---|---|---|---|---|",
        *(format_row(row, arguments.limit) for row in rows),
        "",
        *(format_growth(growth) if len(arguments.sizes) > 1 else []),
    ]
    return "\n".join(lines) + "\n"


def agreement(arguments: argparse.Namespace, cases: list[Case]) -> str:
    """A table of how far the results are apart on every single label map."""
    torch.set_num_threads(n_threads())
    worst = dict.fromkeys(cases, 0.0)
    wrong = dict.fromkeys(cases, 0)
    count = 0
    installed = [case for case in cases if not missing_package(case)]
    for labels in tqdm(islice(label_maps(arguments.labels), None, None, arguments.every), file=sys.stderr):
        count += 1
        for case in installed:
            inputs = case.inputs(labels)
            error = case.error(inputs, case.ours(inputs), case.theirs(inputs))
            worst[case] = max(worst[case], error)
            wrong[case] += not error <= case.largest_error
    lines = [
        "# Agreement of the kernels with their peers",
        "",
        "Written by `scripts/benchmark_kernels.py --agreement`.",
        "",
        f"{count} label maps, one by one. {versions()}",
        "",
        "| part | peer | largest difference | allowed | maps beyond it |",
        "|---|---|---|---|---|",
    ]
    for case in cases:
        seen = f"{worst[case]:.2g} {case.error_name}" if case in installed else missing_package(case)
        lines.append(f"| {case.part} | {case.peer} | {seen} | {case.largest_error:g} | {wrong[case]} |")
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
    cases = [case for case in CASES if not arguments.only or arguments.only in case.part]
    text = agreement(arguments, cases) if arguments.agreement else f"{benchmark(arguments, cases)}\n{first_calls()}"
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


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
    parser.add_argument("--only", help="parts whose name contains this")
    parser.add_argument("--agreement", action="store_true", help="compare the results on every label map instead")
    parser.add_argument("--every", type=int, default=1, help="with --agreement, take only every n-th label map")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    parser.add_argument("--first-calls", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.first_calls:
        print(json.dumps(time_first_calls()))
    else:
        main(parsed)
