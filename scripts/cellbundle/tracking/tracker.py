"""The tracker: a handful of calls that neither fail nor wait, whatever the tracking server does."""

import calendar
import functools
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

from ..addresses import redact, redact_text
from ..distributed import rank
from ..errors import CheckpointError, ConfigError, DependencyError
from .names import MAX_TAG, numbers, plain_text, resolve_uri, safe_name
from .sender import Sender
from .server import QuickRequests, preload, write_run_file
from .spool import Spool
from .system import SystemMetrics, make_monitors
from .upload import Upload

logger = logging.getLogger(__name__)

EXPERIMENT = "cellbundle"  # for a caller that names none
CONTINUES_TAG = "cellbundle.continues_run"
KEY = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
Method = TypeVar("Method", bound=Callable[..., None])


def careful(method: Method) -> Method:
    """Do nothing while no run is open, and let no error out: the first one is a warning."""

    @functools.wraps(method)
    def call(self: "Tracker", *args: Any, **kwargs: Any) -> None:
        if self.spool is None:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  (no training is worth less than its curves)
            log = logger.debug if self.complained else logger.warning
            text = redact_text(str(error), str(self.uri))
            log("tracking: %s failed, the training goes on: %s: %s", method.__name__, type(error).__name__, text)
            self.complained = True

    return cast(Method, call)


