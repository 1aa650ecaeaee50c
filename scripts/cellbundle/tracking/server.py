"""What is asked of an MLflow server, and what its errors mean."""

import json
import logging
import os
import re
import sqlite3
from contextlib import closing
from typing import Any, ClassVar

from ..addresses import redact_logs, redact_message
from ..io.write import atomic_path
from .names import REMOTE, database_file, experiment_name, safe_name

logger = logging.getLogger(__name__)

MAX_REASON = 300  # characters
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")  # what is wrong now will be wrong later
GONE = ("RESOURCE_DOES_NOT_EXIST", *REFUSED)
DENIED = re.compile(r"\b(401|403)\b|UNAUTHENTICATED|PERMISSION_DENIED|CUSTOMER_UNAUTHORIZED")
# For requests while a run is open. The library's own retries would block for minutes, and create a run twice.
QUICK = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class QuickRequests:
    """While one is held, MLflow answers or fails soon, without retries of its own, unless the user chose otherwise."""

    _holders = 0
    _names: ClassVar[list[str]] = []  # variables that were set here

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
    """Import now what the thread needs: a process that is forked during an import may wait for it forever."""
    import mlflow.tracking  # noqa: PLC0415  (optional)

    if not uri.startswith(REMOTE):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401, PLC0415
    redact_logs("mlflow")


def reason(error: Exception, uri: str = "") -> str:
    """What went wrong, in one line without the secrets of an address, and what helps against it."""
    text = f"{type(error).__name__}: {redact_message(error, uri)}"
    denied = DENIED.search(text)
    if len(text) > MAX_REASON:  # the address and the kind of request come first, the cause last
        text = f"{text[: MAX_REASON // 3]} ... {text[-MAX_REASON // 2 :]}"
    if denied:
        text += "; check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    return text


def find_run(client: Any, run_id: str) -> Any:
    """A run by its id; None if it does not exist or was deleted."""
    from mlflow import MlflowException  # noqa: PLC0415  (optional)

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in GONE:
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def find_experiment(client: Any, uri: str, name: str, key: str) -> str:
    """Id of an experiment, made when needed; one that was deleted is left alone and another name is used."""
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
    place = (database.parent / "mlruns" / safe_name(name)).as_uri() if database else None
    try:
        client.create_experiment(name, artifact_location=place)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
            raise
    return client.get_experiment_by_name(name)


def check_database(uri: str) -> None:
    """Raise at once if a database file cannot be used; MLflow would try for an hour.

    Raises:
        OSError: if its folder cannot be made.
        sqlite3.Error: if it cannot be opened.
    """
    path = database_file(uri)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=5)) as connection:
            connection.execute("PRAGMA schema_version")


def write_run_file(state: dict[str, Any]) -> None:
    """Write ``run.json``, from which evaluations know the run that their weights come from."""
    names = ("run_id", "key", "experiment", "experiment_id", "run_name", "tracking_uri")
    try:
        with atomic_path(state["run_file"]) as temporary:
            temporary.write_text(json.dumps({name: state.get(name) for name in names}, indent=2) + "\n")
    except OSError as error:
        logger.warning("tracking: %s cannot be written: %s", state["run_file"], error)
