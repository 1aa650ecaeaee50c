"""``cellbundle package``: the bundle of a training run, with its weights and settings."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import printable


def package(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/1.")],
    bundle: Annotated[
        str | None, typer.Option(help="Name or folder of the bundle; by default the one of the run.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the package.")] = Path("dist"),
) -> int:
    """Package a training run: a bundle that finds what its weights find, as a folder and as a zip archive.

    It runs without cellbundle installed, as a MONAI bundle, and `cellbundle install` takes the archive.
    models/run.yaml in it tells the command of the training and the paths of its data.
    """
    from ..packages.runs import package_run  # noqa: PLC0415  (PyTorch takes seconds to import)

    packaged = package_run(run, bundle, output)
    typer.echo(printable(f"{packaged.archive}\ncellbundle predict IMAGES --bundle {packaged.folder} --output RESULTS"))
    return 0
