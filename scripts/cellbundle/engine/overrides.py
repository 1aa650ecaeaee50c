"""Check overrides: MONAI accepts misspelt ones silently, and takes "false" for true."""

import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pydoc import locate
from typing import Any, TypeVar

from ..errors import ConfigError
from ..flags import WORDS
from ..record import id_of

Choice = TypeVar("Choice")

FURTHER_WORDS = {"resume": ("auto",)}  # of switches
SPECIAL_KEYS = {"_target_", "_disabled_", "_requires_", "_desc_", "_mode_", "_imports_"}


def config_ids(config: Any, prefix: str = "") -> list[str]:
    """All ids of a nested configuration, parents before children, joined with ``#``."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(config, Mapping):
        items = config.items()
    elif isinstance(config, list):
        items = enumerate(config)
    ids = []
    for key, value in items:
        name = f"{prefix}{key}"
        ids += [name, *config_ids(value, f"{name}#")]
    return ids


def check_overrides(config: Mapping[str, Any], overrides: Iterable[str]) -> None:
    """Raise unless every override addresses a known id, or a parameter of the object it belongs to.

    Args:
        config: the merged configuration before the overrides.
        overrides: ids as on the command line, with ``#`` or ``::`` between levels and perhaps a leading ``+`` (merge).

    Raises:
        ConfigError: for the first id that is not known; the message suggests the nearest ones.
    """
    ids = set(config_ids(config))
    for override in overrides:
        name = id_of(override)
        if name in ids:
            continue
        parent, _, key = name.rpartition("#")
        allowed = parameters(lookup(config, parent)) if parent else set()
        if key in allowed or key in SPECIAL_KEYS:
            continue
        candidates = ids | {f"{parent}#{k}" for k in allowed}
        near = get_close_matches(name, candidates, n=3) or get_close_matches(key, [i for i in ids if "#" not in i], n=3)
        hint = (
            f"did you mean {' or '.join('--' + n for n in near)}?" if near else "`cellbundle config BUNDLE` lists all"
        )
        raise ConfigError(f"--{override} is not a known option; {hint}")


def convert_switches(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides with "true" and "false" as bools; on a command line they are text, and any text counts as true.

    Args:
        config: the merged configuration before the overrides.
        overrides: values by id.

    Raises:
        ConfigError: for any other text where the configuration has a bool.
    """
    converted = {}
    for key, value in overrides.items():
        default = lookup(config, id_of(key))
        is_text = isinstance(value, str) and not value.startswith(("$", "@", "%"))
        if is_text and isinstance(default, bool) and value.lower() not in (*WORDS, *FURTHER_WORDS.get(key, ())):
            raise ConfigError(f"--{key} is {value!r}, expected true or false")
        further = {word: word for word in FURTHER_WORDS.get(key, ())}
        converted[key] = (WORDS | further).get(value.lower(), value) if is_text else value
    return converted


def lookup(config: Any, name: str) -> Any:
    """Content of an id of a nested configuration, or None."""
    for part in name.split("#"):
        if isinstance(config, Mapping):
            config = config.get(part)
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        else:
            return None
    return config


def is_known(config: Any, name: str) -> bool:
    """Whether a nested configuration has an id; its value may be None."""
    parent, _, key = id_of(name).rpartition("#")
    holder = lookup(config, parent) if parent else config
    if isinstance(holder, list):
        return key.isdigit() and int(key) < len(holder)
    return isinstance(holder, Mapping) and key in holder


def takes_any(content: Mapping[str, Any]) -> bool:
    """Whether the ``_target_`` of a configuration item takes arguments of any name, or cannot be inspected."""
    try:
        signature = inspect.signature(_locate(content["_target_"]))
    except (KeyError, TypeError, ValueError):
        return True
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())


def parameters(content: Any) -> set[str]:
    """Parameters of the ``_target_`` of a configuration item, and of its base classes if it passes them on."""
    if not isinstance(content, Mapping) or not isinstance(content.get("_target_"), str):
        return set()
    target = _locate(content["_target_"])
    names: set[str] = set()
    for owner in inspect.getmro(target) if inspect.isclass(target) else (target,):
        try:
            parameters = inspect.signature(owner).parameters.values()
        except (TypeError, ValueError):
            break
        names |= {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def _locate(name: str) -> Any:
    """The object a ``_target_`` names; MONAI's components may be named without their module."""
    module = _components().get_component_module_name(name)
    if isinstance(module, list):
        module = module[0]
    return locate(f"{module}.{name}") if module else locate(name)


@lru_cache
def _components() -> Any:
    """MONAI's table of its components."""
    from monai.bundle.config_item import ComponentLocator  # noqa: PLC0415  (only needed for some keys)

    return ComponentLocator()


def choose(option: str, value: str, choices: Mapping[str, Choice]) -> Choice:
    """Return the choice named ``value``; for expressions in configurations, which would ignore an unknown value.

    Raises:
        ConfigError: if there is none; the message names ``option`` and all choices.
    """
    if value not in choices:
        raise ConfigError(f"{option} is {value!r}; choose one of {', '.join(choices)}")
    return choices[value]
