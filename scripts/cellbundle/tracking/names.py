"""Addresses, metrics, parameters and tags in the form that MLflow accepts."""

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from monai.utils import path_to_sqlite_uri

from ..addresses import is_address, redact, redact_values, split_scheme
from ..errors import ConfigError

MAX_KEY, MAX_VALUE = 250, 500  # characters; newer servers of MLflow allow 6000 for a value
MAX_TAG = 5000  # characters of a tag's value
FORBIDDEN = re.compile(r"[^\w./ -]")  # in names of metrics and parameters
REMOTE = ("http", "https", "databricks")
DATABASES = ("postgresql", "mysql", "mssql")
SQLITE = "sqlite:///"
DATABASE_NAME = "mlruns.db"  # if the address is a folder
ADVICE = "give a file such as mlruns.db, sqlite:///FILE, the address http://HOST:PORT of a server, or databricks"
NO_PARAMETERS = ("imports", "initialize", "run", "finalize", "tracker")  # top-level ids that are not logged
OPTIONS = "mlflow_"  # prefix of further ids that are not logged


def resolve_uri(uri: str) -> str:
    """Return an address in MLflow's form, with absolute paths.

    Args:
        uri: a file or folder, ``sqlite:///FILE``, an HTTP server, ``databricks`` or another database.

    Raises:
        ConfigError: for any other address, and for a store of plain files, which MLflow 3 does not write any more.
    """
    text = str(uri).strip()
    scheme, n_slashes = split_scheme(text)
    is_server = scheme in REMOTE or scheme.partition("+")[0] in DATABASES
    if text == "databricks" or (is_server and n_slashes > 1):
        return text.rstrip("/")
    if text.startswith(SQLITE) and len(text) > len(SQLITE):
        name, _, query = text.removeprefix(SQLITE).partition("?")
        return SQLITE + os.path.abspath(name) + (f"?{query}" if query else "")  # noqa: PTH100  (name may be quoted)
    if text.lower().startswith("file:"):
        raise ConfigError(
            f"mlflow_tracking_uri is {redact(text)!r}, but MLflow 3 writes no plain files any more; {ADVICE}"
        )
    if not text or is_address(text):
        raise ConfigError(f"mlflow_tracking_uri is {redact(text)!r}, which is no place to track runs; {ADVICE}")
    path = Path(text).expanduser()
    return str(path_to_sqlite_uri(path / DATABASE_NAME if path.is_dir() or not path.suffix else path))


def database_file(uri: str) -> Path | None:
    """Return the file of an SQLite address from ``resolve_uri``; None for any other address."""
    return Path(unquote(uri.removeprefix(SQLITE).partition("?")[0])) if uri.startswith(SQLITE) else None


def is_remote(uri: str) -> bool:
    """Whether the address is remote."""
    return not uri.startswith("sqlite:")


def experiment_name(uri: str, name: str) -> str:
    """Return the name of an experiment, as a path below ``/Shared`` on Databricks."""
    return f"/Shared/{name}" if uri.startswith("databricks") and not name.startswith("/") else name


def safe_name(name: str) -> str:
    """Return a name that MLflow accepts for a metric or a parameter."""
    parts = [part for part in FORBIDDEN.sub("_", name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:MAX_KEY].rstrip("/") or "_"


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that are numbers, by safe names."""
    metrics = {}
    for name, value in values.items():
        try:
            metrics[safe_name(str(name))] = float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of many numbers
            continue
    return metrics


def plain_text(value: Any, length: int = MAX_VALUE) -> str:
    """Return the redacted string of a parameter or a tag, cut to ``length`` characters."""
    return str(redact_values(value if isinstance(value, list | tuple | Mapping) else str(value)))[:length]


def plain_parameters(config: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, str]:
    """Return the plain values of a configuration, by ids with dots between levels.

    Args:
        config: MONAI configuration with expressions and references.
        resolved: values of expressions and references, by ids with ``#`` between levels.

    Returns:
        Redacted strings of at most 500 characters. Expressions without a plain value are left out.
    """
    parameters = {}
    for key, content in config.items():
        if key not in NO_PARAMETERS and not key.startswith(OPTIONS):
            for name, value in _plain_values(content, str(key), resolved):
                parameters[safe_name(name.replace("#", "."))] = plain_text(value)
    return parameters


def _plain_values(content: Any, name: str, resolved: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    value = resolved.get(name, content)
    if _is_plain(value):
        yield name, value
    elif isinstance(content, Mapping):
        for key, inner in content.items():
            yield from _plain_values(inner, f"{name}#{key}", resolved)
    elif isinstance(content, list):
        for index, inner in enumerate(content):
            yield from _plain_values(inner, f"{name}#{index}", resolved)


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return not value.startswith(("$", "@"))
    if isinstance(value, list | tuple):
        return all(_is_plain(item) and not isinstance(item, list | tuple) for item in value)
    return value is None or isinstance(value, bool | int | float | Path)


def flat_scores(content: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Return the finite numbers of nested mappings, such as a report, by path.

    Args:
        content: numbers and mappings; other values are left out.
        prefix: first part of all names.
    """
    scores: dict[str, float] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            scores |= flat_scores(value, f"{prefix}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            scores[safe_name(f"{prefix}/{name}")] = float(value)
    return scores
