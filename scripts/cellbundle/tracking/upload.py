"""Send the spool of a run to MLflow. Records that are sent twice arrive once."""

import logging
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..addresses import redact
from .names import MAX_TAG
from .server import GONE, check_database, find_experiment, find_run, reason
from .spool import Record, Spool

logger = logging.getLogger(__name__)

KEY_TAG = "cellbundle.run_key"
REPLACES_TAG, CHANGES_TAG = "cellbundle.replaces_run", "cellbundle.resumed_with"
MAX_METRICS, MAX_OTHERS = 1000, 100  # MLflow's limits of one request


class MetricRecord(NamedTuple):
    """Value of a metric at a step.

    Attributes:
        key: name of the metric.
        value: a number; may be NaN or infinite.
        time: when it was logged, in milliseconds since 1970. It never changes, so MLflow drops a duplicate.
        step: integer.
    """

    key: str
    value: float
    time: int
    step: int


class Steps:
    """A set of integers, stored as ranges of consecutive integers."""

    def __init__(self, steps: Iterable[int] = ()) -> None:
        self.starts: list[int] = []  # first integer of each range, ascending
        self.ends: list[int] = []  # last integer of each range
        for step in sorted(steps):
            self.add(step)

    def __contains__(self, step: int) -> bool:
        index = bisect_right(self.starts, step) - 1
        return index >= 0 and step <= self.ends[index]

    def add(self, step: int) -> None:
        """Add an integer."""
        if step in self:
            return
        index = bisect_right(self.starts, step)
        follows = index > 0 and self.ends[index - 1] == step - 1
        precedes = index < len(self.starts) and self.starts[index] == step + 1
        if follows and precedes:
            self.ends[index - 1] = self.ends.pop(index)
            del self.starts[index]
        elif follows:
            self.ends[index - 1] = step
        elif precedes:
            self.starts[index] = step
        else:
            self.starts.insert(index, step)
            self.ends.insert(index, step)


def missing(metrics: Iterable[MetricRecord], known: Mapping[str, Steps]) -> list[MetricRecord]:
    """Return the first record of each metric and step that is not known."""
    first: dict[tuple[str, int], MetricRecord] = {}
    for metric in metrics:
        if metric.key not in known or metric.step not in known[metric.key]:
            first.setdefault((metric.key, metric.step), metric)
    return list(first.values())


