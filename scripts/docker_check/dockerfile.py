"""A Dockerfile as a list of instructions, and what .dockerignore leaves of a folder."""

import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
EXECUTED = ("ENTRYPOINT", "CMD", "HEALTHCHECK")  # when the image is used, not when it is built
FLAG = re.compile(r"--([\w-]+)(?:=(\S+))?\s+")


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        line: number of its first line.
        keyword: in capitals.
        flags: what begins with two dashes before the value, by name.
        value: the rest, continuation lines joined.
    """

    line: int
    keyword: str
    flags: Mapping[str, str]
    value: str

    @property
    def words(self) -> list[str] | None:
        """The words of the exec form (JSON), or None for the shell form."""
        text = self.value.removeprefix("CMD ") if self.keyword == "HEALTHCHECK" else self.value
        return json.loads(text) if text.startswith("[") else None


def read_dockerfile(path: Path) -> list[Instruction]:
    """The instructions of a file; comments are left out, also between continuation lines."""
    instructions: list[Instruction] = []
    text, first = "", 0
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        first = first or number
        if line.endswith("\\"):
            text += line[:-1].strip() + " "
            continue
        keyword, _, value = (text + line.strip()).partition(" ")
        flags = {}
        while match := FLAG.match(value):
            flags[match[1]] = match[2] or ""
            value = value[match.end() :].lstrip()
        instructions.append(Instruction(first, keyword.upper(), flags, value.strip()))
        text, first = "", 0
    return instructions


def fill_in(text: str, values: Mapping[str, str]) -> str:
    """The text with variables replaced; unknown ones become empty, as Docker has it."""
    return VARIABLE.sub(lambda match: values.get(match[1] or match[2], ""), text)


def assignments(value: str) -> dict[str, str]:
    """Names and values of an ENV or ARG instruction; an ARG without a default has the value ""."""
    found = re.findall(r'(\w+)(?:=("[^"]*"|\S*))?', value)
    return {name: text.strip('"') for name, text in found}


def stages(instructions: list[Instruction]) -> Iterator[list[Instruction]]:
    """Instructions of each stage, the first one its FROM; what stands before the first FROM is left out."""
    starts = [index for index, one in enumerate(instructions) if one.keyword == "FROM"]
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        yield instructions[start:end]


class Context:
    """The folder that an image is built from.

    Args:
        root: the folder; its ``.dockerignore`` is obeyed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        file = root / ".dockerignore"
        lines = file.read_text().splitlines() if file.is_file() else []
        self.patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    def holds(self, path: PurePosixPath) -> bool:
        """Whether a path, relative to the root, is sent to the builder: the last pattern that matches decides."""
        left_out = False
        ways = [path, *path.parents][:-1]  # a pattern that matches a folder matches what is in it
        for pattern in self.patterns:
            plain = pattern.removeprefix("!").rstrip("/")
            if any(_matches(way, plain) for way in ways):
                left_out = not pattern.startswith("!")
        return not left_out

    def files(self, source: str) -> list[Path]:
        """Files at or below a path that are sent, relative to the root."""
        start = self.root / source
        below = start.rglob("*") if start.is_dir() else [start]
        relative = [path.relative_to(self.root) for path in below if path.is_file()]
        return sorted(path for path in relative if self.holds(PurePosixPath(path.as_posix())))


def _matches(path: PurePosixPath, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return any(_matches(PurePosixPath(*path.parts[i:]), pattern[3:]) for i in range(len(path.parts)))
    wanted = PurePosixPath(pattern).parts
    return len(wanted) == len(path.parts) and all(map(fnmatchcase, path.parts, wanted))
