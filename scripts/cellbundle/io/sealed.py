"""JSON objects with their own hash, which show when they were damaged."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content with its hash under the key ``sha256``."""
    return {**content, SEAL: _digest(content)}


def unseal(text: str | bytes, *, required: bool = True) -> dict[str, Any]:
    """Read the JSON text of ``seal``.

    Args:
        text: JSON.
        required: False also accepts an object without a hash, as former versions wrote.

    Returns:
        The content without its hash.

    Raises:
        ValueError: if the text is not a JSON object, or not the one that was written.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"is {type(content).__name__}, expected an object")  # noqa: TRY004 - as for text that is no JSON
    digest = content.pop(SEAL, None)
    if (required or digest is not None) and digest != _digest(content):
        raise ValueError("is not as it was written")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
