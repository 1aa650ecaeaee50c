"""Write packages of bundles: a folder and a zip archive of the same files, which run without cellbundle installed.

The core becomes ``scripts/cellbundle`` of the bundle. ``BUILD.json`` has the versions and the SHA-256 of every file.
"""

import ast
import hashlib
import json
import math
import os
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from ..bundles import make_importable, warn_of_version_conflict
from ..engine.configs.bases import HYPER_PARAMETERS
from ..engine.configs.show import config_text
from ..errors import CellBundleError
from ..record import METADATA, OWN_WEIGHTS, read_record
from ..version import __version__
from .archive import STAMP, PackageError, read_stamp
from .files import bundle_files, core_files, weight_files
from .install import added_files, replace_folder

CORE = Path(__file__).resolve().parents[1]
REWRITTEN = {".json", ".md", ".py", ".yaml", ".yml"}
KINDS = REWRITTEN | {".conf", ".css", ".csv", ".html", ".jpg", ".js", ".png", ".svg", ".tif", ".txt", ".typed"}
REPOSITORY_URL = "https://github.com/cellbundle/cellbundle/blob/main"  # target of links to files outside of a package
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")  # relative target of a Markdown link, without its anchor
VERSION = re.compile(r"[\w.+-]+")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold

_MODULES = "|".join(sorted(p.stem for p in CORE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()))
_IMPORT = r"((?:^|\$)[ \t]*(?:>>> )?)import[ \t]+cellbundle"  # starts a line or a configuration's expression
RULES = [  # imports keep the name that the rest of the file uses
    (re.compile(r"\bfrom([ \t]+)cellbundle(?=(?:\.\w+)*[ \t]+import\b)"), r"from\1scripts.cellbundle"),
    (re.compile(_IMPORT + r"(?=(?:\.\w+)*[ \t]+as\b)", re.M), r"\1import scripts.cellbundle"),
    (re.compile(_IMPORT + r"\b((?:\.\w+)*)", re.M), r"\1import scripts.cellbundle as cellbundle, scripts.cellbundle\2"),
    (re.compile(r"""(_target_["']?[\s:=]+["']?)cellbundle(?=\.)"""), r"\1scripts.cellbundle"),
    (re.compile(rf"""(?<=["'])cellbundle(?=\.(?:{_MODULES})(?:\.\w+)*\\?["'])"""), "scripts.cellbundle"),
]
ODD_IMPORT = re.compile(r"(from|import|import .*,) cellbundle\b")  # what the rules left


def vendored(text: str) -> str:
    """The text with imports, ``_target_`` and quoted dotted names of the core leading to ``scripts.cellbundle``."""
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    return text


