"""``cellbundle config``: the whole configuration of a bundle."""

from pathlib import Path
from typing import Annotated

import typer


def config(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Name or folder of a bundle, or one of its configuration files.")
    ],
    flat: Annotated[
        bool, typer.Option("--flat", help="Without the names of files: a configuration that needs no other file.")
    ] = False,
) -> int:
    """Print every option of a bundle with its value, its comment, and the file that the value comes from."""
    from ..bundles import find_bundle, make_importable  # noqa: PLC0415  (imports PyTorch)
    from ..engine.configs.bases import HYPER_PARAMETERS, own_file  # noqa: PLC0415
    from ..engine.configs.show import config_text  # noqa: PLC0415

    file = Path(bundle) if Path(bundle).is_file() else find_bundle(bundle) / "configs" / HYPER_PARAMETERS
    make_importable(own_file(file).resolve().parents[1])
    typer.echo(config_text(file, origins=not flat), nl=False)
    return 0
