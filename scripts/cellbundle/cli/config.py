"""``cellbundle config``: the whole configuration of a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..record import RECORD


def config(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Name or folder of a bundle, or one of its configuration files.")
    ],
    flat: Annotated[
        bool, typer.Option("--flat", help="Without the names of files: a configuration that needs no other file.")
    ] = False,
) -> int:
    """Print every option of a bundle with its value, its comment, and the file that the value comes from."""
    from ..bundles import find_bundle, make_importable, warn_of_version_conflict  # noqa: PLC0415
    from ..engine.configs.bases import HYPER_PARAMETERS, SUFFIXES, own_file  # noqa: PLC0415  (imports PyTorch)
    from ..engine.configs.show import config_text  # noqa: PLC0415

    file, folder = Path(bundle), Path(bundle)
    if file.suffix in SUFFIXES and not file.is_file():
        raise ConfigError(f"there is no configuration file {file}")
    if (folder / RECORD).is_file():
        raise ConfigError(f"{folder} is a run; cellbundle info {folder} shows how it was configured")
    if not file.is_file():
        file = find_bundle(bundle) / "configs" / HYPER_PARAMETERS
    root = own_file(file).resolve().parent.parent
    warn_of_version_conflict(root)
    make_importable(root)
    typer.echo(config_text(file, origins=not flat), nl=False)
    return 0
