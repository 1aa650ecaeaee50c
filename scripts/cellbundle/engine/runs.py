"""Run folders: ``<bundle>/runs/<number>`` of a training that names none, its record, and what may change on resume."""

import errno
import logging
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from filelock import FileLock, Timeout
from monai.bundle import ConfigParser

from .. import distributed
from ..addresses import redact_text
from ..bundles import in_wheel
from ..errors import CheckpointError, ConfigError
from ..flags import WORDS, as_bool
from ..io import first_few
from ..io.ownership import STATE
from ..record import BEST, FORM, RECORD, Record, bundle_name, find_settings, read_record, write_record
from ..tracking.session import config_text, data_list_hashes, git_commit
from ..version import __version__
from .checkpoint import can_resume
from .overrides import config_ids, lookup

logger = logging.getLogger(__name__)

RUNS = "runs"
AUTO = "auto"
LOCK = "training.lock"
RUNNING, FINISHED, FAILED, STOPPED, PREEMPTED = "running", "finished", "failed", "stopped", "preempted"
PACKAGES = ("torch", "torchvision", "monai", "pytorch-ignite", "numpy", "timm", "peft", "ultralytics")
# Of file systems without locks; None is that of NotImplementedError.
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, None}
MAX_SHOWN = 10  # changes that a message lists
MAX_EPOCHS = "train#trainer#max_epochs"
COMPARED = {"configuration", "data_sha256", "max_epochs", "processes"}
# A resumed training may change these: where and how fast it runs, and what it logs and shows.
MAY_CHANGE = {
    "allow_changes", "backbone_weights", "basedir", "bundle_root", "cache_rate", "checkpoint_interval",
    "checkpoint_minutes", "ckpt_path", "data_list_files", "datalist", "dataset_dir", "device", "device_name",
    "feature_cache", "figures", "final_test", "handlers", "image_workers", "imports", "input_dir",
    "mlflow_experiment_name", "mlflow_log_system_metrics", "mlflow_run_name", "mlflow_tracking_uri", "mode",
    "num_workers", "output_dir", "overwrite", "patience", "phase", "phase_now", "postprocessing",
    "pretrained_ckpt_name", "pretrained_ckpt_path", "replace_foreign", "resume", "sam_checkpoint", "sheets",
    "split", "submission", "tile_batch", "tile_dir", "tracker",
}  # fmt: skip


class Run(NamedTuple):
    """A run folder with its record."""

    folder: Path
    record: Record


def runs_folders(root: Path) -> list[Path]:
    """Folders that hold the runs of a bundle: its own, unless it is part of a wheel, and the working directory's."""
    return list(dict.fromkeys([*([] if in_wheel(root) else [root / RUNS]), Path.cwd() / RUNS]))


def find_runs(root: Path) -> list[Run]:
    """All runs of a bundle, the newest first; folders whose record is missing or damaged are left out."""
    name = bundle_name(root)
    found = []
    for folder in runs_folders(root):
        for path in folder.iterdir() if folder.is_dir() else ():
            try:
                record = read_record(path) if path.name.isdigit() else None
            except CheckpointError as error:
                logger.warning("%s", error)
                continue
            if record is not None and record["bundle"] == name:
                found.append(Run(path, record))
    return sorted(found, key=lambda run: (_started(run.record), int(run.folder.name)), reverse=True)


def _started(record: Record) -> float:
    try:
        return datetime.fromisoformat(str(record.get("started"))).timestamp()
    except ValueError:
        return 0.0


def last_run(root: Path) -> Path | None:
    """Folder of the newest finished run that was not ``--quick`` and has weights; None if there is none."""
    for folder, record in find_runs(root):
        if record.get("status") == FINISHED and not record.get("quick") and (folder / BEST).is_file():
            return folder
    return None


def unfinished_run(root: Path, quick: bool = False) -> Path | None:
    """Folder of the newest run that did not finish and that nobody is training; of those with ``--quick``, or not."""
    for folder, record in find_runs(root):
        if record.get("status") != FINISHED and bool(record.get("quick")) == quick and not _is_locked(folder):
            return folder
    return None


def _is_locked(folder: Path) -> bool:
    lock = FileLock(folder / STATE / LOCK, blocking=False)
    try:
        with lock:
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False


