"""Run of a workflow: start and end, parameters, tags, scores and files."""

import contextlib
import getpass
import hashlib
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from ..addresses import redact_message, redact_values
from ..errors import PreemptedError
from ..version import __version__
from .names import flat_scores, plain_parameters
from .spool import RUN_FILE, read_run_file
from .tracker import Tracker

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"
TRAINING_TAGS = {"run_id": "training_run_id", "key": "training_run_key"}  # by key of run.json
# Files of an evaluation, relative to its folder.
RESULTS = ("report.html", "report.json", "scores.csv", "failures.csv", "predictions.png", "results/metrics.json")
COUNTS = re.compile(r"/(tp|fp|fn|iou_sum)\d+$")
GIT_SECONDS = 5


@contextlib.contextmanager
def end_status(tracker: Tracker) -> Iterator[None]:
    """Close the run with the status of the block: FINISHED, FAILED, or KILLED by Ctrl-C, SIGTERM or preemption."""
    if not tracker.is_on:
        yield
        return
    status = "FAILED"
    try:
        with _sigterm_exits():
            yield
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit, PreemptedError):
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Raise ``SystemExit`` at SIGTERM, which otherwise ends Python immediately; an existing handler is kept."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def start_run(
    tracker: Tracker,
    parser: ConfigParser,
    mode: str,
    known: Mapping[str, str | None] | None = None,
    further: Mapping[str, Any] | None = None,
) -> None:
    """Open the run of a workflow, with the configuration as parameters and as a file.

    Args:
        tracker: nothing happens if it is off.
        parser: parser of the workflow. Expressions that it has resolved are logged with their values.
        mode: train, eval or infer.
        known: ``Tracker.state_dict`` of the checkpoint to resume from.
        further: parameters in addition to those of the configuration.
    """
    if not tracker.is_on or tracker.is_open:  # all phases of a training are one run
        return
    config: dict[str, Any] = parser.get()
    tags = _tried(run_tags, parser, mode)
    parameters = _tried(plain_parameters, config, parser.ref_resolver.resolved_content) | dict(further or {})
    tracker.experiment = tracker.experiment or bundle_folder(parser).name
    run_file = Path(parser.get_parsed_content("ckpt_path")) / RUN_FILE if mode == "train" else None
    tracker.start(parameters=parameters, tags=tags, run_file=run_file, **(known or {}))
    if tracker.spool is not None:
        path = tracker.spool.folder / CONFIG_FILE
        with contextlib.suppress(OSError):
            path.write_text(config_text(config))
            tracker.log_file(path)


def forget_run(folder: str | Path) -> None:
    """Remove ``run.json`` before a training without tracking replaces the weights beside it."""
    (Path(folder) / RUN_FILE).unlink(missing_ok=True)


def config_text(config: Mapping[str, Any]) -> str:
    """Return a configuration as redacted YAML."""
    plain = redact_values(json.loads(json.dumps(config, default=str)))
    return yaml.safe_dump(plain, sort_keys=False, width=1000)


def run_tags(parser: ConfigParser, mode: str) -> dict[str, str]:
    """Return the tags of a run: bundle, versions, commit, datalists, mode, user, and the training of the weights."""
    root = bundle_folder(parser)
    tags = {"bundle": root.name, "mode": mode, "cellbundle_version": __version__, "mlflow.source.name": root.name}
    with contextlib.suppress(OSError, ValueError):
        tags["bundle_version"] = str(json.loads((root / "configs" / "metadata.json").read_text())["version"])
    if commit := git_commit(root):
        tags |= {"git_commit": commit, "mlflow.source.git.commit": commit}
    if hashes := data_list_hashes(parser.get_parsed_content("data_list_files")):
        tags["data_list_sha256"] = ", ".join(hashes)
    with contextlib.suppress(Exception):  # the user of a container may have no name
        tags["mlflow.user"] = getpass.getuser()
    if mode != "train":
        tags |= training_run(parser.get_parsed_content("weights"))
    return tags


def bundle_folder(parser: ConfigParser) -> Path:
    """Return the folder of the bundle of a configuration."""
    return Path(parser.get_parsed_content("bundle_root")).resolve()


def training_run(weights: str | Path | None) -> dict[str, str]:
    """Return the tags of the tracked training of weights, from the ``run.json`` beside them; none without that file."""
    run = read_run_file(Path(str(weights)).resolve().parent)
    return {tag: str(run[key]) for key, tag in TRAINING_TAGS.items() if run.get(key)}


def data_list_hashes(specs: Any) -> list[str]:
    """Return the SHA-256 of each datalist, in order; after its name if there are several."""
    lists = ConfigParser.load_config_file(specs) if isinstance(specs, str) else specs
    paths = [Path(spec["datalist"]) for spec in lists or () if spec.get("datalist")]
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}
    return list(hashes.values()) if len(paths) < 2 else [f"{name} {value}" for name, value in hashes.items()]


def git_commit(folder: Path) -> str | None:
    """Return the commit of the repository of a folder; None without a repository or git."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        result = subprocess.run(
            [git, "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def log_results(tracker: Tracker, folder: str | Path, split: str, step: int = 0) -> None:
    """Log the scores and the files of an evaluation.

    Args:
        tracker: tracker with an open run.
        folder: output folder of the evaluation.
        split: first part of the names of the metrics, and folder of the files.
        step: epoch of the weights.
    """
    folder = Path(folder)
    for name in ("report.json", "results/metrics.json"):
        with contextlib.suppress(OSError, ValueError):
            tracker.log(report_scores(json.loads((folder / name).read_bytes()), split), step)
    for name in RESULTS:
        if (folder / name).is_file():
            tracker.log_file(folder / name, split)


def report_scores(content: dict[str, Any], split: str) -> dict[str, float]:
    """Return the scores of ``report.json`` or ``metrics.json`` by name, without the counts at each threshold.

    Args:
        content: content of the file. A single group equals ``all`` and is left out.
        split: first part of the names.
    """
    groups = content.pop("groups", {})
    scores = flat_scores(content.pop("all", None) or {}, split) | flat_scores(content, split)
    if len(groups) > 1:
        scores |= flat_scores(groups, f"{split}/groups")
    return {name: value for name, value in scores.items() if not COUNTS.search(name)}


def _tried(function: Callable[..., dict[str, str]], *args: Any) -> dict[str, str]:
    """Call a function; an error is logged, and the result is empty."""
    try:
        return function(*args)
    except Exception as error:  # noqa: BLE001  (errors of tracking never end a training)
        logger.warning("tracking: %s failed: %s: %s", function.__name__, type(error).__name__, redact_message(error))
        return {}
