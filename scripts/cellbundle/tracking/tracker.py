"""Tracker of one run. Its calls neither raise nor wait for the tracking server."""

import calendar
import contextlib
import functools
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from ..addresses import redact, redact_message
from ..distributed import rank
from ..errors import CheckpointError, ConfigError, DependencyError
from .names import MAX_TAG, numbers, plain_text, resolve_uri, safe_name
from .sender import Sender
from .server import QuickRequests, preload
from .spool import Spool, now, read_run_file
from .upload import Upload

logger = logging.getLogger(__name__)

EXPERIMENT = "cellbundle"  # default experiment
CONTINUES_TAG = "cellbundle.continues_run"
KEY = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
SYSTEM_INTERVAL = 10.0  # seconds between two measurements of the system
SYSTEM_TIMEOUT = 2.0  # seconds to wait for the last measurement
Parameters = ParamSpec("Parameters")


def careful(
    method: Callable[Concatenate["Tracker", Parameters], None],
) -> Callable[Concatenate["Tracker", Parameters], None]:
    """Make a method do nothing without an open run, and suppress its errors; the first one is logged as a warning."""

    @functools.wraps(method)
    def call(self: "Tracker", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        """Call the method if a run is open, and log its error."""
        if not self.is_open:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  (errors of tracking never end a training)
            log = logger.debug if self._has_warned else logger.warning
            text = redact_message(error, str(self.uri))
            log("tracking: %s failed, the training goes on: %s: %s", method.__name__, type(error).__name__, text)
            self._has_warned = True

    return call


class Tracker:
    """Logs one run to MLflow, in process 0 only. Records are written to a file, and sent from there by a thread.

    No call raises or waits for a server. Without an address, the tracker is off. MLflow's active run and the variable
    ``MLFLOW_TRACKING_URI`` have no influence.

    Args:
        uri: address, see ``resolve_uri``; None turns the tracker off.
        experiment: name of the experiment; None for that of the bundle.
        run_name: name of the run; None lets MLflow choose one.
        folder: where runs are kept until they are sent.
        system_metrics: log the load of processors, memory and network every ten seconds.

    Attributes:
        spool: records of the open run; None while no run is open.

    Raises:
        DependencyError: if an address is given and MLflow is not installed.
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
        self._state: dict[str, Any] = {}  # of the spool, also after ``finish``
        self._system: SystemMetrics | None = None
        self._closing = contextlib.ExitStack()  # what ``finish`` closes
        self._has_warned = False
        if self.is_on and find_spec("mlflow") is None:
            raise DependencyError(
                "mlflow_tracking_uri is set, but MLflow is not installed; pip install 'cellbundle[mlflow]'"
            )

    @property
    def is_on(self) -> bool:
        """Whether this process tracks."""
        return self.uri is not None and rank() == 0

    @property
    def is_open(self) -> bool:
        """Whether a run was started and not finished."""
        return self.spool is not None

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until the server has created it."""
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
        """Open a new run, or continue the run of a ``state_dict``.

        Args:
            run_id: from ``state_dict``.
            parameters: by name; MLflow never changes them.
            tags: by name.
            run_key: from ``state_dict``.
            run_folder: from ``state_dict``.
            run_file: JSON file to write, which names the run.

        Raises:
            CheckpointError: for an invalid ``run_key``.
        """
        if not self.is_on or self.is_open:
            return
        if run_key and not KEY.fullmatch(run_key):  # it becomes the name of a folder
            raise CheckpointError(f"the run key of the checkpoint is {run_key!r}; expected one like {new_key()}")
        self._closing.enter_context(QuickRequests())
        preload(str(self.uri))
        spool, is_continued = self._lock_spool(run_id, run_key, run_folder)
        uri = self._resolve_uri(spool)
        state, key = spool.state, spool.folder.name
        state |= {
            "key": key,
            "started": state.get("started", start_time(key)),
            "run_id": state.get("run_id") or (run_id if is_continued else None),
            "run_name": redact(self.run_name) if self.run_name else state.get("run_name"),
            "experiment": redact(self.experiment or EXPERIMENT),
            "tracking_uri": redact(uri or str(self.uri)),
            "run_file": str(run_file) if run_file else None,
        }
        spool.save()
        spool.write_run_file()
        self.spool, self._state = spool, state

        if is_continued:
            self._append(status="RUNNING")
        elif run_id or run_key:
            self.set_tags({CONTINUES_TAG: run_id or run_key})
        if parameters:
            self._append(params={safe_name(name): plain_text(value) for name, value in parameters.items()})
        self.set_tags(tags or {})

        if uri is None:
            self._closing.callback(spool.close)
        else:
            sender = Sender(spool, Upload(spool, uri))
            sender.start()
            self._closing.callback(sender.finish)
        if self.system_metrics:
            self._system = SystemMetrics(self.log, state["started"], make_monitors())
            self._system.start()

    def _lock_spool(self, run_id: str | None, run_key: str | None, run_folder: str | None) -> tuple[Spool, bool]:
        """Return a locked spool, and whether it continues the run of the arguments."""
        if run_key and is_copy(run_folder, self.folder, run_key):
            logger.warning("tracking: the checkpoint is a copy; its run belongs to %s, so a new one begins", run_folder)
        elif run_key or run_id:
            spool = Spool(self.folder / (run_key or new_key()))
            if spool.lock():
                return spool, True
            logger.warning("tracking: another process writes to the run %s, so a new one begins", run_key)
        spool = Spool(self.folder / new_key())
        spool.lock()
        return spool, False

    def _resolve_uri(self, spool: Spool) -> str | None:
        """Return the resolved address; None with a warning if it is invalid."""
        try:
            return resolve_uri(str(self.uri))
        except ConfigError as error:
            logger.warning(
                "tracking: %s. What is logged is kept in %s; `cellbundle sync-runs --tracking-uri URI %s` sends it",
                error,
                spool.folder,
                spool.folder,
            )
            return None

    def _append(self, **content: Any) -> None:
        if self.spool is not None:
            self.spool.append({"time": now(), **content})

    @careful
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers at a step; other values are left out. The first value of a name and step is kept."""
        if metrics := numbers(values):
            self._append(values=metrics, step=int(step))

    @careful
    def log_file(self, path: str | Path, folder: str = "") -> None:
        """Upload a file to a folder of the run, with its content at the time of the upload."""
        self._append(file=[str(Path(path).absolute()), folder])

    @careful
    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; the last value is kept."""
        if tags:
            self._append(tags={safe_name(name): plain_text(value, MAX_TAG) for name, value in tags.items()})

    def state_dict(self) -> dict[str, str | None]:
        """Write all records to the disk and return the arguments of ``start`` for a checkpoint; empty without a run."""
        if self.spool is None:
            return {}
        self.spool.sync()
        return {"run_id": self.run_id, "run_key": self.spool.folder.name, "run_folder": str(self.folder)}

    @careful
    def finish(self, status: str = "FINISHED") -> None:
        """Close the run with FINISHED, FAILED or KILLED; waits some seconds for a server that does not respond."""
        if self._system is not None:
            self._system.finish()
        self._append(status=status)
        self._closing.close()
        self.spool = self._system = None


class SystemMetrics(threading.Thread):
    """Logs ``system/…`` every few seconds; the step is the number of seconds since the run began.

    MLflow's own thread bypasses the spool, and gives up when the server does not respond.

    Args:
        log: called with values by name, and the step.
        started: beginning of the run in milliseconds since 1970.
        monitors: from ``make_monitors``.
        interval: seconds between two measurements.
    """

    def __init__(
        self,
        log: Callable[[Mapping[str, float], int], None],
        started: int,
        monitors: Sequence[Any],
        interval: float = SYSTEM_INTERVAL,
    ) -> None:
        super().__init__(name="system-metrics", daemon=True)
        self.log, self.started, self.monitors, self.interval = log, started, monitors, interval
        self._ending = threading.Event()

    def run(self) -> None:
        """Measure until ``finish``."""
        while not self._ending.wait(self.interval):
            values: dict[str, float] = {}
            for monitor in self.monitors:
                with contextlib.suppress(Exception):  # keep the values of the other monitors
                    monitor.collect_metrics()
                    values |= monitor.aggregate_metrics()
                    monitor.clear_metrics()
            self.log({f"system/{name}": value for name, value in values.items()}, int((now() - self.started) / 1000))

    def finish(self) -> None:
        """Stop measuring."""
        self._ending.set()
        self.join(SYSTEM_TIMEOUT)


def make_monitors() -> list[Any]:
    """Return MLflow's monitors for the hardware of this machine."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor  # noqa: PLC0415  (optional)
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor  # noqa: PLC0415
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor  # noqa: PLC0415
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor  # noqa: PLC0415
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor  # noqa: PLC0415

    monitors = []
    for monitor_class in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor, ROCMMonitor):
        with contextlib.suppress(Exception):  # no such hardware, or no library for it
            monitors.append(monitor_class())
    return monitors


def new_key() -> str:
    """Return a unique key for a run, which begins with the time."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def start_time(key: str) -> int:
    """Return the time of a key in milliseconds since 1970; the present time for an invalid key."""
    try:
        return calendar.timegm(time.strptime(key[:15], "%Y%m%d-%H%M%S")) * 1000
    except ValueError:
        return now()


def is_copy(run_folder: str | None, folder: Path, key: str) -> bool:
    """Whether a checkpoint was copied: the training with this key still exists in another folder."""
    if run_folder is None or Path(run_folder) == folder:
        return False
    return bool(read_run_file(Path(run_folder).parent).get("key") == key)
