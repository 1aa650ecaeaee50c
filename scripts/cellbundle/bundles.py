"""Where bundles are, and how one is loaded into a process that may hold another."""

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, original_errors
from .record import METADATA, OWN_WEIGHTS, apply_settings, settings_of
from .version import __version__

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

logger = logging.getLogger(__name__)

SEARCH_VARIABLE = "CELLBUNDLE_BUNDLES"  # folders of bundles, separated as in PATH
DATA_VARIABLE = "XDG_DATA_HOME"  # the user's folder of application data; by default ~/.local/share
CORE = Path(__file__).resolve().parent
REPOSITORY_BUNDLES = CORE.parents[1] / "bundles"  # of an editable install, missing in others
WHEEL_BUNDLES = CORE / "_bundles"  # setup.py puts them there; missing in an editable install
INFERENCE = "configs/inference.json"
VERSION = re.compile(r"^__version__ = [\"'](.+)[\"']", re.MULTILINE)
PACKAGE = "scripts"  # every bundle's code has this name, so only one bundle's can be imported at a time

_kept: dict[tuple[Path, ...], dict[str, ModuleType]] = {}  # modules of the other bundles, by folder of their package
_running: list[Path] = []  # root of the bundle of each thread that runs code of a bundle
_turns = threading.Condition()
_thread = threading.local()


@dataclass(frozen=True)
class BundleInfo:
    """What a list of bundles shows.

    Attributes:
        name: of its folder.
        path: its folder.
        version: of its metadata.
        description: of its metadata.
        weights: the file that inference reads, or None if it is not there.
        source: which of ``search_folders()`` it is in: CELLBUNDLE_BUNDLES, installed, checkout, wheel; else path.
    """

    name: str
    path: Path
    version: str
    description: str
    weights: Path | None
    source: str = "path"


def search_folders() -> list[Path]:
    """Folders that bundles are looked up in by name, first match first."""
    return [folder for _, folder in _sources()]


def _sources() -> list[tuple[str, Path]]:
    """Name and folder of each place that bundles are looked up in."""
    own = [("checkout", REPOSITORY_BUNDLES), ("wheel", WHEEL_BUNDLES)]
    return [
        *((SEARCH_VARIABLE, folder) for folder in _given_folders()),
        ("installed", _user_folder()),
        *((source, folder) for source, folder in own if folder.is_dir()),
    ]


def install_folder() -> Path:
    """Folder that bundles are installed in: the first of ``$CELLBUNDLE_BUNDLES``, else one of the user."""
    return [*_given_folders(), _user_folder()][0].absolute()


def _given_folders() -> list[Path]:
    return [Path(p) for p in os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep) if p]


