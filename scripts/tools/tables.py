"""Tables that list bundles in the README and in ``docs/``, made of what stands in the folders of the bundles.

A page has a table between two comments, the first of which names it:

    <!-- generated: bundles -->
    <!-- end of generated -->

Rows come from ``bundles/*/configs/metadata.json`` and ``bundles/*/docs/figures.json``. Links there are relative to the
folder of the bundle.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cellbundle.errors import ConfigError
from cellbundle.packages.build import LINK

END = "<!-- end of generated -->"
PART = re.compile(rf"(?P<start><!-- generated: (?P<name>[\w-]+) -->\n).*?(?={END})", re.S)
SHIPPED = "models/model.pt"
MAIN_DATA = "DSB2018"  # of the columns that compare all bundles
MAIN_SCORES = ("ap50", "mean_ap", "fluorescence_ap50")
NOT_MEASURED = "not measured"


class Bundle(NamedTuple):
    """A bundle's folder, metadata and measured figures."""

    root: Path
    metadata: Mapping[str, Any]
    figures: list[dict[str, Any]]

    def get(self, key: str) -> Any:
        """Value of a key of the metadata; raises ``ConfigError`` without it."""
        if key not in self.metadata:
            raise ConfigError(f"{self.root / 'configs' / 'metadata.json'} has no {key!r}, which a table needs")
        return self.metadata[key]


Row = tuple[str, ...]


class Table(NamedTuple):
    """Names of the columns, and a function from a bundle to its rows."""

    columns: Row
    rows: Callable[[Bundle], Iterator[Row]]


def overview(bundle: Bundle) -> Iterator[Row]:
    """Yield method, size, scores and licence."""
    main = next((figure for figure in bundle.figures if figure["data"] == MAIN_DATA), None)
    weights = bundle.get("weights")
    if main is not None and main["weights"] != SHIPPED:
        weights += f": figures of {main['weights']}"
    scores = [score(main, key) for key in MAIN_SCORES]
    other = [f for f in bundle.figures if f is not main]
    others = "; ".join(f"{f['data']}: {score(f, 'ap50')} / {score(f, 'mean_ap')}" for f in other)
    name = f"[{bundle.root.name}](docs/README.md)"
    license_ = bundle.metadata.get("license_summary") or bundle.get("license")
    yield name, bundle.get("method"), bundle.get("parameters"), weights, *scores, others, license_


def score(figure: Mapping[str, Any] | None, key: str) -> str:
    """Return a score as text."""
    value = (figure or {"scores": {}})["scores"].get(key)
    return NOT_MEASURED if value is None else f"{value:.3f}"


def choices(bundle: Bundle) -> Iterator[Row]:
    """Yield what the bundle is for, and how its packages are installed."""
    extras = ",".join(bundle.get("extras"))
    command = f'`pip install "cellbundle[{extras}]"`' if extras else ""
    for choice in bundle.get("choose"):
        yield choice["for"], f"`{bundle.root.name}`", choice["why"], command


def licences(bundle: Bundle) -> Iterator[Row]:
    """Yield the licences of code, weights and data."""
    for entry in bundle.get("licenses"):
        yield entry["what"], entry["license"], entry["terms"]


def third_party(bundle: Bundle) -> Iterator[Row]:
    """Yield the projects whose behaviour is matched."""
    for entry in bundle.get("third_party"):
        yield entry["part"], entry["behaviour"], entry["license"]


def excluded_checks(bundle: Bundle) -> Iterator[Row]:
    """Yield the checks of the Model Zoo that the bundle cannot pass."""
    for check, reason in bundle.metadata.get("excluded_checks", {}).items():
        yield bundle.root.name, f"`{check}`", reason


TABLES = {
    "bundles": Table(
        (
            "bundle",
            "method",
            "parameters",
            "weights",
            "AP@.5",
            "mean AP .5:.95",
            "AP@.5 fluorescence",
            "other images: AP@.5 / mean AP",
            "licence",
        ),
        overview,
    ),
    "choices": Table(("you have", "take", "why", "install"), choices),
    "licences": Table(("what", "licence", "what it asks of you"), licences),
    "third-party": Table(("part of cellbundle", "behaviour of", "licence"), third_party),
    "excluded-checks": Table(("bundle", "excluded", "why"), excluded_checks),
}


def read_bundles(repository: Path) -> list[Bundle]:
    """Return the bundles of a repository by name."""
    bundles = []
    for file in sorted((repository / "bundles").glob("*/configs/metadata.json")):
        root = file.parents[1]
        bundles.append(Bundle(root, _read_json(file), _read_json(root / "docs" / "figures.json")))
    return bundles


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error


def render_table(table: Table, bundles: list[Bundle], up: str) -> str:
    """Return a table as Markdown; ``up`` leads from the folder of the page to that of the repository."""
    lines = []
    for bundle in bundles:
        folder = f"{up}bundles/{bundle.root.name}/"
        for row in _rows(table, bundle):
            cells = (" ".join(cell.split()).replace("|", "\\|") for cell in row)
            lines.append(tuple(LINK.sub(lambda match, folder=folder: folder + match[1], cell) for cell in cells))
    head = f"| {' | '.join(table.columns)} |\n|{'---|' * len(table.columns)}\n"
    return head + "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in lines)


def _rows(table: Table, bundle: Bundle) -> list[Row]:
    try:
        return list(table.rows(bundle))
    except KeyError as error:
        raise ConfigError(
            f"{bundle.root}: an entry of its metadata or figures has no {error}, which a table needs"
        ) from error


def render(repository: Path) -> dict[Path, str]:
    """Return the new text of each page that has a generated table.

    Args:
        repository: its root; ``README.md`` and ``docs/*.md`` are read.

    Raises:
        ConfigError: for a table that is not known or has no end, and for metadata without a key that a table needs.
    """
    bundles, pages = read_bundles(repository), {}
    for page in (repository / "README.md", *sorted((repository / "docs").glob("*.md"))):
        up = "" if page.parent == repository else "../"

        def replace(match: re.Match[str], page: Path = page, up: str = up) -> str:
            if match["name"] not in TABLES:
                raise ConfigError(f"{page}: no table {match['name']!r}; choose one of {', '.join(TABLES)}")
            return match["start"] + render_table(TABLES[match["name"]], bundles, up)

        text = page.read_text(encoding="utf-8")
        new, n = PART.subn(replace, text)
        if n != text.count("<!-- generated:"):
            raise ConfigError(f"{page}: a generated table does not end with {END!r}")
        if n:
            pages[page] = new
    return pages
