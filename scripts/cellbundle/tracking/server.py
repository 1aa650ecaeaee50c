"""Requests to MLflow servers, and their errors."""

import logging
import os
import re
import sqlite3
from contextlib import closing
from typing import Any, ClassVar

from ..addresses import redact_logs, redact_message
from .names import REMOTE, database_file, experiment_name, safe_name

logger = logging.getLogger(__name__)

MAX_REASON = 300  # characters
# Errors that another attempt does not change: the run was deleted, or the server refuses the values.
GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "BAD_REQUEST")
DENIED = re.compile(r"\b(401|403)\b|UNAUTHENTICATED|PERMISSION_DENIED|CUSTOMER_UNAUTHORIZED")
# For requests while a run is open. MLflow's own retries block for minutes, and may create a run twice.
QUICK = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class QuickRequests:
    """Set MLflow's environment variables for short time-outs without retries; variables of the user are kept.

    Contexts may overlap in any order; the end of the last one removes the variables.
    """

    _holders = 0
    _names: ClassVar[list[str]] = []  # variables to remove

    def __enter__(self) -> None:
        if QuickRequests._holders == 0:
            QuickRequests._names = [name for name in QUICK if name not in os.environ]
            os.environ.update({name: QUICK[name] for name in QuickRequests._names})
        QuickRequests._holders += 1

    def __exit__(self, *_: object) -> None:
        QuickRequests._holders -= 1
        if QuickRequests._holders == 0:
            for name in QuickRequests._names:
                os.environ.pop(name, None)


def preload(uri: str) -> None:
    """Import the modules of the sending thread now: a process forked during an import may wait for it forever."""
    import mlflow.tracking  # noqa: PLC0415  (optional)

    if not uri.startswith(REMOTE):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401, PLC0415
    redact_logs("mlflow")


def reason(error: Exception, uri: str = "") -> str:
    """Return an error as one redacted line, with advice if access was denied."""
    text = f"{type(error).__name__}: {redact_message(error, uri)}"
    is_denied = DENIED.search(text)
    if len(text) > MAX_REASON:  # the address and the kind of request come first, the cause last
        text = f"{text[: MAX_REASON // 3]} ... {text[-MAX_REASON // 2 :]}"
    if is_denied:
        text += "; check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    return text


def find_run(client: Any, run_id: str) -> Any:
    """Return a run by its id; None if it does not exist or was deleted."""
    from mlflow import MlflowException  # noqa: PLC0415  (optional)

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in GONE:
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def find_experiment(client: Any, uri: str, name: str, key: str) -> str:
    """Return the id of an experiment, which is created when needed; under another name if it was deleted."""
    wanted = experiment_name(uri, name)
    for candidate in (wanted, f"{wanted}-{key[:8]}", f"{wanted}-{key}"):
        experiment = client.get_experiment_by_name(candidate)
        if experiment is None:
            experiment = _create_experiment(client, uri, candidate)
        if experiment.lifecycle_stage == "active":
            if candidate != wanted:
                logger.warning(
                    "tracking: the experiment %r was deleted; the run goes to %r. Restore it (mlflow experiments "
                    "restore), or give another --mlflow_experiment_name",
                    wanted,
                    candidate,
                )
            return str(experiment.experiment_id)
    raise ValueError(f"the experiments {wanted} and {candidate} were deleted; give another --mlflow_experiment_name")


def _create_experiment(client: Any, uri: str, name: str) -> Any:
    from mlflow import MlflowException  # noqa: PLC0415  (optional)

    database = database_file(uri)
    location = (database.parent / "mlruns" / safe_name(name)).as_uri() if database else None
    try:
        client.create_experiment(name, artifact_location=location)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # created by another process
            raise
    return client.get_experiment_by_name(name)


def check_database(uri: str) -> None:
    """Raise if a database file cannot be used; MLflow retries for an hour.

    Raises:
        OSError: if the folder of the file cannot be made.
        sqlite3.Error: if the file cannot be opened.
    """
    path = database_file(uri)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=5)) as connection:
            connection.execute("PRAGMA schema_version")
