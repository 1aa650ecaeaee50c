"""``cellbundle install``: a bundle package, put where bundles are found by name."""

import logging
from typing import Annotated

import typer

from ..errors import printable

logger = logging.getLogger(__name__)


def install(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Zip archive written by package_bundle.py, or its http(s) address.")
    ],
    sha256: Annotated[str | None, typer.Option(help="SHA-256 that the archive must have.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another version, or a version with changed files.")
    ] = False,
) -> int:
    """Install a bundle package, so that --bundle NAME finds it.

    A bundle is code that runs on this computer: install bundles only from people you trust. The package is checked
    before anything is put in place. It goes to the first folder of $CELLBUNDLE_BUNDLES if that is set, else to
    ~/.local/share/cellbundle/bundles.
    """
    from ..bundles import describe_bundle  # noqa: PLC0415  (PyTorch takes seconds to import)
    from ..packages.install import install_bundle  # noqa: PLC0415

    installed = install_bundle(source, sha256=sha256, overwrite=overwrite)
    for requirement in installed.missing:
        name = requirement.partition("==")[0]
        logger.warning("%s needs %s, which is not installed; pip install %s", installed.name, name, requirement)
    if describe_bundle(installed.folder).weights is None:
        logger.warning("%s has no weights; see %s", installed.name, installed.folder / "docs" / "README.md")
    state = "is installed in" if installed.is_new else "is installed already in"
    typer.echo(printable(f"{installed.name} {installed.version} {state} {installed.folder}"))
    typer.echo(f"cellbundle predict IMAGES --bundle {installed.name} --output RESULTS")
    return 0
