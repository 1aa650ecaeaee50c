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
        if not isinstance(handlers, list):
            continue
        names = {text: text[1:].replace("::", "#") for text in handlers if isinstance(text, str) and text[:1] == "@"}
        blocks = {text: lookup(config, name) for text, name in names.items()}
        holder["handlers"] = [blocks.get(item) or item if isinstance(item, str) else item for item in handlers]
        named |= {name for text, name in names.items() if blocks[text]}
    for name in named:
        section, _, key = name.rpartition("#")
        (config[section] if section else config).pop(key)
