"""Sends what the spool of a run holds to MLflow, so that it arrives once however often it is sent."""

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..addresses import redact
from .names import MAX_TAG
from .points import Point, Steps, missing
from .server import GONE, check_database, find_experiment, find_run, reason, write_run_file
from .spool import Record, Spool

logger = logging.getLogger(__name__)

KEY_TAG = "cellbundle.run_key"
REPLACES_TAG, CHANGES_TAG = "cellbundle.replaces_run", "cellbundle.resumed_with"
MAX_POINTS, MAX_OTHERS = 1000, 100  # MLflow's limits of one request


class Upload:
    """The way of one spool to one server. Whatever MLflow raises comes through; ``send`` may then be called again.

    Args:
        spool: of the run, locked by this process.
        uri: as ``resolve_uri`` gives it.

    Attributes:
        progress: when the server last answered, of ``time.monotonic``.
        sends_file: a file is on its way, which may take long.
        n_points: points that have arrived.
        n_files: files that have arrived.
    """

    def __init__(self, spool: Spool, uri: str) -> None:
        self.spool, self.state, self.uri = spool, spool.state, uri
        self.progress, self.sends_file = time.monotonic(), False
        self.n_points = self.n_files = 0
        self._client: Any = None
        self._known: dict[str, Steps] = {}
        self._parameters: dict[str, str] = {}

    def send(self) -> None:
        """Send everything that is there; to another run if somebody deleted this one meanwhile."""
        try:
            self._send_all()
        except Exception as error:
            if not self._is_gone(error):
                raise
            self._client = None
            self._send_all()

    def _is_gone(self, error: Exception) -> bool:
        """Whether an error is because the run was deleted."""
        suspicious = self._client is not None and getattr(error, "error_code", None) in GONE
        return suspicious and find_run(self._client, self.state["run_id"]) is None

    def _send_all(self) -> None:
        if self._client is None:
            self._connect()
        while chunk := self.spool.read():
            self._send_records(chunk.records)
            self.spool.commit(chunk)
        self._send_status()
        self._send_files()

    def _connect(self) -> None:
        """Find the run, or make it."""
        from mlflow import MlflowClient  # noqa: PLC0415  (optional)

        check_database(self.uri)
        client = MlflowClient(tracking_uri=self.uri)
        run = self._take_up(client)
        if run is None:
            run = self._create(client)
        self._known = {key: Steps(m.step for m in self._history(client, run, key)) for key in run.data.metrics}
        self._parameters = dict(run.data.params)
        self.state |= {"run_id": run.info.run_id, "experiment_id": run.info.experiment_id}
        self.spool.save()
        self._write_run_file()
        self._client, self.progress = client, time.monotonic()

    def _history(self, client: Any, run: Any, key: str) -> Any:
        self.progress = time.monotonic()
        return client.get_metric_history(run.info.run_id, key)

    def _take_up(self, client: Any) -> Any:
        """The run that this one goes on with; None if there is none or the server does not have it any more."""
        run_id = self.state.get("run_id")
        if run_id is None:
            return None
        run = find_run(client, run_id)
        if run is None:
            logger.warning(
                "tracking: %s does not have the run %s (deleted, or of another server); a new run goes on, its tag %s "
                "names the old one",
                redact(self.uri),
                run_id,
                REPLACES_TAG,
            )
            self.state |= {"replaces": run_id, "run_id": None, "offset": 0}
        return run

    def _create(self, client: Any) -> Any:
        """The run of this key: perhaps it was made, and the answer got lost."""
        experiment = find_experiment(client, self.uri, self.state["experiment"], self.state["key"])
        found = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{self.state['key']}'", max_results=1)
        if found:
            return found[0]
        tags = {KEY_TAG: self.state["key"]}
        if self.state.get("replaces"):
            tags[REPLACES_TAG] = self.state["replaces"]
        return client.create_run(experiment, self.state["started"], tags, self.state.get("run_name"))

    def _write_run_file(self) -> None:
        if self.state.get("run_file"):
            write_run_file(self.state)

    def _send_records(self, records: Sequence[Record]) -> None:
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415  (optional)

        points, params, tags = self._sort(records)
        for some in batches(missing(points, self._known), MAX_POINTS):
            self._log("metrics", [Metric(p.key, p.value, p.time, p.step) for p in some])
            for point in some:
                self._known.setdefault(point.key, Steps()).add(point.step)
            self.n_points += len(some)
        new = {name: value for name, value in params.items() if name not in self._parameters}
        changed = [f"{k}={v}" for k, v in params.items() if self._parameters.get(k, v) != v]
        if changed:  # a parameter of MLflow never changes
            tags[CHANGES_TAG] = ", ".join(changed)[:MAX_TAG]
        for pairs in batches(list(new.items()), MAX_OTHERS):
            self._log("params", [Param(*pair) for pair in pairs])
            self._parameters.update(pairs)
        for pairs in batches(list(tags.items()), MAX_OTHERS):
            self._log("tags", [RunTag(*pair) for pair in pairs])

    def _sort(self, records: Sequence[Record]) -> tuple[list[Point], dict[str, str], dict[str, str]]:
        """Points, parameters and tags of some records; files and the status wait in the state."""
        points: list[Point] = []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for record in records:
            points += [Point(k, v, record["time"], record["step"]) for k, v in record.get("values", {}).items()]
            params |= record.get("params", {})
            tags |= record.get("tags", {})
            if record.get("file") and record["file"] not in self.state["files"]:
                self.state["files"].append(record["file"])
            if record.get("status"):
                self.state["status"] = {"status": record["status"], "time": record["time"]}
        return points, params, tags

    def _log(self, kind: str, items: list[Any]) -> None:
        """Log a batch; what the server refuses for good is left out, so that it does not stop what follows."""
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
        waiting = self.state.get("status")
        if not waiting:
            return
        if waiting["status"] == "RUNNING":
            self._client.update_run(self.state["run_id"], status="RUNNING")
        else:
            self._client.set_terminated(self.state["run_id"], waiting["status"], waiting["time"])
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
    """Items in lists of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
