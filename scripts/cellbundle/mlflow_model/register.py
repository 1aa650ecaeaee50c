"""Put the folder of a bundle, the core and what they need into an MLflow model, and register it."""

import base64
import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from ..addresses import redact, redact_message
from ..bundles import describe_bundle, find_bundle
from ..errors import CellBundleError, CheckpointError, ConfigError, DependencyError, redact_error
from ..inference.predictor import Predictor
from ..packages.build import CORE
from ..packages.files import bundle_files, weight_files
from ..record import OWN_WEIGHTS
from ..tracking.names import resolve_uri
from ..tracking.server import QuickRequests, check_database, find_experiment
from ..tracking.session import training_run

SERVED = CORE / "mlflow_model" / "served.py"
EXAMPLE = "docs/example.png"
MAX_PIXELS = 2**26  # that a server decodes: 8192 x 8192
NAME = re.compile(r"[\w.-]+")


class LoggedBundle(NamedTuple):
    """Where a bundle is now.

    Attributes:
        uri: of the model, for ``mlflow models serve --model-uri``.
        version: of the registered model; None if it was not registered.
    """

    uri: str
    version: str | None


def log_model(
    bundle: str | Path,
    tracking_uri: str,
    *,
    experiment_name: str | None = None,
    registered_name: str | None = None,
    weights: str | Path | None = None,
    run_id: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> LoggedBundle:
    """Log a bundle as an MLflow model and, if it gets a name, register a version of it.

    The model holds the bundle, the core and pinned requirements, so it runs where cellbundle is not installed. MLflow's
    active run and tracking URI stay as they are.

    Args:
        bundle: name or folder.
        tracking_uri: as ``mlflow_tracking_uri`` of a training: server, file, or ``databricks``.
        experiment_name: made if there is none; by default the name of the bundle.
        registered_name: in the model registry; none does not register.
        weights: checkpoint in place of the bundle's own.
        run_id: training run that the model belongs to; its experiment is used.
        max_pixels: largest image that the model decodes.

    Raises:
        ConfigError: for an unknown bundle, a run id together with an experiment, or from within a packaged bundle.
        CheckpointError: if there are no weights, or they do not fit the bundle.
        DependencyError: if MLflow is not installed.
        CellBundleError: if MLflow refuses.
    """
    if __name__.startswith("scripts."):
        raise ConfigError("this core is a part of a packaged bundle; install cellbundle to log models")
    if find_spec("mlflow") is None:
        raise DependencyError("MLflow is not installed; pip install 'cellbundle[mlflow]'")
    if run_id is not None and experiment_name is not None:
        raise ConfigError("both a run id and an experiment name are given; a run has its experiment, so leave one out")
    from mlflow import MlflowClient  # noqa: PLC0415  (optional)
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    root = find_bundle(bundle)
    file = Path(weights) if weights is not None else root / OWN_WEIGHTS
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; train first, or name a file with --weights")
    Predictor(root, device="cpu", weights=file)  # weights of another network would be found out by a server only
    uri = resolve_uri(tracking_uri)
    try:
        check_database(uri)
        client = MlflowClient(tracking_uri=uri)
        with _tracking(uri):
            with QuickRequests():  # a server that is down is found out soon
                if run_id is not None:
                    experiment = client.get_run(run_id).info.experiment_id
                else:
                    experiment = find_experiment(client, uri, experiment_name or root.name, uuid4().hex)
            return _log(client, root, file, experiment, run_id, registered_name, max_pixels)
    except (MlflowException, sqlite3.Error, ValueError) as error:
        message = f"the model of {root.name} cannot be logged to {redact(uri)}: {redact_message(error, uri)}"
        raise CellBundleError(message) from redact_error(error, uri)


@contextmanager
def _tracking(uri: str) -> Iterator[None]:
    """MLflow's global tracking URI for a while: its registry looks models up there, whatever the client says."""
    import mlflow  # noqa: PLC0415

    before: Any = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def _log(
    client: Any, root: Path, weights: Path, experiment: str, run_id: str | None, name: str | None, max_pixels: int
) -> LoggedBundle:
    from mlflow.entities import LoggedModelOutput  # noqa: PLC0415

    tags = {"bundle": root.name, "bundle_version": describe_bundle(root).version, **training_run(weights)}
    with tempfile.TemporaryDirectory() as temporary:
        staged = stage(root, weights, Path(temporary) / root.name)
        model = client.create_logged_model(experiment, root.name, run_id, tags)
        try:
            folder = save_model(staged, Path(temporary) / "model", max_pixels, model, run_id)
            client.log_model_artifacts(model.model_id, str(folder))
        except BaseException:
            client.finalize_logged_model(model.model_id, "FAILED")
            raise
    client.finalize_logged_model(model.model_id, "READY")
    if run_id is not None:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return LoggedBundle(model.model_uri, _register(client, model, name, run_id) if name else None)


def _register(client: Any, model: Any, name: str, run_id: str | None) -> str:
    """Make a version of a registered model, which is made if there is none; its number."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"}:
            raise
    created = client.create_model_version(name, model.model_uri, run_id, tags=model.tags, model_id=model.model_id)
    return str(created.version)


def stage(root: Path, weights: Path, folder: Path) -> Path:
    """Copy what inference needs of a bundle to a new folder, with these weights and their settings; returns it.

    Args:
        root: folder of the bundle.
        weights: become ``models/model.pt``; the ``run.yaml`` beside them, if there is one, stays beside them.
        folder: to make.
    """
    for path, file in (bundle_files(root) | weight_files(weights)).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / path)
    return folder


def save_model(bundle: Path, path: Path, max_pixels: int, model: Any = None, run_id: str | None = None) -> Path:
    """Write an MLflow model of a bundle folder to a new folder; returns it."""
    import pandas as pd  # noqa: PLC0415
    from mlflow.models import Model, ModelSignature  # noqa: PLC0415
    from mlflow.pyfunc import save_model as save_pyfunc  # noqa: PLC0415
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema  # noqa: PLC0415
    from mlflow.types.schema import AnyType, Array, DataType  # noqa: PLC0415

    example = pd.DataFrame({"image": [base64.b64encode((bundle / EXAMPLE).read_bytes()).decode()]})
    identity = {} if model is None else {"artifact_path": model.artifact_location, "model_uuid": model.model_id}
    save_pyfunc(
        path,
        python_model=str(SERVED),
        artifacts={"bundle": str(bundle)},
        code_paths=[str(CORE)],
        pip_requirements=requirements(bundle),
        model_config={"device": "auto", "max_pixels": max_pixels},
        input_example=(example, {"format": "png"}),
        signature=ModelSignature(
            Schema([ColSpec(DataType.string, "image")]),
            Schema(
                [
                    ColSpec(AnyType(), "labels"),
                    ColSpec(Array(DataType.long), "shape"),
                    ColSpec(DataType.long, "n"),
                ]
            ),
            ParamSchema([ParamSpec("format", DataType.string, "png")]),
        ),
        mlflow_model=Model(**identity, run_id=run_id, model_id=identity.get("model_uuid")),
    )
    return path


def requirements(bundle: Path) -> list[str]:
    """The installed versions of what the core and a bundle need, as pip takes them."""
    core = [line for line in requires("cellbundle") or () if "extra ==" not in line]
    own = json.loads((bundle / "configs" / "metadata.json").read_text()).get("required_packages_version", {})
    names = {match.group().lower() for match in map(NAME.match, [*core, *own, "mlflow"]) if match}
    found = []
    for name in sorted(names):
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            raise DependencyError(f"{bundle.name} needs {name}, which is not installed; pip install {name}") from None
    return found