class Upload:
    """Sends one spool to one server. Errors of MLflow are raised; ``send`` may be called again after them.

    Args:
        spool: spool of the run, locked by this process.
        uri: address from ``resolve_uri``.

    Attributes:
        address: redacted ``uri``, for messages.
        progress: ``time.monotonic`` of the last response.
        sends_file: whether a file is being sent, which may take long.
        n_metrics: number of metric records that were sent.
        n_files: number of files that were sent.
    """

    def __init__(self, spool: Spool, uri: str) -> None:
        self.spool, self.state, self.uri, self.address = spool, spool.state, uri, redact(uri)
        self.progress, self.sends_file = time.monotonic(), False
        self.n_metrics = self.n_files = 0
        self._client: Any = None
        self._known: dict[str, Steps] = {}
        self._parameters: dict[str, str] = {}

    def send(self) -> None:
        """Send the spool; to a new run if this one was deleted."""
        try:
            self._send_all()
        except Exception as error:
            if not self._is_gone(error):
                raise
            self._client = None
            self._send_all()

    def _is_gone(self, error: Exception) -> bool:
        """Whether an error was raised because the run was deleted."""
        is_possible = self._client is not None and getattr(error, "error_code", None) in GONE
        return is_possible and find_run(self._client, self.state["run_id"]) is None

    def _send_all(self) -> None:
        if self._client is None:
            self._connect()
        while chunk := self.spool.read():
            self._send_records(chunk.records)
            self.spool.commit(chunk)
        self._send_status()
        self._send_files()

    def _connect(self) -> None:
        """Find or create the run, and read the steps and parameters that it has."""
        from mlflow import MlflowClient  # noqa: PLC0415  (optional)

        check_database(self.uri)
        client = MlflowClient(tracking_uri=self.uri)
        run = self._find(client) or self._create(client)
        self._known = {key: Steps(m.step for m in self._history(client, run, key)) for key in run.data.metrics}
        self._parameters = dict(run.data.params)
        self.state |= {"run_id": run.info.run_id, "experiment_id": run.info.experiment_id}
        self.spool.save()
        self.spool.write_run_file()
        self._client, self.progress = client, time.monotonic()

    def _history(self, client: Any, run: Any, key: str) -> Any:
        self.progress = time.monotonic()
        return client.get_metric_history(run.info.run_id, key)

    def _find(self, client: Any) -> Any:
        """Return the run of the state; None without one, or if the server does not have it."""
        run_id = self.state.get("run_id")
        if run_id is None:
            return None
        run = find_run(client, run_id)
        if run is None:
            logger.warning(
                "tracking: %s does not have the run %s (deleted, or of another server); a new run goes on, its tag %s "
                "names the old one",
                self.address,
                run_id,
                REPLACES_TAG,
            )
            self.state |= {"replaces": run_id, "run_id": None, "offset": 0}
        return run

    def _create(self, client: Any) -> Any:
        """Return the run of this key; it exists already if the response to its creation was lost."""
        experiment = find_experiment(client, self.uri, self.state["experiment"], self.state["key"])
        runs = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{self.state['key']}'", max_results=1)
        if runs:
            return runs[0]
        tags = {KEY_TAG: self.state["key"]}
        if self.state.get("replaces"):
            tags[REPLACES_TAG] = self.state["replaces"]
        return client.create_run(experiment, self.state["started"], tags, self.state.get("run_name"))

    def _send_records(self, records: Sequence[Record]) -> None:
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415  (optional)

        metrics, params, tags = self._sort(records)
        for batch in batches(missing(metrics, self._known), MAX_METRICS):
            self._log("metrics", [Metric(*metric) for metric in batch])
            for metric in batch:
                self._known.setdefault(metric.key, Steps()).add(metric.step)
            self.n_metrics += len(batch)
        new = {name: value for name, value in params.items() if name not in self._parameters}
        changed = [f"{k}={v}" for k, v in params.items() if self._parameters.get(k, v) != v]
        if changed:  # a parameter of MLflow never changes
            tags[CHANGES_TAG] = ", ".join(changed)[:MAX_TAG]
        for pairs in batches(list(new.items()), MAX_OTHERS):
            self._log("params", [Param(*pair) for pair in pairs])
            self._parameters.update(pairs)
        for pairs in batches(list(tags.items()), MAX_OTHERS):
            self._log("tags", [RunTag(*pair) for pair in pairs])

    def _sort(self, records: Sequence[Record]) -> tuple[list[MetricRecord], dict[str, str], dict[str, str]]:
        """Return metrics, parameters and tags of records; files and the status are kept in the state."""
        metrics: list[MetricRecord] = []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for record in records:
            values = record.get("values", {})
            metrics += [MetricRecord(key, value, record["time"], record["step"]) for key, value in values.items()]
            params |= record.get("params", {})
            tags |= record.get("tags", {})
            if record.get("file") and record["file"] not in self.state["files"]:
                self.state["files"].append(record["file"])
            if record.get("status"):
                self.state["status"] = {"status": record["status"], "time": record["time"]}
        return metrics, params, tags

    def _log(self, kind: str, items: list[Any]) -> None:
        """Log a batch without the items that the server refuses, found by bisection; their number is in the state."""
        from mlflow import MlflowException  # noqa: PLC0415  (optional)

        try:
            self._client.log_batch(self.state["run_id"], synchronous=True, **{kind: items})
        except MlflowException as error:
            if error.error_code not in GONE or self._is_gone(error):
                raise
            if len(items) == 1:
                logger.warning(
                    "tracking: the server refuses one of the %s, %s: %s", kind, items[0], reason(error, self.uri)
                )
                self.state["refused"] = self.state.get("refused", 0) + 1
                return
            half = len(items) // 2
            self._log(kind, items[:half])
            self._log(kind, items[half:])
        self.progress = time.monotonic()

    def _send_status(self) -> None:
        change = self.state.get("status")
        if not change:
            return
        if change["status"] == "RUNNING":
            self._client.update_run(self.state["run_id"], status="RUNNING")
        else:
            self._client.set_terminated(self.state["run_id"], change["status"], change["time"])
        self.state["status"], self.progress = None, time.monotonic()
        self.spool.save()

    def _send_files(self) -> None:
        for entry in list(self.state["files"]):
            path, folder = entry
            if Path(path).is_file():
                self.sends_file = True
                try:
                    self._client.log_artifact(self.state["run_id"], path, folder or None)
                finally:
                    self.sends_file, self.progress = False, time.monotonic()
                self.n_files += 1
            else:
                logger.warning("tracking: %s is not there any more, so it is not logged", path)
            self.state["files"].remove(entry)
            self.spool.save()


def batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
