# SPDX-License-Identifier: AGPL-3.0-or-later
"""MLflow for a training that is none of MONAI's engines; ultralytics' own tracking is never used."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from monai.utils import path_to_sqlite_uri

from cellbundle.engine.distributed import rank
from cellbundle.errors import DependencyError


class Tracking:
    """A context that logs the arguments once and a row of scores each epoch.

    Args:
        uri: MLflow tracking URI, or the path of an SQLite file; None does not track.
        experiment: name of the experiment.
        run_name: name of the run.
        parameters: what to log once.
        system_metrics: log the load of processors and memory too.

    Raises:
        DependencyError: if tracking is wanted and MLflow is not installed.
    """

    def __init__(
        self,
        uri: str | None = None,
        experiment: str = "yolo_seg",
        run_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        system_metrics: bool = False,
    ) -> None:
        self.enabled = uri is not None and rank() == 0
        if not self.enabled:
            return
        if find_spec("mlflow") is None:
            raise DependencyError(
                "mlflow_tracking_uri is set, but MLflow is not installed; pip install 'cellbundle[mlflow]'"
            )
        self.uri = uri if "://" in str(uri) else path_to_sqlite_uri(str(uri))
        self.experiment, self.run_name = experiment, run_name
        self.parameters, self.system_metrics = dict(parameters or {}), system_metrics

    def __enter__(self) -> "Tracking":
        if self.enabled:
            import mlflow  # noqa: PLC0415  (optional)

            mlflow.set_tracking_uri(self.uri)
            mlflow.set_experiment(self.experiment)
            mlflow.start_run(run_name=self.run_name, log_system_metrics=self.system_metrics)
            mlflow.log_params(self.parameters)
        return self

    def log(self, row: Mapping[str, float]) -> None:
        """Log a row of the history under its epoch."""
        if self.enabled:
            import mlflow  # noqa: PLC0415  (optional)

            mlflow.log_metrics({name: float(value) for name, value in row.items()}, step=int(row["epoch"]))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.enabled:
            import mlflow  # noqa: PLC0415  (optional)

            mlflow.end_run("FINISHED" if kind is None else "FAILED")
