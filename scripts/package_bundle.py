"""Make a folder and a zip archive of a bundle that run alone, without cellbundle installed.

python scripts/package_bundle.py NAME [--output dist]

OUTPUT/NAME gets the bundle, the core as scripts/cellbundle, the data lists and BUILD.json (versions, SHA-256 of every
file); OUTPUT/NAME_v<version>.zip holds the same. Both replace older packages only. Equal sources give equal archives.
"""

import argparse
import logging
import subprocess
import sys
from pathlib import Path

from cellbundle.errors import CellBundleError, ConfigError
from cellbundle.packages import build
from cellbundle.record import OWN_WEIGHTS

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
CORE = build.CORE
MAX_WEIGHTS = 25_000_000  # bytes; the Model Zoo takes no larger files

RANDOM_WEIGHTS = """
import sys, torch
from monai.bundle import ConfigParser
sys.path.insert(0, ".")
torch.manual_seed(0)
parser = ConfigParser(ConfigParser.load_config_file("configs/inference.json"))
torch.save(parser.get_parsed_content("network_def").state_dict(), "models/model.pt")
"""


def bundle_names(repository: Path) -> list[str]:
    """Names of the bundles of a repository: the folders that have metadata."""
    return sorted(path.parts[-3] for path in (repository / "bundles").glob("*/configs/metadata.json"))


BUNDLES = bundle_names(ROOT)


def find_bundle(name: str, repository: Path) -> tuple[Path, str]:
    """Folder and version of a bundle; raises ``ConfigError`` if there is none, ``CellBundleError`` for no version."""
    names = bundle_names(repository)
    if name not in names:
        raise ConfigError(f"there is no bundle {name!r} in {repository / 'bundles'}; choose one of: {', '.join(names)}")
    bundle = repository / "bundles" / name
    return bundle, build.read_version(bundle)


def write_random_weights(root: Path, python: str | Path = sys.executable) -> None:
    """Write ``models/model.pt`` of a bundle that has none, for checks that need weights.

    Args:
        root: folder of the bundle.
        python: of the environment that runs the bundle.

    Raises:
        CellBundleError: the weights could not be written.
    """
    (root / "models").mkdir(exist_ok=True)
    done = subprocess.run([str(python), "-c", RANDOM_WEIGHTS], cwd=root, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise CellBundleError(f"{root.name}: no random weights could be written: {reason[0]}")


def collect(bundle: Path, repository: Path) -> dict[str, bytes]:
    """All files of the package but the stamp: content by path."""
    files = build.collect(bundle, repository, CORE)
    weights = bundle / OWN_WEIGHTS
    if weights.is_file() and weights.stat().st_size <= MAX_WEIGHTS:
        files |= build.weight_contents(weights)
    elif weights.is_file():
        logger.warning("%s is left out: it has more than %d MB", weights, MAX_WEIGHTS // 10**6)
    return files


def package(name: str, output: Path, repository: Path = ROOT) -> Path:
    """Write OUTPUT/NAME and its archive; returns the archive. An error leaves an older package as it was."""
    bundle, version = find_bundle(name, repository)
    archive = output / f"{name}_v{version}.zip"
    return build.write_package(output / name, archive, version, collect(bundle, repository))


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
