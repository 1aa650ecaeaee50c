"""Make a folder and a zip archive of a bundle that run alone, without cellbundle installed.

python scripts/package_bundle.py NAME [--output dist]

OUTPUT/NAME gets the bundle, the core as scripts/cellbundle, the data lists and BUILD.json (versions, SHA-256 of every
file); OUTPUT/NAME_v<version>.zip holds the same. Both replace older packages only. Equal sources give equal archives.
"""

import argparse
import ast
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import cellbundle
from cellbundle.errors import CellBundleError, ConfigError
from cellbundle.install import added_files
from cellbundle.packages import PackageError, read_stamp

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = sorted(path.parent.name for path in (ROOT / "bundles").glob("*/configs"))
CORE = Path(cellbundle.__file__).resolve().parent
STAMP = "BUILD.json"
PARTS = ("LICENSE", "configs", "docs", "large_files.yml", "scripts")  # of a bundle; models/model.pt comes on top
REWRITTEN = {".json", ".md", ".py", ".yaml", ".yml"}
KINDS = REWRITTEN | {".conf", ".css", ".csv", ".html", ".jpg", ".js", ".png", ".svg", ".tif", ".txt", ".typed"}
MAX_WEIGHTS = 25_000_000  # bytes; the Model Zoo takes no larger files
REPOSITORY_URL = "https://github.com/cellbundle/cellbundle/blob/main"  # target of links to files outside of a package
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")  # relative target of a Markdown link, without its anchor
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold

RANDOM_WEIGHTS = """
import sys, torch
from monai.bundle import ConfigParser
sys.path.insert(0, ".")
torch.manual_seed(0)
parser = ConfigParser(ConfigParser.load_config_file("configs/inference.json"))
torch.save(parser.get_parsed_content("network_def").state_dict(), "models/model.pt")
"""

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


def find_bundle(name: str, repository: Path) -> tuple[Path, str]:
    """Folder and version of a bundle; raises ``ConfigError`` if there is none, ``CellBundleError`` for no version."""
    names = sorted(p.parent.name for p in (repository / "bundles").glob("*/configs"))
    if name not in names:
        raise ConfigError(f"there is no bundle {name!r} in {repository / 'bundles'}; choose one of: {', '.join(names)}")
    path = repository / "bundles" / name / "configs" / "metadata.json"
    try:
        version = str(json.loads(path.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CellBundleError(f"{path}: expected a JSON object with a 'version', got {error!r}") from error
    if not re.fullmatch(r"[\w.+-]+", version):
        raise CellBundleError(f"{path}: expected a version such as 0.1.0, got {version!r}")
    return path.parents[1], version


def tree(path: Path) -> Iterator[Path]:
    """A file itself, or all below a folder but caches and hidden files; raises ``CellBundleError`` for odd kinds."""
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        parts = file.relative_to(path).parts
        if not file.is_file() or any(part == "__pycache__" or part.startswith(".") for part in parts):
            continue
        if file.suffix not in KINDS and file.name != "LICENSE":
            raise CellBundleError(f"{file}: packages hold no {file.suffix!r} files; remove it, or add it to KINDS")
        yield file


def collect(bundle: Path, repository: Path) -> dict[str, bytes]:
    """All files of the package but the stamp: content by path."""
    sources = {f.relative_to(bundle).as_posix(): f for part in PARTS for f in tree(bundle / part)}
    sources |= {f"scripts/cellbundle/{f.relative_to(CORE).as_posix()}": f for f in tree(CORE)}
    rewritten = {path for path in sources if Path(path).suffix in REWRITTEN}
    lists = repository / "datalists"
    if any(lists.glob("*.json")):
        sources |= {f"datalists/{f.name}": f for f in lists.iterdir() if f.suffix in {".json", ".md"}}
    sources |= {f"docs/{f.name}": f for f in (repository / "docs").glob("THIRD_PARTY.md")}
    files = {path: f.read_bytes() for path, f in sources.items()}
    files |= {path: vendored(files[path].decode()).encode() for path in rewritten}
    for path in (path for path in files if path.endswith(".py")):
        check_imports(path, files[path])
    for path in (path for path in files if path.endswith(".md")):
        files[path] = relinked(files[path].decode(), path, sources, repository).encode()
    weights = bundle / "models" / "model.pt"
    if weights.is_file() and weights.stat().st_size <= MAX_WEIGHTS:
        files["models/model.pt"] = weights.read_bytes()
    elif weights.is_file():
        logger.warning("%s is left out: it has more than %d MB", weights, MAX_WEIGHTS // 10**6)
    return dict(sorted(files.items()))


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


def write_random_weights(root: Path, python: str | Path = sys.executable) -> None:
    """Write ``models/model.pt`` of a bundle that has none, for checks that need weights.

    Args:
        root: folder of the bundle.
        python: of the environment that runs the bundle.
    """
    (root / "models").mkdir(exist_ok=True)
    subprocess.run([str(python), "-c", RANDOM_WEIGHTS], cwd=root, check=True, stderr=subprocess.DEVNULL)


def write_zip(path: Path, folder: str, files: Mapping[str, bytes]) -> None:
    """Write an archive with one top folder, equal bytes for equal files."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(f"{folder}/{name}", EPOCH)
            info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
            archive.writestr(info, content)


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


def package(name: str, output: Path, repository: Path = ROOT) -> Path:
    """Write OUTPUT/NAME and its archive; returns the archive. An error leaves an older package as it was."""
    (bundle, version), target = find_bundle(name, repository), output / name
    old_archive = output / f"{name}_v{version}.zip"
    check_replaced(target, old_archive)
    files = collect(bundle, repository)
    hashes = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    stamp = {"name": name, "version": version, "core_version": cellbundle.__version__, "files": hashes}
    files[STAMP] = (json.dumps(stamp, indent=1) + "\n").encode()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".package-", dir=output) as temporary:
        new, old, archive = (Path(temporary) / part for part in ("new", "old", "zip"))
        for path, content in files.items():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_bytes(content)
        write_zip(archive, name, files)
        if target.exists():
            target.rename(old)
        new.rename(target)
        return archive.replace(old_archive)


def main(arguments: list[str] | None = None) -> None:
    """Command line; exits with 2 after wrong usage and with 1 after other errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", help="a folder in bundles/")
    parser.add_argument("--output", type=Path, default=Path("dist"), help="folder of the packages (default: dist)")
    options = parser.parse_args(arguments)
    try:
        print(package(options.name, options.output))
    except CellBundleError as error:
        parser.exit(2 if isinstance(error, ConfigError) else 1, f"error: {error}\n")


if __name__ == "__main__":
    main()
