"""The templates of the pages."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

FOLDER = Path(__file__).parent


@cache
def environment() -> jinja2.Environment:
    """Templates that escape all they are given, and refuse names that they are not; ``css`` and ``js`` are inlined."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for kind in ("css", "js"):
        templates.globals[kind] = Markup((FOLDER / f"page.{kind}").read_text("utf-8"))
    return templates


def render(template: str, context: Mapping[str, Any], filters: Mapping[str, Any]) -> str:
    """Text of a page.

    Args:
        template: file name.
        context: variables of the template.
        filters: functions that the template calls by these names.
    """
    environment().filters.update(filters)
    return environment().get_template(template).render(context)