def read_version(bundle: Path) -> str:
    """Version of a bundle; raises ``CellBundleError`` if its metadata have none that can be part of a file name."""
    path = bundle / METADATA
    try:
        version = str(json.loads(path.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CellBundleError(f"{path}: expected a JSON object with a 'version', got {error!r}") from error
    if not VERSION.fullmatch(version):
        raise CellBundleError(f"{path}: expected a version such as 0.1.0, got {version!r}")
    return version


def weight_contents(weights: Path) -> dict[str, bytes]:
    """Content of ``weight_files``; ``run.yaml`` names the core in the package.

    Raises:
        CheckpointError: if ``run.yaml`` is damaged.
    """
    files = {OWN_WEIGHTS: weights.read_bytes()}
    for path in weight_files(weights).keys() - files.keys():
        record = yaml.safe_dump(read_record(weights.parent), sort_keys=False, width=math.inf)
        files[path] = vendored(record).encode()
    return files


def collect(bundle: Path, repository: Path | None = None, core: Path = CORE) -> dict[str, bytes]:
    """Files of a package but the weights and the stamp.

    Args:
        bundle: its folder. A package is taken as it is, with the core that it has.
        repository: root of the repository that the bundle is part of; its datalists go along, and links to its other
            pages lead to the web. None leaves links as they are.
        core: folder of the core.

    Returns:
        Content by path.

    Raises:
        CellBundleError: for a file of another kind, an import that cannot be rewritten, or a link without a target.
    """
    if (bundle / STAMP).is_file():
        names = [name for name in read_stamp(bundle).files if not name.startswith("models/")]
        return {name: (bundle / name).read_bytes() for name in names}
    sources = bundle_files(bundle)
    sources |= {f"scripts/cellbundle/{path}": file for path, file in core_files(core).items()}
    for file in sources.values():
        if file.suffix not in KINDS and file.name != "LICENSE":
            raise CellBundleError(f"{file}: packages hold no {file.suffix!r} files; remove it, or add it to KINDS")
    rewritten = {path for path in sources if Path(path).suffix in REWRITTEN}
    if repository is not None:
        sources |= _repository_files(repository)
    files = {path: file.read_bytes() for path, file in sources.items()}
    if (own := f"configs/{HYPER_PARAMETERS}") in files:
        files[own] = _flat_config(bundle).encode()
    files |= {path: vendored(files[path].decode()).encode() for path in rewritten}
    for path in (path for path in files if path.endswith(".py")):
        check_imports(path, files[path])
    if repository is not None:
        pages = [path for path in files if path.endswith(".md")]
        files |= {path: relinked(files[path].decode(), path, sources, repository).encode() for path in pages}
    return files


def _flat_config(bundle: Path) -> str:
    """A bundle's configuration with its bases, as one file."""
    warn_of_version_conflict(bundle)
    make_importable(bundle.resolve())  # classes of the bundle's own must be found
    return config_text(bundle / "configs" / HYPER_PARAMETERS, origins=False)


def _repository_files(repository: Path) -> dict[str, Path]:
    """The datalists of the repository and its page about third parties, by their paths in a package."""
    lists = repository / "datalists"
    files = {f"docs/{file.name}": file for file in (repository / "docs").glob("THIRD_PARTY.md")}
    if any(lists.glob("*.json")):
        files |= {f"datalists/{file.name}": file for file in lists.iterdir() if file.suffix in {".json", ".md"}}
    return files


def relinked(text: str, path: str, sources: Mapping[str, Path], repository: Path) -> str:
    """Return a Markdown page whose relative links point to files of the package, or to the repository on the web.

    Args:
        text: the page.
        path: of the page in the package.
        sources: file in the repository of each path in the package.
        repository: its root.

    Raises:
        CellBundleError: for a link to a file that does not exist.
    """
    packaged = {file.resolve(): name for name, file in sources.items()}

    def target(match: re.Match[str]) -> str:
        """Target of the same link in the package."""
        file = (sources[path].parent / match[1]).resolve()
        if not file.exists() or not file.is_relative_to(repository.resolve()):
            raise CellBundleError(
                f"{sources[path]}: the target of the link {match[1]} does not exist; correct or remove the link"
            )
        if file in packaged:
            return os.path.relpath(packaged[file], Path(path).parent)
        return f"{REPOSITORY_URL}/{file.relative_to(repository.resolve()).as_posix()}"

    return LINK.sub(target, text)


def check_imports(path: str, content: bytes) -> None:
    """Raise ``CellBundleError`` for an import of the core that ``vendored`` does not know."""
    for node in ast.walk(ast.parse(content, path)):
        if isinstance(node, ast.Import | ast.ImportFrom) and ODD_IMPORT.match(ast.unparse(node)):
            raise CellBundleError(f"{path}, line {node.lineno}: write 'from cellbundle.x import y' on its own line")


def check_replaced(folder: Path, archive: Path) -> None:
    """Raise ``CellBundleError`` if a folder or an archive would be replaced that is not, or not only, a package."""
    if os.path.lexists(folder):
        try:
            added = added_files(folder, read_stamp(folder))
        except PackageError as error:
            raise CellBundleError(
                f"{folder} exists and has no {STAMP}, or a damaged one, so it is no package; choose another --output"
            ) from error
        if added:
            raise CellBundleError(
                f"{folder} holds files that are not of the package and would be lost: {', '.join(added)}; move them "
                "elsewhere, or choose another --output"
            )
    if os.path.lexists(archive) and not is_package(archive, folder.name):
        raise CellBundleError(f"{archive} exists and is no package; choose another --output")


def is_package(archive: Path, name: str) -> bool:
    """Return whether a file is an archive of ``write_zip`` with a stamp."""
    try:
        with zipfile.ZipFile(archive) as file:
            return f"{name}/{STAMP}" in file.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def write_package(folder: Path, archive: Path, version: str, files: Mapping[str, bytes], core: str = "") -> Path:
    """Write a package and its archive in one folder. An error leaves an older package as it was.

    Args:
        folder: of the package; its name is that of the bundle.
        archive: beside it.
        version: of the bundle.
        files: content by path, without the stamp.
        core: version of the core in the package; by default of this one.

    Returns:
        The archive.

    Raises:
        CellBundleError: if something would be replaced that is no package.
    """
    check_replaced(folder, archive)
    files = dict(sorted(files.items()))
    hashes = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    stamp = {"name": folder.name, "version": version, "core_version": core or __version__, "files": hashes}
    files[STAMP] = (json.dumps(stamp, indent=1) + "\n").encode()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".package-", dir=folder.parent) as temporary:
        new, old, new_archive = (Path(temporary) / part for part in ("new", "old", "zip"))
        for path, content in files.items():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_bytes(content)
        write_zip(new_archive, folder.name, files)
        replace_folder(new, folder, old)
        return new_archive.replace(archive)


def write_zip(path: Path, folder: str, files: Mapping[str, bytes]) -> None:
    """Write an archive with one top folder, equal bytes for equal files."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(f"{folder}/{name}", EPOCH)
            info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
            archive.writestr(info, content)
