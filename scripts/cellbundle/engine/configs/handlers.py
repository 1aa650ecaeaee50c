"""Handlers of engines in a configuration: lists that refer to blocks by name."""

from typing import Any

from ..overrides import lookup

LISTS = ("train", "validate", "")  # sections with a list `handlers`; "" is the top level


def inline_handlers(config: dict[str, Any]) -> None:
    """Replace references in lists of handlers by the blocks that they refer to, in place.

    A bundle can change one value of a named block, and MONAI reads ``_target_`` of each item of such a list. The named
    blocks are removed.
    """
    named = set()
    for section in LISTS:
        holder = config.get(section, {}) if section else config
        handlers = holder.get("handlers")
        if isinstance(handlers, list):
            references = [item[1:] for item in handlers if isinstance(item, str) and item.startswith("@")]
            named |= {name for name in references if isinstance(lookup(config, name), dict)}
            holder["handlers"] = [lookup(config, item[1:]) if _name(item) in named else item for item in handlers]
    for name in named:
        section, _, key = name.rpartition("#")
        (config[section] if section else config).pop(key)


def _name(item: Any) -> str:
    return item[1:].replace("::", "#") if isinstance(item, str) else ""
