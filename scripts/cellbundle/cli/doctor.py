"""``cellbundle doctor`` and ``cellbundle list``: what is here, and what is missing for what."""

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

NAME = re.compile(r"[\w.-]+")
# Module, extra of cellbundle that installs it, what it is for.
OPTIONAL = (
    ("zarr", "zarr", "OME-Zarr images"),
    ("pyarrow", "parquet", "measurements as Parquet"),
    ("mlflow", "mlflow", "tracking of trainings"),
    ("fsspec", "remote", "data and outputs elsewhere, such as s3://"),
    ("fastapi", "serve", "cellbundle serve"),
    ("segment_anything", "vista2d", "the bundle vista2d"),
    ("ultralytics", "yolo", "the bundle yolo_seg (AGPL-3.0)"),
    ("matplotlib", "docs", "curves of trainings"),
    ("tensorrt", None, "inference_trt.json on NVIDIA GPUs: torch-tensorrt==2.11.0 and tensorrt>=10.15.1,<10.16"),
)


def list_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name or folder of one bundle.")] = None,
    paths: Annotated[
        bool, typer.Option("--paths", help="Print names and folders only; of one bundle, its folder.")
    ] = False,
) -> int:
    """List the bundles: name, version, weights, description, folder.

    In a shell, P=$(cellbundle list --paths cell_unet) is the folder of a bundle.
    """
    from ..bundles import describe_bundle, find_bundle, list_bundles, search_folders  # noqa: PLC0415

    bundles = list_bundles() if name is None else [describe_bundle(find_bundle(name))]
    if not bundles:
        sys.stderr.write(f"no bundles in {', '.join(map(str, search_folders()))}\n")
        return 1
    for info in bundles:
        weights = "weights present" if info.weights else "no weights: train it, or see its docs/README.md"
        path = info.path.absolute()
        long = f"{info.name} {info.version} ({weights})\n    {info.description}\n    {path}"
        typer.echo(long if not paths else str(path) if name else f"{info.name}\t{path}")
    return 0


def doctor() -> int:
    """Show versions, devices, optional packages and weights, and what to install."""
    problems = _versions()
    if not problems:  # the rest imports the packages
        problems = [*_devices(), *_bundles()]
    typer.echo("\noptional")
    for module, extra, purpose in OPTIONAL:
        state = "installed" if find_spec(module) else "missing  "
        hint = f"  pip install 'cellbundle[{extra}]'" if extra and not find_spec(module) else ""
        typer.echo(f"  {module:16s} {state}  {purpose}{hint}")
    typer.echo("\n" + ("\n".join(f"problem: {p}" for p in problems) or "everything needed is here"))
    return 1 if problems else 0


def _versions() -> list[str]:
    problems = []
    typer.echo(f"Python {platform.python_version()} on {platform.platform()}\n\npackages")
    required = [line for line in requires("cellbundle") or () if "extra ==" not in line]
    for name in ("cellbundle", *(match.group() for match in map(NAME.match, required) if match)):
        try:
            typer.echo(f"  {name:16s} {version(name)}")
        except PackageNotFoundError:
            typer.echo(f"  {name:16s} missing")
            problems.append(f"{name} is not installed; run pip install -c constraints.txt -r requirements.txt")
    return problems


def _devices() -> list[str]:
    import torch  # noqa: PLC0415

    from ..device import autocast_dtype, choose_device, describe  # noqa: PLC0415
    from ..inference.predictor import SMALL_TILE, memory_is_short  # noqa: PLC0415

    device = choose_device("auto")
    precision = str(autocast_dtype(device) or torch.float32).removeprefix("torch.")
    tiles = f"of at most {SMALL_TILE} pixels, little memory is free" if memory_is_short(device) else "of any size"
    typer.echo(f"\ndevice\n  {describe(device)}\n  precision {precision}, tiles {tiles}")
    if device.type == "cuda":
        return []
    built = "no NVIDIA GPU or driver was found" if torch.version.cuda else "this PyTorch was built without CUDA"
    typer.echo(f"  no CUDA device: {built}")
    return []


def _bundles() -> list[str]:
    from ..bundles import INFERENCE, list_bundles, version_conflict  # noqa: PLC0415

    typer.echo("\nbundles")
    bundles = list_bundles()
    for info in bundles:
        state = "weights present" if info.weights else "no weights"
        typer.echo(f"  {info.name:12s} {info.version:8s} {state:15s}  {info.source}: {info.path}")
    here = [Path.cwd()] if Path(INFERENCE).is_file() else []
    for conflict in filter(None, map(version_conflict, dict.fromkeys([*here, *(info.path for info in bundles)]))):
        typer.echo(f"  warning: {conflict}")
    if any(info.weights for info in bundles):
        return []
    return ["no bundle has weights; set CELLBUNDLE_BUNDLES to a folder of bundles that have, or train one"]