class Tracker:
    """One run in MLflow, in process 0 only. What is logged goes to a file; a thread sends it from there.

    No call raises or waits for a server. Without an address, none does anything. MLflow's active run and the variable
    ``MLFLOW_TRACKING_URI`` have no influence.

    Args:
        uri: see ``resolve_uri``; None does not track.
        experiment: name of the experiment; None for that of the bundle.
        run_name: name of the run; None lets MLflow choose one.
        folder: where runs are kept until they are sent.
        system_metrics: log the load of processors, memory and network every ten seconds.

    Raises:
        DependencyError: if tracking is wanted and MLflow is not installed.
    """

    def __init__(
        self,
        uri: str | None,
        experiment: str | None = None,
        run_name: str | None = None,
        folder: str | Path = "tracking",
        system_metrics: bool = False,
    ) -> None:
        self.uri, self.experiment, self.run_name = uri, experiment, run_name
        self.folder, self.system_metrics = Path(folder).absolute(), system_metrics
        self.spool: Spool | None = None
        self.complained = False
        self._sender: Sender | None = None
        self._system: SystemMetrics | None = None
        self._quick = QuickRequests()
        self._state: dict[str, Any] = {}
        if self.is_on and find_spec("mlflow") is None:
            raise DependencyError(
                "mlflow_tracking_uri is set, but MLflow is not installed; pip install 'cellbundle[mlflow]'"
            )

    @property
    def is_on(self) -> bool:
        """Whether this process tracks at all."""
        return self.uri is not None and rank() == 0

    @property
    def is_open(self) -> bool:
        """Whether a run has started and not ended."""
        return self.spool is not None

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until the server has made it."""
        return self._state.get("run_id")

    def start(
        self,
        run_id: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        run_key: str | None = None,
        run_folder: str | None = None,
        run_file: str | Path | None = None,
    ) -> None:
        """Open a run: a new one, or the one that ``state_dict`` described.

        Args:
            run_id: of ``state_dict``.
            parameters: what to log once, by name.
            tags: what to find the run by.
            run_key: of ``state_dict``.
            run_folder: of ``state_dict``.
            run_file: JSON file that is to say which run it is.

        Raises:
            CheckpointError: for a ``run_key`` that no tracker has made.
        """
        if not self.is_on or self.spool is not None:
            return
        if run_key and not KEY.fullmatch(run_key):  # it becomes the name of a folder
            raise CheckpointError(f"the run key of the checkpoint is {run_key!r}; expected one like {new_key()}")
        self._quick.__enter__()
        preload(str(self.uri))
        known = {"run_id": run_id, "run_key": run_key, "run_folder": run_folder}
        self.spool, continued = self._open(known)
        self._describe(run_id if continued else None, run_file)
        if continued:
            self._append(status="RUNNING")
        elif run_id or run_key:
            self.set_tags({CONTINUES_TAG: run_id or run_key})
        if parameters:
            self._append(params={safe_name(k): plain_text(v) for k, v in parameters.items()})
        self.set_tags(tags or {})
        self._start_threads()

    def _open(self, known: Mapping[str, str | None]) -> tuple[Spool, bool]:
        """A locked spool, and whether it goes on with the known run."""
        key, origin = known["run_key"], known["run_folder"]
        if key and is_copy(origin, self.folder, key):
            logger.warning("tracking: the checkpoint is a copy; its run belongs to %s, so a new one begins", origin)
        elif key or known["run_id"]:
            spool = Spool(self.folder / (key or new_key()))
            if spool.lock():
                return spool, True
            logger.warning("tracking: another process writes to the run %s, so a new one begins", key)
        spool = Spool(self.folder / new_key())
        spool.lock()
        return spool, False

    def _describe(self, run_id: str | None, run_file: str | Path | None) -> None:
        assert self.spool is not None
        state, key = self.spool.state, self.spool.folder.name
        self._state = state
        state.setdefault("started", started(key))
        state.setdefault("run_id", None)
        state |= {
            "key": key,
            "experiment": redact(self.experiment or EXPERIMENT),
            "run_name": redact(self.run_name) if self.run_name else state.get("run_name"),
        }
        state |= {"tracking_uri": redact(str(self.uri)), "run_file": str(run_file) if run_file else None}
        state["run_id"] = state["run_id"] or run_id
        self.spool.save()
        if run_file:
            write_run_file(state)

    def _start_threads(self) -> None:
        assert self.spool is not None
        try:
            uri = resolve_uri(str(self.uri))
        except ConfigError as error:
            logger.warning(
                "tracking: %s. What is logged is kept in %s; `cellbundle sync-runs --tracking-uri URI %s` sends it",
                error,
                self.spool.folder,
                self.spool.folder,
            )
        else:
            self.spool.state["tracking_uri"] = redact(uri)
            self._sender = Sender(self.spool, Upload(self.spool, uri))
            self._sender.start()
        if self.system_metrics:
            self._system = SystemMetrics(self.log, self.spool.state["started"], make_monitors())
            self._system.start()

    def _append(self, **content: Any) -> None:
        if self.spool is not None:
            self.spool.append({"time": now(), **content})

    @careful
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers at a step; what is no number is left out. The first value of a name at a step stays."""
        if found := numbers(values):
            self._append(values=found, step=int(step))

    @careful
    def log_file(self, path: str | Path, folder: str = "") -> None:
        """Upload a file as it is when its turn comes, into a folder of the run."""
        self._append(file=[str(Path(path).absolute()), folder])

    @careful
    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; the last value stays."""
        if tags:
            self._append(tags={safe_name(k): plain_text(v, MAX_TAG) for k, v in tags.items()})

    def state_dict(self) -> dict[str, str | None]:
        """What a checkpoint keeps for ``start``; empty without a run. What was logged is then safe on the disk."""
        if self.spool is None:
            return {}
        self.spool.sync()
        return {"run_id": self.run_id, "run_key": self.spool.folder.name, "run_folder": str(self.folder)}

    @careful
    def finish(self, status: str = "FINISHED") -> None:
        """Close the run with FINISHED, FAILED or KILLED; waits some seconds for a server that does not answer."""
        if self._system is not None:
            self._system.finish()
        self._append(status=status)
        if self._sender is not None:
            self._sender.finish()
        elif self.spool is not None:
            self.spool.close()
        self._quick.__exit__()
        self.spool = None


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_key() -> str:
    """A name for a run that no other has, and that tells when it began."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def started(key: str) -> int:
    """When a run began, from its key, in milliseconds since 1970."""
    try:
        return calendar.timegm(time.strptime(key[:15], "%Y%m%d-%H%M%S")) * 1000
    except ValueError:
        return now()


def is_copy(origin: str | None, folder: Path, key: str) -> bool:
    """Whether the training that a checkpoint comes from still exists elsewhere, so that its run is not ours."""
    if origin is None or Path(origin) == folder:
        return False
    try:
        return bool(json.loads((Path(origin).parent / "run.json").read_bytes()).get("key") == key)
    except (OSError, ValueError, AttributeError):
        return False
