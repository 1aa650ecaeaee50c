"""What things are called in MLflow: addresses, metrics, parameters. Functions of their arguments alone."""

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

MAX_KEY, MAX_VALUE = 250, 500  # characters; MLflow allows 6000 for a value, its older servers 500
MAX_TAG = 5000  # characters of the value of a tag
FORBIDDEN = re.compile(r"[^\w./ -]")  # in names of metrics and parameters
REMOTE = ("http", "https", "databricks")
DATABASES = ("postgresql", "mysql", "mssql")
SQLITE = "sqlite:///"
DATABASE_NAME = "mlruns.db"  # in a folder that is given as the address
ADVICE = "give a file such as mlruns.db, sqlite:///FILE, the address http://HOST:PORT of a server, or databricks"
# Parts of a configuration that say nothing of a run, or are known as something else.
NO_PARAMETERS = ("imports", "initialize", "run", "finalize", "tracker")
OPTIONS = "mlflow_"


def resolve_uri(uri: str) -> str:
    """The address in the form that MLflow wants, the same from whatever folder the command is given.

    Args:
        uri: a file or folder, ``sqlite:///FILE``, an HTTP server, ``databricks`` or another database.

    Raises:
        ConfigError: if it is none of these, or a store of plain files, which MLflow 3 does not write any more.
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
    """File of an SQLite address as ``resolve_uri`` gives it; None for any other address."""
    return Path(unquote(uri.removeprefix(SQLITE).partition("?")[0])) if uri.startswith(SQLITE) else None


def is_remote(uri: str) -> bool:
    """Whether a network is between us and the address."""
    return not uri.startswith("sqlite:")


def experiment_name(uri: str, name: str) -> str:
    """``name``, below ``/Shared`` where Databricks wants a path."""
    return f"/Shared/{name}" if uri.startswith("databricks") and not name.startswith("/") else name


def safe_name(name: str) -> str:
    """A name that MLflow accepts for a metric or a parameter."""
    parts = [part for part in FORBIDDEN.sub("_", name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:MAX_KEY].rstrip("/") or "_"


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among some values, by safe names; anything else is left out."""
    found = {}
    for name, value in values.items():
        try:
            found[safe_name(str(name))] = float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # a tensor of many numbers
            continue
    return found


def plain_text(value: Any, length: int = MAX_VALUE) -> str:
    """Text of a parameter or a tag, of at most so many characters, with redacted addresses."""
    return str(redact_values(value if isinstance(value, list | tuple | Mapping) else str(value)))[:length]


def plain_parameters(config: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, str]:
    """The plain values of a configuration, by their ids with dots.

    Args:
        config: nested, with the expressions and references of a MONAI configuration.
        resolved: what became of expressions and references, by id with ``#`` between levels.

    Returns:
        Texts of at most 500 characters with redacted addresses. Expressions without a plain result are left out.
    """
    found = {}
    for key, content in config.items():
        if key not in NO_PARAMETERS and not key.startswith(OPTIONS):
            for name, value in _plain_values(content, str(key), resolved):
                found[safe_name(name.replace("#", "."))] = plain_text(value)
    return found


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
        return all(_is_plain(one) and not isinstance(one, list | tuple) for one in value)
    return value is None or isinstance(value, bool | int | float | Path)


def flat_scores(content: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Finite numbers of nested scores, such as those of a report, by their path.

    Args:
        content: mappings of numbers, perhaps in each other; lists are left out.
        prefix: what the names begin with.
    """
    found: dict[str, float] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            found |= flat_scores(value, f"{prefix}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[safe_name(f"{prefix}/{name}")] = float(value)
    return found
