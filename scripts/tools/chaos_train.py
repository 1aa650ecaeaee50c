"""Kill trainings at random moments, resume them, and compare them with uninterrupted ones.

python scripts/tools/chaos_train.py [--case cell_unet ...] [--kills 30] [--minutes 45] [--seed 0] [--verbose]

Each case trains a bundle with its ``configs/small.yaml`` on synthetic images without interruption. Then it starts the
same training with `--resume auto` in another folder, kills it with SIGKILL and SIGTERM in turn, and starts it again,
until all kills are done and the training may finish. The kills are spread over the training; some come while the
program starts, while a checkpoint is written, or after the last weights. After each kill all checkpoints must be
readable. At the end weights and history must equal those of the uninterrupted training; where another library has the
loop, no epoch may be lost.

Prints a table. The exit code is 1 if a check failed. A case that `--minutes` does not allow is "not run".
"""

import argparse
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
import yaml

from cellbundle.io.write import TEMPORARY
from cellbundle.synthetic import write_dataset

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
RUN, LATEST, FINAL, PREEMPTED = "run.yaml", "latest.pt", "model_final.pt", "PREEMPTED"
SAVED = 75  # exit code after SIGTERM
START, TRAINING, WRITING, ENDING = "start", "training", "writing", "ending"  # aims of a kill
LAST = 0.9  # fraction of the training after which no kill is planned but ENDING
ROUNDS = 4  # trainings of a case: one that ends before its last kill is followed by another
STOP_S = 120  # for the end after SIGTERM
COLUMNS = "case, processes, kills (KILL/TERM), in a write, starts, exit codes, weights equal, history equal, "
COLUMNS += "unreadable files, left temporary files, all problems, seconds"


class Case(NamedTuple):
    """A training to kill; ``exact`` if weights and history must be equal bit for bit."""

    bundle: str
    workflow: str
    options: str
    kills: int = 5
    processes: int = 1
    exact: bool = True


COMMON = "--num_workers 0 --device_name cpu --final_test False --patience 0 --seed 0 --train#trainer#max_epochs"
EPOCHS = 12
LONG = {"cell_unet": (50, 64, 30)}  # epochs, crops of an epoch, kills: the bundle that is also killed in two processes
WHERE_KNOWN = {"crops_per_epoch": 16, "checkpoint_minutes": 0.01, "checkpoint_interval": 0}  # in minutes: often


def find_cases() -> dict[str, Case]:
    """A case for each bundle, and one in two processes for those of ``LONG``."""
    cases = {}
    for file in sorted(BUNDLES.glob("*/configs/metadata.json")):
        root, name = file.parents[1], file.parts[-3]
        config = json.loads((root / "configs" / "train.json").read_text(encoding="utf-8"))
        (workflow,) = re.findall(r"^class (\w+)", (root / "scripts" / "workflow.py").read_text(encoding="utf-8"), re.M)
        epochs, crops, kills = LONG.get(name, (EPOCHS, WHERE_KNOWN["crops_per_epoch"], 5))
        further = {key: value for key, value in {**WHERE_KNOWN, "crops_per_epoch": crops}.items() if key in config}
        options = " ".join([f"{COMMON} {epochs}", *(f"--{key} {value}" for key, value in further.items())])
        exact = config["train"]["trainer"]["_target_"] == "SupervisedTrainer"
        cases[name] = Case(name, workflow, options, kills, exact=exact)
        if name in LONG:
            cases[f"{name}_2"] = cases[name]._replace(processes=2)
    return cases


CASES = find_cases()
Times = tuple[float, float, float]  # seconds to run.yaml, from there to the first checkpoint, from there to the end


class Kill(NamedTuple):
    """A planned kill; WRITING waits from the moment on for a checkpoint being written, ENDING for the last weights."""

    signal: signal.Signals
    aim: str
    moment: float  # fraction of the training that is done by then
    early: float  # fraction of the seconds until the first checkpoint (START: until run.yaml) to wait in addition


