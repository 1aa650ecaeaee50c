"""Where bundles are, and how one is loaded into a process that may hold another."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from .errors import ConfigError

SEARCH_VARIABLE = "CELLBUNDLE_BUNDLES"  # folders of bundles, separated as in PATH
REPOSITORY_BUNDLES = Path(__file__).resolve().parents[2] / "bundles"  # of the editable install
INFERENCE = "configs/inference.json"
PACKAGE = "scripts"  # every bundle's code has this name, so only one bundle's can be imported at a time


@dataclass(frozen=True)
class BundleInfo:
    """What a list of bundles shows.

    Attributes:
        name: of its folder.
        path: its folder.
        version: of its metadata.
        description: of its metadata.
        weights: the file that inference reads, or None if it is not there.
    """

    name: str
    path: Path
    version: str
    description: str
    weights: Path | None


def search_folders() -> list[Path]:
    """Folders that bundles are looked up in by name, first match first."""
    given = [Path(p) for p in os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep) if p]
    return [*given, REPOSITORY_BUNDLES]


def find_bundle(name: str | Path) -> Path:
    """Folder of a bundle: ``name`` is a path, or the name of a folder in one of ``search_folders()``.

    Raises:
        ConfigError: if there is none; the message names those there are.
    """
    for candidate in [Path(name), *(folder / name for folder in search_folders())]:
        if (candidate / INFERENCE).is_file():
            return candidate.resolve()
    names = ", ".join(info.name for info in list_bundles()) or "none"
    raise ConfigError(
        f"no bundle {str(name)!r}; give the path of a folder with {INFERENCE}, or one of these names: {names} "
        f"(looked in {', '.join(map(str, search_folders()))}; set {SEARCH_VARIABLE} for more)"
    )


def list_bundles() -> list[BundleInfo]:
    """All bundles of ``search_folders()`` by name; the first of one name hides the others."""
    found: dict[str, BundleInfo] = {}
    for folder in search_folders():
        for config in sorted(folder.glob(f"*/{INFERENCE}")):
            root = config.parents[1]
            found.setdefault(root.name, describe_bundle(root))
    return [found[name] for name in sorted(found)]


def describe_bundle(root: Path) -> BundleInfo:
    """What ``configs/metadata.json`` and the folder say."""
    weights = root / "models" / "model.pt"
    file = root / "configs" / "metadata.json"
    try:
        metadata = json.loads(file.read_text())
        version, description = str(metadata["version"]), str(metadata["description"])
    except (OSError, ValueError, KeyError) as error:
        version, description = "?", f"damaged: {file} cannot be used ({type(error).__name__}: {error})"
    return BundleInfo(root.name, root, version, description, weights if weights.is_file() else None)


def make_importable(root: Path) -> None:
    """Make a bundle's own package ``scripts`` importable; that of another bundle is forgotten.

    Objects made from the other one live on.

    Args:
        root: folder of the bundle, absolute.
    """
    loaded = [Path(path).resolve() for path in getattr(sys.modules.get(PACKAGE), "__path__", [])]
    if loaded != [root / PACKAGE]:
        for name in [n for n in sys.modules if n == PACKAGE or n.startswith(f"{PACKAGE}.")]:
            del sys.modules[name]
    sys.path[:] = [str(root), *(p for p in sys.path if p != str(root))]


def inference_parser(root: Path, overrides: dict[str, Any]) -> ConfigParser:
    """Parser of a bundle's ``inference.json`` whose contents can be built.

    The bundle's own package ``scripts`` becomes importable, see ``make_importable``.

    Args:
        root: folder of the bundle.
        overrides: values by id.

    Raises:
        ConfigError: for an id that the configuration does not have.
    """
    make_importable(root)
    parser = ConfigParser(ConfigParser.load_config_file(root / INFERENCE))
    for key, value in {"bundle_root": str(root), **overrides}.items():
        if key.split("#")[0] not in parser.get():
            raise ConfigError(f"bundle {root.name} has no option {key!r} in {INFERENCE}")
        parser[key] = value
    return parser
