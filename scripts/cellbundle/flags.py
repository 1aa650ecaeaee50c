"""Switches that are given as text."""

from typing import Any

from .errors import ConfigError

WORDS = {"true": True, "false": False}


def as_bool(value: Any) -> bool:
    """Return a switch as a bool: ``--amp false`` reaches a configuration as the text "false", which Python calls true.

    Args:
        value: a bool, a number, None, or the text "true" or "false" in upper or lower case.

    Raises:
        ConfigError: for any other text.
    """
    if isinstance(value, str):
        if value.lower() not in WORDS:
            raise ConfigError(f"a switch is {value!r}, expected true or false")
        return WORDS[value.lower()]
    return bool(value)
