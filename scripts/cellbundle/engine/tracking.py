"""Experiment tracking with MLflow, off unless a tracking URI is given."""

from importlib.util import find_spec
from typing import Any

from monai.handlers import MLFlowHandler
from monai.utils import path_to_sqlite_uri

from ..errors import DependencyError
from .distributed import rank


def track(
    trainer: Any,
    validator: Any,
    uri: str | None,
    *,
    experiment: str,
    run_name: str | None = None,
    parameters: dict[str, Any] | None = None,
    system_metrics: bool = False,
) -> None:
    """Log parameters, losses and validation scores of a training to MLflow.

    Args:
        trainer: MONAI trainer; its loss is logged each iteration.
        validator: MONAI evaluator; its metrics are logged after each validation.
        uri: MLflow tracking URI, or the path of an SQLite file; None does not track.
        experiment: name of the experiment.
        run_name: name of the run.
        parameters: what to log once.
        system_metrics: log the load of processors and memory too.

    Raises:
        DependencyError: if tracking is wanted and MLflow is not installed.
    """
    if uri is None or rank() != 0:
        return
    if find_spec("mlflow") is None:
        raise DependencyError(
            "mlflow_tracking_uri is set, but MLflow is not installed; pip install 'cellbundle[mlflow]'"
        )
    if system_metrics:
        import mlflow  # noqa: PLC0415  (optional)

        mlflow.enable_system_metrics_logging()
    uri = uri if "://" in uri else path_to_sqlite_uri(uri)
    common: dict[str, Any] = {"tracking_uri": uri, "experiment_name": experiment, "run_name": run_name}
    scores = MLFlowHandler(iteration_log=False, epoch_log=True, **common)
    scores.attach(validator)
    losses = MLFlowHandler(
        iteration_log=True,
        epoch_log=False,
        experiment_param=parameters,
        tag_name="loss",
        output_transform=lambda output: output["loss"],
        close_on_complete=True,
        **common,
    )
    losses.attach(trainer)
