"""Merged configurations as YAML for people: with comments, and the file that each value comes from."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from ...record import id_of
from .bases import BASES, CHANGES, config_files, load_config

QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'")
COMMENT = re.compile(r"\s# ?")
COLUMN = 30  # of comments, if the value leaves space
FLOW_LENGTH = 90  # characters of a list on one line


class Source(NamedTuple):
    """Where a value stands.

    Attributes:
        files: name of the file, or of several that add to one list.
        comment: behind the value; those of all files.
        heading: lines of comments above the key.
    """

    files: str
    comment: str = ""
    heading: str = ""


def config_text(files: str | Path | Sequence[str | Path], *, origins: bool) -> str:
    """Configuration files merged with their bases, as YAML that needs no other file.

    Args:
        files: as for ``config_files``.
        origins: comments end with the name of the file that a value comes from, in brackets, where it is not that of
            the block around it.

    Raises:
        ConfigError: as ``load_config``.
    """
    config = {key: value for key, value in load_config(files).items() if key not in CHANGES}
    sources: dict[str, Source] = {}
    for path in config_files(files):
        _add_sources(path, sources)
    stream = io.StringIO()
    _yaml().dump(_commented(config, sources, origins), stream)
    return stream.getvalue()


def _yaml() -> YAML:
    ruamel = YAML()
    ruamel.width = 10_000  # expressions stay on one line
    ruamel.indent(mapping=2, sequence=4, offset=2)
    tag, add = "tag:yaml.org,2002:", ruamel.representer.add_representer
    add(type(None), lambda writer, _: writer.represent_scalar(f"{tag}null", "null"))
    add(float, lambda writer, number: writer.represent_scalar(f"{tag}float", _float_text(number)))
    add(str, _represent_text)
    return ruamel


def _represent_text(writer: Any, text: str) -> Any:
    """Write text in quotes if PyYAML, which MONAI uses, takes it for another value: ruamel reads YAML 1.2."""
    try:
        is_text = yaml.safe_load(text) == text
    except yaml.YAMLError:
        is_text = True  # ruamel puts it in quotes itself
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_text else "'")


def _float_text(number: float) -> str:
    """A number as PyYAML reads it: 1e-05 would be text."""
    return str(yaml.safe_dump(number)).split("\n")[0]


def _add_sources(path: Path, sources: dict[str, Source]) -> None:
    """Note where the keys of a file stand; a block that replaces another one replaces its keys."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for name, number, is_added in _keys(_yaml().load(text)):
        old = sources.get(name, Source(""))
        comments = [old.comment, _comment(lines[number])]
        if not is_added:
            for other in [other for other in sources if other.startswith(f"{name}#")]:
                del sources[other]
        files = f"{old.files}, {path.name}" if is_added else path.name
        heading = old.heading or _heading(lines, number)
        sources[name] = Source(files, "; ".join(comment for comment in comments if comment), heading)


def _keys(content: CommentedMap, prefix: str = "") -> Iterator[tuple[str, int, bool]]:
    """Yield id, number of its line, and whether it adds to a list or mapping, of each key, parents first."""
    for key, value in content.items():
        if key != BASES:
            name, is_added = prefix + id_of(key), key.startswith("+")
            yield name, content.lc.key(key)[0], is_added
            if isinstance(value, CommentedMap):
                yield from _keys(value, f"{name}#")
            elif isinstance(value, CommentedSeq) and not is_added and not value.fa.flow_style():
                yield from _items(value, f"{name}#")


def _items(content: CommentedSeq, prefix: str) -> Iterator[tuple[str, int, bool]]:
    """The same of the items of a list that has a line for each."""
    for index, item in enumerate(content):
        if not isinstance(item, CommentedMap) or item.fa.flow_style():
            yield f"{prefix}{index}", content.lc.item(index)[0], False
        else:
            yield from _keys(item, f"{prefix}{index}#")


def _comment(line: str) -> str:
    """The comment at the end of a line, or an empty string."""
    match = COMMENT.search(QUOTED.sub(lambda quoted: "x" * len(quoted[0]), line))
    return line[match.end() :] if match else ""


def _heading(lines: Sequence[str], number: int) -> str:
    """Comment lines directly above a line, but those at the top of the file, which are about the file."""
    first = number
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return "\n".join(line.lstrip().removeprefix("#").removeprefix(" ") for line in lines[first:number]) if first else ""


def _commented(content: Any, sources: Mapping[str, Source], origins: bool, prefix: str = "", file: str = "") -> Any:
    """The content with comments; ``file`` is where the block around it stands."""
    if isinstance(content, list):
        return _commented_list(content, sources, prefix)
    if not isinstance(content, dict):
        return content
    commented = CommentedMap()
    for key, value in content.items():
        source = sources.get(f"{prefix}{key}", Source(file))
        commented[key] = _commented(value, sources, origins, f"{prefix}{key}#", source.files)
        origin = f"[{source.files}]" if origins and source.files != file else ""
        if text := " ".join(part for part in (source.comment, origin) if part):
            commented.yaml_add_eol_comment(text, key, column=COLUMN)
        if source.heading:
            depth = 2 * prefix.count("#")
            commented.yaml_set_comment_before_after_key(key, "\n" * (not depth) + source.heading, indent=depth)
    return commented


def _commented_list(content: list[Any], sources: Mapping[str, Source], prefix: str) -> CommentedSeq:
    """The same of a list, on one line if it is short and its items have no comments."""
    items = CommentedSeq(_commented(item, sources, False, f"{prefix}{index}#") for index, item in enumerate(content))
    has_comments = any(source.comment and name.startswith(prefix) for name, source in sources.items())
    if not has_comments and not any(isinstance(item, dict | list) for item in content):
        if len(str(content)) <= FLOW_LENGTH:
            items.fa.set_flow_style()
        return items
    for index in range(len(content)):
        if comment := sources.get(f"{prefix}{index}", Source("")).comment:
            items.yaml_add_eol_comment(comment, index, column=COLUMN)
    return items
