"""What is known about a data set without having it: source, licence, layout, counts; read from ``sets/NAME.yaml``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ..errors import DatasetError

FOLDER = Path(__file__).parent / "sets"


@dataclass(frozen=True)
class File:
    """A file that a data set is published as.

    Attributes:
        name: as published.
        url: where it can be fetched without a login, or None.
        sha256: in hexadecimal digits, or None where it is not known.
        optional: whether the data set can be prepared without it.
    """

    name: str
    url: str | None = None
    sha256: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class Variant:
    """One form in which a data set is published.

    Attributes:
        about: a sentence.
        signature: patterns of ``Tree.glob``; files that match every one of them are of this variant.
        files: what to download.
        counts: published number of images by section; what is not published is not there.
    """

    about: str
    signature: tuple[str, ...]
    files: tuple[File, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Option:
    """A choice of the user: its default, whose type it has, and a sentence about it."""

    default: Any
    about: str


@dataclass(frozen=True)
class Facts:
    """A data set.

    Attributes:
        name: as on the command line.
        title: as people call it.
        about: one or two sentences: what is imaged, how it is labelled.
        page: where it is described and, with a login, downloaded.
        licence: name of the licence, or "unclear".
        redistribution: whether converted files may be passed on, in a sentence.
        citation: authors, title, journal, year.
        login: what is needed before downloading (account, e-mail, rules), or "none".
        layout: what the folder of published files holds, in words.
        variants: forms in which it is published; the first whose signature fits is taken.
        options: choices that this data set has beside those of all.
        test_share: share of the images that is held out for testing where no split is published, 0..1.
        notes: what a user should know about the data; a sentence each.
        excluded: name of an item to the reason why it is left out: published defects.
    """

    name: str
    title: str
    about: str
    page: str
    licence: str
    redistribution: str
    citation: str
    login: str
    layout: str
    variants: Mapping[str, Variant]
    options: Mapping[str, Option] = field(default_factory=dict)
    test_share: float = 0.0
    notes: tuple[str, ...] = ()
    excluded: Mapping[str, str] = field(default_factory=dict)


def names() -> list[str]:
    """Names of all data sets, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_facts(name: str) -> Facts:
    """Facts of a data set.

    Raises:
        DatasetError: if there is no such data set; the message suggests the nearest names.
    """
    if name not in names():
        near = get_close_matches(name, names(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names())}"
        raise DatasetError(f"there is no data set {name!r}; {hint}")
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    known = {one.name for one in fields(Facts)} - {"name"}
    if not set(content) <= known:
        raise DatasetError(f"{name}.yaml has the keys {sorted(set(content) - known)}; expected some of {sorted(known)}")
    content["variants"] = {key: _variant(value) for key, value in content["variants"].items()}
    content["options"] = {key: Option(**value) for key, value in content.get("options", {}).items()}
    content["notes"] = tuple(content.get("notes", ()))
    return Facts(name=name, **content)


def _variant(content: dict[str, Any]) -> Variant:
    files = tuple(File(**file) for file in content.pop("files", ()))
    return Variant(files=files, **content | {"signature": tuple(content["signature"])})