def plan_kills(number: int, seed: int) -> list[Kill]:
    """Plan kills at random moments, one in each of ``number`` equal parts of the training."""
    draw = random.Random(seed).random
    aims = [START if i % 7 == 5 else WRITING if i % 4 == 0 else TRAINING for i in range(number)]
    signals = [(signal.SIGKILL, signal.SIGTERM)[i % 2] for i in range(number)]
    if number > 1:
        aims[-1], signals[-1] = ENDING, signal.SIGKILL
    return [Kill(signals[i], aims[i], LAST * (i + draw()) / number, draw()) for i in range(number)]


def temporary_files(folder: Path, suffix: str = "") -> set[str]:
    """Names of the temporary files of a folder."""
    return {path.name for path in folder.glob(f".*{suffix}") if TEMPORARY.fullmatch(path.name)}


def read_checkpoints(folder: Path) -> tuple[list[str], tuple[int, ...]]:
    """Load all checkpoints: problems of unreadable ones, and the last phase, epoch and iteration to resume from."""
    problems, last = [], (0, 0, 0)
    for path in folder.glob("[!.]*.pt"):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - damaged files raise errors of many types
            problems.append(f"unreadable: {path.name}: {error}")
        else:
            if "epoch" in state:
                last = max(last, (state.get("phase", 0), state["epoch"], state.get("iteration", 0)))
    return problems, last


def run_status(folder: Path) -> str:
    """Status in ``run.yaml``, or "none"."""
    with suppress(OSError, yaml.YAMLError, KeyError, TypeError):
        return str(yaml.safe_load((folder / RUN).read_text(encoding="utf-8"))["status"])
    return "none"