def _user_folder() -> Path:
    data = Path(os.environ.get(DATA_VARIABLE, ""))
    return (data if data.is_absolute() else Path.home() / ".local" / "share") / "cellbundle" / "bundles"


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
    weights = root / OWN_WEIGHTS
    file = root / METADATA
    try:
        metadata = json.loads(file.read_text())
        version, description = str(metadata["version"]), str(metadata["description"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        version, description = "?", f"damaged: {file} cannot be used ({type(error).__name__}: {error})"
    folder = root.resolve().parent
    source = next((source for source, place in _sources() if place.resolve() == folder), "path")
    return BundleInfo(root.name, root, version, description, weights if weights.is_file() else None, source)


def in_wheel(root: str | Path) -> bool:
    """Return whether a bundle is part of an installed wheel, where nothing may be written."""
    return Path(root).resolve().parent.parts[-2:] == ("cellbundle", WHEEL_BUNDLES.name)


def results_root(bundle_root: str | Path) -> str:
    """Return the folder below which a bundle writes its results by default.

    Args:
        bundle_root: folder of the bundle.

    Returns:
        The same folder, or ``"."``, the working directory, if the bundle is part of an installed wheel or cannot be
        written to.
    """
    read_only = Path(bundle_root).is_dir() and not os.access(bundle_root, os.W_OK)
    return "." if in_wheel(bundle_root) or read_only else str(bundle_root)


def version_conflict(root: Path) -> str:
    """Return a sentence about a bundle that belongs to another version of cellbundle than this one, or ``""``.

    A bundle in a checkout or a wheel belongs to the core there; a package runs its own.
    """
    core = root.resolve().parent.parent / ("" if in_wheel(root) else "scripts/cellbundle")
    if (root / PACKAGE / "cellbundle").is_dir():
        return ""
    try:
        found = VERSION.search((core / "version.py").read_text(encoding="utf-8"))
    except OSError:
        return ""
    if found is None or found[1] == __version__:
        return ""
    install = "" if in_wheel(root) else f", or install that version: pip install -e {core.parents[1]}"
    return (
        f"the bundle {root.resolve()} belongs to cellbundle {found[1]} ({core}), but cellbundle {__version__} ({CORE}) "
        f"runs it; use a bundle of this version (cellbundle list){install}"
    )


@lru_cache
def warn_of_version_conflict(root: Path) -> None:
    """Log ``version_conflict`` of a bundle, once."""
    if conflict := version_conflict(root):
        logger.warning("%s", conflict)


def make_importable(root: Path) -> None:
    """Make a bundle's own package ``scripts`` the one that is imported.

    The modules of the bundle that was current are kept. They come back, the same objects, when that bundle is made
    importable again, so that an import inside one of its functions never finds the modules of another bundle.

    Args:
        root: folder of the bundle, absolute.
    """
    wanted = str(root / PACKAGE)
    paths = list(getattr(sys.modules.get(PACKAGE), "__path__", []))
    if paths != [wanted]:
        _change_modules(tuple(Path(path).resolve() for path in paths), (Path(wanted).resolve(),))
    if sys.path[:1] != [str(root)]:
        sys.path[:] = [str(root), *(p for p in sys.path if p != str(root))]


def _change_modules(old: tuple[Path, ...], new: tuple[Path, ...]) -> None:
    """Keep the modules of the package ``scripts`` in ``old``, and bring back those of ``new``; both are its folders."""
    if old == new:
        return
    names = [name for name in list(sys.modules) if name == PACKAGE or name.startswith(f"{PACKAGE}.")]
    if modules := {name: sys.modules.pop(name) for name in names}:
        _kept[old] = modules
    sys.modules.update(_kept.pop(new, {}))


@contextmanager
def bundle_code(root: Path) -> Iterator[None]:
    """Run code of a bundle: its modules are current, and its errors are raised as those of this package.

    Threads may run code of one bundle at the same time; those of another bundle wait for them. The bundle stays current
    afterwards, unless code of another bundle is running this one.

    Args:
        root: folder of the bundle, absolute.
    """
    outer: Path | None = getattr(_thread, "root", None)
    with _turns:
        _turns.wait_for(lambda: outer is not None or all(other == root for other in _running))
        make_importable(root)
        _running.append(root)
    _thread.root = root
    try:
        with original_errors():
            yield
    finally:
        _thread.root = outer
        with _turns:
            _running.remove(root)
            if outer is not None:
                make_importable(outer)
            _turns.notify_all()


def inference_parser(root: Path, overrides: dict[str, Any]) -> "ConfigParser":
    """Parser of a bundle's ``inference.json`` whose contents can be built.

    The bundle's own package ``scripts`` becomes importable, see ``make_importable``. Network, normaliser, decoder and
    tiles are those that the weights were trained with, if a ``run.yaml`` beside them says so.

    Args:
        root: folder of the bundle.
        overrides: values by id.

    Raises:
        ConfigError: for an id that the configuration does not have.
        CheckpointError: if the weights are another bundle's.
    """
    from monai.bundle import ConfigParser  # noqa: PLC0415  (takes seconds)

    warn_of_version_conflict(root)
    make_importable(root)
    parser = ConfigParser(ConfigParser.load_config_file(root / INFERENCE))
    weights = overrides.get("weights", root / OWN_WEIGHTS)
    apply_settings(parser, settings_of(weights, root) or {})
    for key, value in {"bundle_root": str(root), **overrides}.items():
        if key.split("#")[0] not in parser.get():
            raise ConfigError(f"bundle {root.name} has no option {key!r} in {INFERENCE}")
        parser[key] = value
    return parser
