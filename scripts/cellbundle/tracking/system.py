"""The load of the machine, in a thread of ours with the measurements and names of MLflow.

MLflow's own monitor sends by itself, gives up when the server does not answer and knows nothing of a spool.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)

INTERVAL = 10.0  # seconds
LONGEST = 2.0  # seconds that a measurement may take at the end


class SystemMetrics(threading.Thread):
    """Logs ``system/…`` every few seconds; the step is the number of seconds since the run began.

    Args:
        log: gets values by name, and the step.
        started: beginning of the run in milliseconds since 1970.
        monitors: of ``make_monitors``.
        interval: seconds between two measurements.
    """

    def __init__(
        self,
        log: Callable[[Mapping[str, float], int], None],
        started: int,
        monitors: Sequence[Any],
        interval: float = INTERVAL,
    ) -> None:
        super().__init__(name="system-metrics", daemon=True)
        self.log, self.started, self.monitors, self.interval = log, started, monitors, interval
        self._ending = threading.Event()

    def run(self) -> None:
        """Until ``finish``."""
        while not self._ending.wait(self.interval):
            values: dict[str, float] = {}
            for monitor in self.monitors:
                with contextlib.suppress(Exception):  # a card that does not tell its power still tells its memory
                    monitor.collect_metrics()
                    values |= monitor.aggregate_metrics()
                    monitor.clear_metrics()
            named = {f"system/{name}": value for name, value in values.items()}
            self.log(named, int(time.time() - self.started / 1000))

    def finish(self) -> None:
        """Stop measuring."""
        self._ending.set()
        self.join(LONGEST)


def make_monitors() -> list[Any]:
    """MLflow's monitors of what this machine has."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor  # noqa: PLC0415  (optional)
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor  # noqa: PLC0415
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor  # noqa: PLC0415
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor  # noqa: PLC0415
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor  # noqa: PLC0415

    monitors = []
    for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor, ROCMMonitor):
        with contextlib.suppress(Exception):  # no such card, or no library for it
            monitors.append(kind())
    return monitors
