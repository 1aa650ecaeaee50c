"""Sends later what a tracking server did not take while it was made."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..addresses import redact
from ..errors import CellBundleError, DependencyError
from .names import resolve_uri
from .server import QuickRequests, reason
from .spool import LINES, Spool
from .tracker import now
from .upload import Upload


@dataclass(frozen=True)
class Synced:
    """What became of one run.

    Attributes:
        key: name of its folder.
        experiment: its experiment.
        points: values that were sent.
        files: files that were sent.
        remaining: calls and files that are still here.
        message: why, or the id of the run.
    """

    key: str
    experiment: str
    points: int
    files: int
    remaining: int
    message: str


def find_runs(folders: Iterable[str | Path]) -> list[Path]:
    """Folders of runs in or below some folders, by name.

    Raises:
        CellBundleError: if one of them is no folder.
    """
    found: set[Path] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise CellBundleError(f"{folder} is no folder; give a folder of checkpoints or of outputs")
        found |= {path.parent.resolve() for path in folder.rglob(LINES)}
    return sorted(found)


def sync_run(folder: Path, uri: str | None = None) -> Synced:
    """Send what remains of a run, and remove its folder if nothing does.

    A run whose process ended without a word gets the status KILLED.

    Args:
        folder: of ``find_runs``.
        uri: where to; the address that the run was made for, by default.

    Raises:
        DependencyError: if MLflow is not installed.
    """
    if find_spec("mlflow") is None:
        raise DependencyError("MLflow is not installed; pip install 'cellbundle[mlflow]'")
    spool = Spool(folder)
    upload: Upload | None = None
    message = "a training is writing it; it sends by itself"
    locked = spool.lock()
    if locked:
        try:
            address = resolve_uri(uri or spool.state.get("tracking_uri") or "")
            spool.state["tracking_uri"] = redact(address)
            upload = Upload(spool, address)
            message = _send(spool, upload)
        except Exception as error:  # noqa: BLE001  (the others may work)
            message = reason(error, uri or "")
    remaining = spool.remaining() + len(spool.state["files"]) + spool.state.get("refused", 0)
    result = Synced(
        key=folder.name,
        experiment=str(spool.state.get("experiment")),
        points=upload.n_points if upload else 0,
        files=upload.n_files if upload else 0,
        remaining=remaining or int(not spool.is_done or not locked),
        message=message,
    )
    if locked:
        spool.close(keep=not spool.is_done)
    return result


def _send(spool: Spool, upload: Upload) -> str:
    if "key" not in spool.state:
        raise CellBundleError(f"{spool.folder} has lost its state.json, so nobody knows which run it is")
    with QuickRequests():
        if spool.last("status") in (None, "RUNNING"):
            spool.append({"time": spool.last("time") or now(), "status": "KILLED"})
        upload.send()
    refused = spool.state.get("refused")
    return f"the server refused {refused} of its values" if refused else str(spool.state["run_id"])