def make_folder(root: Path) -> Path:
    """Make the folder of a new run: in the bundle, or in the working directory where the bundle is read-only.

    Raises:
        ConfigError: if neither can be written.
    """
    reason: OSError | None = None
    for folder in runs_folders(root):
        try:
            folder.mkdir(exist_ok=True)
            number = max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=0)
            while True:
                number += 1
                try:
                    (folder / str(number)).mkdir()
                except FileExistsError:  # another training has just taken it
                    continue
                return folder / str(number)
        except OSError as error:
            reason = error
    raise ConfigError(f"no folder for a run can be made ({reason}); give a folder with --ckpt_path") from reason


def choose_folder(root: Path, mode: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Folder of a command that names none, the same in all processes.

    A training gets a new run, or with ``resume`` the newest one that is not finished. ``eval`` and ``infer`` get that
    of the last run, or the bundle's ``models`` if there is none.

    Args:
        root: folder of the bundle.
        mode: train, eval or infer.
        options: the configuration with the overrides.

    Returns:
        Overrides, none if ``ckpt_path`` is given, and a sentence for the log.

    Raises:
        CheckpointError: if there is no run to resume.
    """
    if options.get("ckpt_path") is not None:
        return {}, ""
    models = root / "models"
    if mode != "train":
        named = options.get("pretrained_ckpt_path") is not None
        folder = None if named else distributed.from_first(lambda: last_run(root))
        why = f"ckpt_path is {folder or models}, {'the last run' if folder else 'the weights of the bundle'}"
        return {"ckpt_path": str(folder or models)}, "" if named else why
    resume = options.get("resume")
    wanted, quick = resume == AUTO or as_bool(resume), as_bool(options.get("quick", False))
    folder = distributed.from_first(lambda: (unfinished_run(root, quick) if wanted else None) or _new_run(root, resume))
    chosen: dict[str, Any] = {"ckpt_path": str(folder)}
    name = options.get("pretrained_ckpt_name")
    if name is not None and options.get("pretrained_ckpt_path") is None:
        chosen["pretrained_ckpt_path"] = str(models / name)  # of the bundle: a new run has none
    return chosen, f"run folder: {folder}"


def _new_run(root: Path, resume: Any) -> Path:
    if resume != AUTO and as_bool(resume):
        raise CheckpointError(
            f"no run in {' or '.join(map(str, runs_folders(root)))} is unfinished, so there is nothing to resume; give "
            "its folder with --ckpt_path, or start without --resume"
        )
    return make_folder(root)


def decide_resume(value: Any, folder: Path, shown: str) -> bool:
    """Whether to go on from a checkpoint in a folder.

    Args:
        value: of the option: true, false or auto. With auto, and in a run that was killed before its first
            checkpoint, a training starts where there is none.
        folder: of the checkpoints.
        shown: its name in messages.
    """
    if isinstance(value, str) and value.lower() not in (*WORDS, AUTO):
        raise ConfigError(f"--resume is {value!r}, expected true, false or auto")
    if value == AUTO:
        go_on = can_resume(folder)
        if not go_on:
            logger.info("%s has no checkpoint: the training starts from the beginning", shown)
        return go_on
    if as_bool(value) and not can_resume(folder) and (folder / RECORD).is_file():
        logger.info("the run in %s ended before its first checkpoint: it starts from the beginning", shown)
        return False
    return as_bool(value)


def describe(parser: ConfigParser, root: Path) -> Record:
    """The record of a training that is about to start."""
    quick = "quick" in parser and as_bool(parser.get_parsed_content("quick"))
    lists = parser.get_parsed_content("data_list_files")
    specs = ConfigParser.load_config_file(lists) if isinstance(lists, str) else lists
    record: Record = {
        "form": FORM,
        "bundle": bundle_name(root),
        "status": RUNNING,
        "quick": quick,
        "started": _now(),
        "command": redact_text(shlex.join([sys.executable, *sys.argv])),
        "processes": distributed.world_size(),
        "versions": _versions(),
        "git_commit": git_commit(root),
        "data": yaml.safe_load(config_text({"lists": list(specs or ())}))["lists"],
        "data_sha256": data_list_hashes(lists),
        "max_epochs": int(parser.get_parsed_content(MAX_EPOCHS)),
        "settings": find_settings(parser),
    }
    config = {key: value for key, value in parser.get().items() if key != ConfigParser.meta_key}
    return record | {"configuration": yaml.safe_load(config_text(config))}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "cellbundle": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def find_changes(old: Record, new: Record) -> list[str]:
    """What a resumed training would do differently from the one that it goes on with, key by key."""
    before, now = (_leaves(record["configuration"]) for record in (old, new))
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    changes = [
        f"{name}: {before.get(name, 'not set')} before, {now.get(name, 'not set')} now"
        for name in names
        if name.split("#")[0] not in MAY_CHANGE and name != MAX_EPOCHS
    ]
    if changes and _crops_a_step(old) == _crops_a_step(new):  # another number of processes
        changes = [change for change in changes if not change.startswith("batch_size: ")]
    if before.get(MAX_EPOCHS) != now.get(MAX_EPOCHS) and new["max_epochs"] < old["max_epochs"]:
        changes.append(f"{MAX_EPOCHS}: {old['max_epochs']} before, {new['max_epochs']} now")
    if new["data_sha256"] != old["data_sha256"]:
        changes.append("the content of the data list")
    return changes


def _crops_a_step(record: Record) -> Any:
    return record["processes"] * record["configuration"].get("batch_size", 1)


def _leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    ids = config_ids(config)
    parents = {name.rpartition("#")[0] for name in ids}
    return {name: lookup(config, name) for name in ids if name not in parents}


def check_resumed(old: Record, new: Record, folder: str, allowed: bool) -> None:
    """Raise ``CheckpointError`` if a training would go on with that of another bundle, or another configuration.

    Args:
        old: record of the folder.
        new: of the command.
        folder: its name in messages.
        allowed: changes are logged and not refused.
    """
    if missing := sorted(COMPARED - old.keys()):
        raise CheckpointError(
            f"{folder}/{RECORD} has no {missing[0]}; restore it, or start anew in another --ckpt_path"
        )
    if old["bundle"] != new["bundle"]:
        raise CheckpointError(f"{folder} is a run of {old['bundle']}, not of {new['bundle']}; give another --ckpt_path")
    changes = find_changes(old, new)
    if changes and not allowed:
        raise CheckpointError(
            f"{folder} was begun with another configuration ({first_few(changes, MAX_SHOWN).replace(', ', '; ')}); "
            "resume with the same, start anew in another --ckpt_path, or accept the changes with --allow_changes True"
        )
    for change in changes:
        logger.warning("changed since the run began: %s", change)


@contextmanager
def locked(folder: Path, shown: str) -> Iterator[None]:
    """Keep other trainings out of a folder, as long as this process lives; call it in all processes.

    Raises:
        CheckpointError: in all processes, if another training writes to the folder.
    """
    lock = FileLock(folder / STATE / LOCK, blocking=False)
    problem = ""
    if distributed.rank() == 0:
        try:
            (folder / STATE).mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            problem = f"another training writes to {shown}; wait for its end, or give another --ckpt_path"
        except (OSError, NotImplementedError) as error:
            if getattr(error, "errno", None) not in NO_LOCKS:
                problem = f"{shown} cannot be written ({error}); give another --ckpt_path"
            else:
                logger.warning("%s is not locked (%s): start no second training there", shown, error)
    if found := [text for text in distributed.gather(problem) if text]:
        raise CheckpointError(found[0])
    try:
        yield
    finally:
        lock.release()


class RunRecord:
    """The record of a training in its folder, kept up to date by the first process."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.folder, self.record = folder, record

    def update(self, **values: Any) -> None:
        """Change the record and write it."""
        self.record |= values
        if distributed.rank() == 0:
            write_record(self.folder, self.record)

    def end(self, status: str, epoch: int) -> None:
        """Note how the training ended; what cannot be written to a full disk must not hide why it stopped."""
        try:
            self.update(status=status, ended=_now(), epoch=epoch)
        except OSError as error:
            logger.warning("%s cannot be written (%s)", self.folder / RECORD, error.strerror)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
