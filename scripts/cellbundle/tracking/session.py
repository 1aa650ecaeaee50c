"""From a workflow to a run: when it begins and ends, what is known of it, which files belong to it."""

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from ..addresses import redact_text, redact_values
from ..errors import PreemptedError
from ..version import __version__
from .names import flat_scores, plain_parameters
from .tracker import Tracker

logger = logging.getLogger(__name__)

RUN_FILE, CONFIG_FILE = "run.json", "config.yaml"
TRAINING_ID, TRAINING_KEY = "training_run_id", "training_run_key"
# What an evaluation writes, relative to its folder, with the folder of the run.
RESULTS = ("report.html", "report.json", "scores.csv", "failures.csv", "predictions.png", "results/metrics.json")
COUNT = re.compile(r"/(tp|fp|fn|iou_sum)\d+$")
GIT_SECONDS = 5


@contextlib.contextmanager
def end_status(tracker: Tracker) -> Iterator[None]:
    """Close the run, if one was opened, with the status that fits how the block ends. SIGTERM ends it like Ctrl-C."""
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
    """Without this, SIGTERM ends Python at once; a handler of somebody else stays."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
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
        tracker: does nothing if it is off.
        parser: of the workflow; what is resolved by now is logged as it is.
        mode: train, eval or infer.
        known: of a checkpoint, see ``Tracker.state_dict``.
        further: parameters beside those of the configuration.
    """
    if not tracker.is_on or tracker.is_open:  # the next phase goes on in the same run
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
    """Remove ``run.json``: a training that nobody tracks is about to replace the weights that it speaks of."""
    (Path(folder) / RUN_FILE).unlink(missing_ok=True)


def config_text(config: Mapping[str, Any]) -> str:
    """A configuration as YAML, with redacted addresses."""
    plain = redact_values(json.loads(json.dumps(config, default=str)))
    return yaml.safe_dump(plain, sort_keys=False, width=1000)


def run_tags(parser: ConfigParser, mode: str) -> dict[str, str]:
    """What to find a run by: bundle, versions, commit, data lists, mode, user, and the training of the weights."""
    root = bundle_folder(parser)
    tags = {"bundle": root.name, "mode": mode, "cellbundle_version": __version__, "mlflow.source.name": root.name}
    with contextlib.suppress(OSError, ValueError):
        tags["bundle_version"] = str(json.loads((root / "configs" / "metadata.json").read_text())["version"])
    if commit := git_commit(root):
        tags |= {"git_commit": commit, "mlflow.source.git.commit": commit}
    if hashes := data_list_hashes(parser.get_parsed_content("data_list_files")):
        tags["data_list_sha256"] = ", ".join(hashes)
    with contextlib.suppress(Exception):  # a container may have no name for its user
        tags["mlflow.user"] = getpass.getuser()
    if mode != "train":
        tags |= training_run(parser.get_parsed_content("weights"))
    return tags


def bundle_folder(parser: ConfigParser) -> Path:
    """Folder of the bundle that a configuration belongs to."""
    return Path(parser.get_parsed_content("bundle_root")).resolve()


def training_run(weights: str | Path | None) -> dict[str, str]:
    """Tags that name the training of some weights, from the ``run.json`` beside them; none if it is not known."""
    try:
        run = json.loads((Path(str(weights)).resolve().parent / RUN_FILE).read_bytes())
        found = {TRAINING_ID: run["run_id"], TRAINING_KEY: run["key"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {name: str(value) for name, value in found.items() if value}


def data_list_hashes(specs: Any) -> list[str]:
    """SHA-256 of each data list, in order; with its name where there are several."""
    lists = ConfigParser.load_config_file(specs) if isinstance(specs, str) else specs
    paths = [Path(spec["datalist"]) for spec in lists or () if spec.get("datalist")]
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}
    return list(hashes.values()) if len(paths) < 2 else [f"{name} {value}" for name, value in hashes.items()]


def git_commit(folder: Path) -> str | None:
    """Commit of the repository that a folder is in; None without one, or without git."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run(
            [git, "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def log_results(tracker: Tracker, folder: str | Path, split: str, step: int = 0) -> None:
    """Log the scores and the files that an evaluation has written.

    Args:
        tracker: with an open run.
        folder: the output folder.
        split: what the names of the metrics begin with.
        step: of the metrics: the epoch of the weights, where it is known.
    """
    folder = Path(folder)
    for name in ("report.json", "results/metrics.json"):
        with contextlib.suppress(OSError, ValueError):
            tracker.log(report_scores(json.loads((folder / name).read_bytes()), split), step)
    for name in RESULTS:
        if (folder / name).is_file():
            tracker.log_file(folder / name, split)


def report_scores(content: dict[str, Any], split: str) -> dict[str, float]:
    """The scores of ``report.json`` or ``metrics.json`` by name, without the counts at each threshold.

    Args:
        content: of the file. A single group says what ``all`` says and is left out.
        split: what the names begin with.
    """
    groups = content.pop("groups", {})
    scores = flat_scores(content.pop("all", None) or {}, split) | flat_scores(content, split)
    if len(groups) > 1:
        scores |= flat_scores(groups, f"{split}/groups")
    return {name: value for name, value in scores.items() if not COUNT.search(name)}


def _tried(function: Any, *args: Any) -> dict[str, str]:
    try:
        return function(*args)
    except Exception as error:  # noqa: BLE001  (a run without its tags is better than no training)
        text = redact_text(str(error))
        logger.warning("tracking: %s failed: %s: %s", function.__name__, type(error).__name__, text)
        return {}
