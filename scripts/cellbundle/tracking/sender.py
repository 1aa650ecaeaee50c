"""Send the spools of runs: in a thread during the run, and afterwards with ``cellbundle sync-runs``."""

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import CellBundleError, DependencyError
from .names import is_remote, resolve_uri
from .server import QuickRequests, reason
from .spool import LINES, Spool, now
from .upload import Upload

logger = logging.getLogger(__name__)

INTERVAL = 2.0  # seconds between two requests
LONGEST_WAIT = 30.0  # seconds between two attempts while the server is down
PATIENCE, LOCAL_PATIENCE, FILE_PATIENCE = 8.0, 60.0, 120.0  # seconds without a response, at the end of a run


class Sender(threading.Thread):
    """Sends the spool of a run repeatedly until ``finish``, then once more, and closes the spool.

    Args:
        spool: locked by this process.
        upload: upload of the spool.
    """

    def __init__(self, spool: Spool, upload: Upload) -> None:
        super().__init__(name="tracking", daemon=True)
        self.spool, self.upload = spool, upload
        self._wake, self._ending = threading.Event(), False
        self._failures, self._reason, self._warned = 0, "no answer yet", False

    def run(self) -> None:
        """Send until ``finish``."""
        try:
            while True:
                ending = self._ending
                self._try()
                if ending:
                    return
                wait = min(LONGEST_WAIT, 2.0 ** min(self._failures - 1, 9)) if self._failures else INTERVAL
                if not self._ending:
                    self._wake.wait(wait)
        finally:
            self.spool.close(keep=not self.spool.is_done)

    def _try(self) -> None:
        """Send once; the first failure is logged as a warning."""
        try:
            self.upload.send()
        except Exception as error:  # noqa: BLE001  (errors of tracking never end a training)
            self._failures += 1
            self._reason = reason(error, self.upload.uri)
            log = logger.debug if self._warned or self._ending else logger.warning
            log(
                "tracking: %s is not reachable or refuses: %s. The training goes on; what is logged is kept in %s and "
                "sent when that works again",
                self.upload.address,
                self._reason,
                self.spool.folder,
            )
            self._warned = True
        else:
            if self._failures and self._warned:
                logger.info("tracking: %s is back, everything is sent", self.upload.address)
            self._failures = 0

    def finish(self) -> None:
        """Send the rest; the spool keeps it if the server does not respond in time."""
        self.upload.progress = time.monotonic()
        self._ending = True
        self._wake.set()
        while self.is_alive() and time.monotonic() - self.upload.progress < self._patience():
            self.join(0.05)
        if self.is_alive() or not self.spool.is_done:
            has_secrets = self.upload.address != self.upload.uri  # secrets are not kept
            logger.warning(
                "tracking: %s does not have all of the run (%s); send the rest with `cellbundle sync-runs %s%s`",
                self.upload.address,
                self._reason,
                self.spool.folder,
                " --tracking-uri URI" if has_secrets else "",
            )

    def _patience(self) -> float:
        if self.upload.sends_file:
            return FILE_PATIENCE
        return PATIENCE if is_remote(self.upload.uri) else LOCAL_PATIENCE


@dataclass(frozen=True)
class SyncResult:
    """Result of ``sync_run``.

    Attributes:
        key: name of the folder of the run.
        experiment: name of the experiment.
        metrics: number of metric records that were sent.
        files: number of files that were sent.
        remaining: number of records and files that were not sent.
        message: id of the run, or why records remain.
    """

    key: str
    experiment: str
    metrics: int
    files: int
    remaining: int
    message: str


def find_runs(folders: Iterable[str | Path]) -> list[Path]:
    """Return the folders of all runs in or below some folders, sorted.

    Raises:
        CellBundleError: if a path is not a folder.
    """
    runs: set[Path] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise CellBundleError(f"{folder} is no folder; give a folder of checkpoints or of outputs")
        runs |= {path.parent.resolve() for path in folder.rglob(LINES)}
    return sorted(runs)


def sync_run(folder: Path, uri: str | None = None) -> SyncResult:
    """Send the rest of a run, and remove its folder if nothing remains.

    A run without a final status gets the status KILLED.

    Args:
        folder: one of ``find_runs``.
        uri: tracking server; by default that of the run.

    Raises:
        DependencyError: if MLflow is not installed.
    """
    if find_spec("mlflow") is None:
        raise DependencyError("MLflow is not installed; pip install 'cellbundle[mlflow]'")
    spool = Spool(folder)
    upload: Upload | None = None
    message = "a training is writing it; it sends by itself"
    is_locked = spool.lock()
    if is_locked:
        try:
            upload = Upload(spool, resolve_uri(uri or spool.state.get("tracking_uri") or ""))
            spool.state["tracking_uri"] = upload.address
            message = _send(spool, upload)
        except Exception as error:  # noqa: BLE001  (continue with the remaining runs)
            message = reason(error, uri or "")
    remaining = spool.remaining() + len(spool.state["files"]) + spool.state.get("refused", 0)
    result = SyncResult(
        key=folder.name,
        experiment=str(spool.state.get("experiment")),
        metrics=upload.n_metrics if upload else 0,
        files=upload.n_files if upload else 0,
        remaining=remaining or int(not spool.is_done or not is_locked),
        message=message,
    )
    if is_locked:
        spool.close(keep=not spool.is_done)
    return result


def _send(spool: Spool, upload: Upload) -> str:
    """Send a spool and return the message of its ``SyncResult``."""
    if "key" not in spool.state:
        raise CellBundleError(f"{spool.folder} has lost its state.json, so nobody knows which run it is")
    with QuickRequests():
        if spool.last("status") in (None, "RUNNING"):
            spool.append({"time": spool.last("time") or now(), "status": "KILLED"})
        upload.send()
    refused = spool.state.get("refused")
    return f"the server refused {refused} of its values" if refused else str(spool.state["run_id"])
