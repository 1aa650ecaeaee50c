"""``cellbundle sync-runs``: send what a tracking server did not take while it was made."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import printable


def sync_runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders of checkpoints or outputs; by default, this one.")
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="Where to, instead of the address that a run was made for.")
    ] = None,
) -> int:
    """Send runs, or the rest of them, to the MLflow server that was down when they were made.

    Exit code 1 if something remains.
    """
    from ..tracking.sender import find_runs, sync_run  # noqa: PLC0415  (PyTorch takes seconds to import)

    runs = find_runs(folders or [Path()])
    if not runs:
        typer.echo("nothing to send")
        return 0
    typer.echo(f"{'run':26s} {'experiment':16s} {'points':>8s} {'files':>6s} {'remain':>7s}")
    remaining = 0
    for folder in runs:
        run = sync_run(folder, tracking_uri)
        remaining += run.remaining
        row = f"{run.key:26s} {run.experiment:16s} {run.metrics:8d} {run.files:6d} {run.remaining:7d}  {run.message}"
        typer.echo(printable(row))
    return 1 if remaining else 0
