"""One of several things by the value of an option."""

from collections.abc import Mapping
from typing import TypeVar

from ..errors import ConfigError

Thing = TypeVar("Thing")


def choose(option: str, value: str, choices: Mapping[str, Thing]) -> Thing:
    """The choice that ``value`` names; for expressions of configurations, where any other value would go unnoticed.

    Raises:
        ConfigError: if there is none; the message names ``option`` and all choices.
    """
    if value not in choices:
        raise ConfigError(f"{option} is {value!r}; choose one of {', '.join(choices)}")
    return choices[value]
