"""``cellbundle info``: what is known about weights."""

from collections import Counter
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..addresses import redact_text
from ..errors import printable

if TYPE_CHECKING:
    import torch

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # of normalisations: no parameters
WIDTH = 120  # of the settings
LABEL = 10  # characters in front of a value


def info(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="Checkpoint, or the folder of a run.")],
) -> int:
    """Show what a checkpoint is: its bundle, training and data, from the run.yaml beside it, and its tensors.

    The settings are those that `cellbundle predict --weights` uses. Nothing in run.yaml is executed.
    """
    from ..engine.network import read_weights  # noqa: PLC0415  (PyTorch takes seconds to import)
    from ..record import BEST, RECORD, read_record  # noqa: PLC0415

    file = weights / BEST if weights.is_dir() else weights
    record = read_record(file.parent)
    if record is None:
        typer.echo(printable(f"{file}: {describe_tensors(read_weights(file))}, no {RECORD} beside it"))
        return 0
    _echo(describe_record(record))
    typer.echo(printable(f"{'weights':{LABEL}s}{file}"))
    typer.echo(f"{'':{LABEL}s}{describe_tensors(read_weights(file))}")
    _echo(f"\nsettings\n{_indented(_as_yaml(record['settings']))}")
    return 0


def describe_tensors(weights: Mapping[str, "torch.Tensor"]) -> str:
    """Number of tensors and parameters of a state dict, and the types of what is not a counter."""
    learnt = [tensor for name, tensor in weights.items() if not name.endswith(BUFFERS)]
    types = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in learnt)
    return f"{len(weights)} tensors, {sum(tensor.numel() for tensor in learnt):,} parameters, {', '.join(types)}"


def describe_record(record: Mapping[str, Any]) -> str:
    """Content of ``run.yaml`` apart from the settings, one line each; what it does not say is left out."""
    quick = " (a trial with --quick)" if record.get("quick") is True else ""
    rows = [
        ("bundle", record["bundle"]),
        ("status", f"{record.get('status', 'unknown')}{quick}"),
        ("started", record.get("started")),
        ("ended", record.get("ended")),
        ("epochs", _epochs(record)),
        ("processes", record.get("processes")),
        ("versions", record.get("versions")),
        ("commit", record.get("git_commit")),
        *(("data", one) for one in _data(record)),
        ("command", record.get("command")),
    ]
    return "\n".join(f"{name:{LABEL}s}{_line(value)}" for name, value in rows if value is not None)


def _epochs(record: Mapping[str, Any]) -> str | None:
    done, planned = record.get("epoch"), record.get("max_epochs")
    return None if planned is None else f"{planned} planned" if done is None else f"{done} of {planned}"


def _data(record: Mapping[str, Any]) -> list[str]:
    """A line for each data list: what it is, and the SHA-256 of its content."""
    lists, hashes = (
        value if isinstance(value, list) else [value] if value else []
        for value in (record.get("data"), record.get("data_sha256"))
    )
    return [
        f"{_line(one)}{f', SHA-256 {digest}' if digest else ''}" for one, digest in zip_longest(lists, hashes) if one
    ]


def _line(value: Any) -> str:
    """Any content of YAML in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_line(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_line, value))
    return "".join(c if c.isprintable() else " " for c in " ".join(str(value).split()))  # no terminal sequences


def _as_yaml(value: Any) -> str:
    import yaml  # noqa: PLC0415

    return yaml.safe_dump(value, sort_keys=False, width=WIDTH)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _echo(text: str) -> None:
    typer.echo(printable(redact_text(text)))