def read_history(folder: Path) -> list[tuple[str, dict[str, str]]]:
    """Phase and epoch, and the values without ``seconds``, of each row of ``history.csv``; empty without the file."""
    with suppress(FileNotFoundError), (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        rows = [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]
        return [(f"{row.get('phase', '')} {row['epoch']}".strip(), row) for row in rows]
    return []


def read_bits(path: Path) -> dict[str, tuple]:
    """Type, shape and bytes of each tensor of a file of weights; empty if it cannot be loaded."""
    with suppress(Exception):  # damaged files raise errors of many types
        weights = torch.load(path, map_location="cpu", weights_only=True)
        flat = {key: value.reshape(-1).view(torch.uint8).numpy() for key, value in weights.items()}
        return {key: (value.dtype, value.shape, flat[key].tobytes()) for key, value in weights.items()}
    return {}


def compare_weights(expected: Path, got: Path) -> list[str]:
    """Problems with the files ``model*.pt`` of a run: differences from those of another run, bit for bit."""
    problems = []
    for name in sorted({"model.pt", FINAL} | {path.name for path in expected.glob("model*.pt")}):
        first, second = read_bits(expected / name), read_bits(got / name)
        different = [key for key in first | second if first.get(key) != second.get(key)]
        if different or not first:
            problems.append(f"weights: {name}: {len(different)} of {len(first)} tensors differ: {different[:3]}")
    return problems


def compare_history(expected: Path, got: Path, exact: bool = True) -> list[str]:
    """Problems with ``history.csv``: epochs that are missing or there twice and, with ``exact``, other values."""
    first, second = read_history(expected), read_history(got)
    wanted, keys = [key for key, _ in first], [key for key, _ in second]
    if keys != wanted:
        return [f"history: epochs {', '.join(keys)}; expected {', '.join(wanted)}"]
    different = [key for (key, row), (_, other) in zip(first, second, strict=True) if row != other]
    return [f"history: the values of epoch {', '.join(different)} differ"] if exact and different else []


def compare_runs(expected: Path, got: Path, exact: bool = True) -> list[str]:
    """Return the problems of a resumed run beside an uninterrupted one; without ``exact``, values may differ."""
    problems = [*(compare_weights(expected, got) if exact else ()), *compare_history(expected, got, exact)]
    problems += [f"temporary: {name} is left" for name in sorted(temporary_files(got))]
    return problems + ([] if (status := run_status(got)) == "finished" else [f"status: {status}, expected finished"])


class Training(AbstractContextManager):
    """A training in a process group of its own, which ends with the block; the log is appended to a file beside it."""

    def __init__(self, command: Sequence[str], folder: Path, deadline: float, cwd: Path | None = None) -> None:
        self.folder, self.deadline, self.log = folder, deadline, folder.with_name(f"{folder.name}.log")
        self.began, self.torn = time.time(), temporary_files(folder, ".pt")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        with self.log.open("ab") as log:
            files = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.process = subprocess.Popen(command, cwd=cwd, env=environment, start_new_session=True, **files)

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL, self.members())

    def wrote(self, name: str) -> bool:
        """Whether a file was written since the start."""
        with suppress(FileNotFoundError):
            return (self.folder / name).stat().st_mtime > self.began
        return False

    def members(self) -> list[psutil.Process]:
        """All processes that have the folder as an argument: torchrun's workers have process groups of their own."""
        return [p for p in psutil.process_iter(["cmdline"]) if str(self.folder) in (p.info["cmdline"] or ())]

    def until(self, condition: Callable[[], bool], seconds: float = float("inf")) -> float:
        """Wait for a condition, the end, or ``seconds``; kill at the deadline. Return the seconds taken."""
        began = time.monotonic()
        while not condition() and self.process.poll() is None and time.monotonic() < began + seconds:
            if time.monotonic() > self.deadline:
                self.end(signal.SIGKILL, self.members())
            time.sleep(0.001)
        return time.monotonic() - began

    def wait_for(self, kill: Kill, times: Times, done: float) -> list[psutil.Process]:
        """Wait for the moment of a kill; ``done`` is the fraction of the training that was done before this start.

        Returns:
            The processes to kill, found in advance: that takes longer than writing a checkpoint.
        """
        start, ready, training = times
        seconds = kill.early * ready + max(0.0, kill.moment - done) * training
        if kill.aim != START:
            self.until(lambda: self.wrote(RUN))
        self.until(lambda: False, {START: kill.early * start, ENDING: 0}.get(kill.aim, seconds))
        members = self.members()
        if kill.aim == WRITING:
            self.until(lambda: bool(temporary_files(self.folder, ".pt") - self.torn))
        elif kill.aim == ENDING:
            self.until(lambda: self.wrote(FINAL))
        return members

    def end(self, number: signal.Signals, members: Sequence[psutil.Process]) -> None:
        """Send a signal to the process group, SIGKILL also to ``members``, and wait until no process is left."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        if number == signal.SIGTERM:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
            members = self.members()
        while members or self.process.poll() is None:
            for one in members:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
            members = self.members()


def run_with_kills(
    start: Callable[[], Training], plan: Sequence[Kill], times: Times, epochs: int, coded: bool, say: Callable
) -> tuple[Counter[str], list[str]]:
    """Start a training, kill it, resume it, and so on as planned, then let it finish.

    Args:
        start: starts or resumes the training.
        plan: kills in their order; those after the end of the training are left out.
        times: of the uninterrupted run.
        epochs: rows of its history.
        coded: SIGTERM must give exit code 75 once a checkpoint has been written since the start.
        say: gets a line for each start.

    Returns:
        Numbers of starts, of kills by signal, of exit codes and of incomplete checkpoints; and problems.
    """
    counts, problems, last = Counter[str](), list[str](), (0, 0, 0)
    for kill in (*plan, None):
        with start() as training:
            folder, done = training.folder, len(read_history(training.folder)) / epochs
            members = training.wait_for(kill, times, done) if kill else []
            training.until(lambda number=kill: number is not None)  # the last start may finish
            event = kill.signal.name if kill and training.process.poll() is None else "end"
            iterating = training.wrote(LATEST)
            if kill and event != "end":
                training.end(kill.signal, members)
        code, status, noted = training.process.returncode, run_status(folder), training.wrote(PREEMPTED)
        torn = event == "SIGKILL" and bool(temporary_files(folder, ".pt") - training.torn)
        found, now = read_checkpoints(folder)
        if now < last:
            found.append(f"lost: phase, epoch, iteration {now} after {last}")
        stopped = (noted and status == "preempted") if code == SAVED else (not iterating or status == "finished")
        if not {"end": code == 0, "SIGTERM": stopped or not coded}.get(event, True):
            found.append(f"exit: {event}, code {code}, status {status}, {PREEMPTED}: {noted}")
        problems, last = problems + found, max(last, now)
        counts.update({"starts": 1, event: 1, f"exit {code}{' PREEMPTED' * noted}": 1, "torn": int(torn)})
        say(f"{event} ({kill.aim if kill else 'last start'}): {code}, {status}, at {now}, {done:.0%} before; {found}")
        if event == "end":
            break
    return counts, problems


def run_case(name: str, kills: int, data: Path, deadline: float, seed: int, say: Callable) -> tuple[str, list[str]]:
    """Run a case in a folder beside that of the data; return its row of the table and its problems."""
    began, case, folder, bundle = time.monotonic(), CASES[name], data.parents[1] / name, BUNDLES / CASES[name].bundle
    launcher = f"-m torch.distributed.run --standalone --nproc_per_node={case.processes} " if case.processes > 1 else ""
    line = f"{launcher}-m monai.bundle run_workflow scripts.workflow.{case.workflow} {case.options}"
    files = {"config_file": "configs/small.yaml", "datalist": data, "basedir": data.parent}
    folder.mkdir()

    def start(got: Path, *further: str) -> Training:
        paths = {**files, "ckpt_path": got, "output_dir": got / "eval"}
        options = [word for key, path in paths.items() for word in (f"--{key}", str(path))]
        return Training([sys.executable, *line.split(), *options, *further], got, deadline, bundle)

    with start(expected := folder / "uninterrupted") as training:
        conditions = (lambda: training.wrote(RUN), lambda: training.wrote(LATEST), lambda: False)
        times = tuple(training.until(condition) for condition in conditions)
    epochs, code = len(read_history(expected)), training.process.returncode
    say(f"{name} without kills: exit code {code}, {epochs} epochs, seconds {[round(seconds, 1) for seconds in times]}")
    if time.monotonic() + kills * sum(times[:2]) + 2 * times[2] > deadline:
        return f"{name} | not run", []
    if code != 0 or epochs == 0:
        return f"{name} | failed", [f"{name}: exit code {code} without kills\n{training.log.read_text()[-2000:]}"]
    counts, problems, weights = Counter[str](), list[str](), list[str]()
    while (left := kills - counts["SIGKILL"] - counts["SIGTERM"]) > 0 and counts["end"] < ROUNDS and not problems:
        got, plan = folder / f"killed_{counts['end']}", plan_kills(left, seed + counts["end"])
        again, coded = partial(start, got, "--resume", "auto"), case.exact and case.processes == 1
        part, found = run_with_kills(again, plan, times, epochs, coded, say)
        counts, weights = counts + part, weights + compare_weights(expected, got)
        problems += found + compare_runs(expected, got, case.exact)
    problems += [f"kills: {left} of {kills} left out"] if left > 0 else []
    named = Counter(problem.split(":")[0] for problem in problems)
    codes = ", ".join(f"{key[5:]}: {number}" for key, number in counts.items() if key.startswith("exit "))
    equal = ("no" if weights else "yes") + ("" if case.exact else " (need not)"), "no" if named["history"] else "yes"
    cells = [name, case.processes, f"{counts['SIGKILL']}/{counts['SIGTERM']}", counts["torn"], counts["starts"], codes]
    cells += [*equal, named["unreadable"], named["temporary"], len(problems), round(time.monotonic() - began)]
    return " | ".join(map(str, cells)), [f"{name}: {problem}" for problem in problems]


def main(arguments: argparse.Namespace) -> int:
    """Print the table and the problems; 1 if there are any."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # ends the training, too
    deadline = time.monotonic() + 60 * arguments.minutes
    say = partial(print, flush=True) if arguments.verbose else lambda *_: None
    with nullcontext(arguments.folder) if arguments.folder else tempfile.TemporaryDirectory() as scratch:
        data = write_dataset(Path(scratch).resolve() / "data", n_training=8, n_testing=2, size=(96, 96), seed=0)
        wanted = {name: arguments.kills or CASES[name].kills for name in arguments.case or CASES}
        results = [run_case(name, kills, data, deadline, arguments.seed, say) for name, kills in wanted.items()]
    print(f"| {COLUMNS.replace(', ', ' | ')} |\n|{'---|' * len(COLUMNS.split(', '))}")
    print("\n".join(f"| {row} |" for row, _ in results))
    problems = [problem for _, found in results for problem in found]
    print("\n".join(problems))
    return int(bool(problems))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="keep all files here; an empty or new folder")
    parser.add_argument("--verbose", action="store_true", help="a line for each start")
    raise SystemExit(main(parser.parse_args()))
