"""``cellbundle log-model``: a bundle as an MLflow model that answers images."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import printable


def log_model(
    bundle: Annotated[str, typer.Option(help="Name or folder of a bundle; see `cellbundle list`.")],
    tracking_uri: Annotated[
        str,
        typer.Option(
            "--tracking-uri",
            "--tracking_uri",
            envvar="MLFLOW_TRACKING_URI",
            help="Server, sqlite:///FILE, the path of an SQLite file, or databricks.",
        ),
    ],
    experiment_name: Annotated[
        str | None,
        typer.Option("--experiment-name", "--experiment_name", help="By default the name of the bundle."),
    ] = None,
    registered_name: Annotated[
        str | None,
        typer.Option(
            "--registered-name",
            "--registered_name",
            help="Register a version of this model; catalog.schema.NAME in UC.",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Checkpoint to use instead of the bundle's own, as its run.yaml says.")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run-id", "--run_id", help="Training run that the model belongs to.")
    ] = None,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", "--max_pixels", help="The model refuses larger images before decoding them.")
    ] = 2**26,
) -> int:
    """Put a bundle, with its code and pinned requirements, into MLflow, and register it if it gets a name.

    `mlflow models serve --env-manager local --model-uri URI` then answers images (base64) with label maps.
    """
    from ..mlflow_model import log_model as log  # noqa: PLC0415

    logged = log(
        bundle,
        tracking_uri,
        experiment_name=experiment_name,
        registered_name=registered_name,
        weights=weights,
        run_id=run_id,
        max_pixels=max_pixels,
    )
    typer.echo(printable(logged.uri))
    if logged.version:
        typer.echo(printable(f"models:/{registered_name}/{logged.version}"))
    return 0
