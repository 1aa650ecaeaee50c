"""Files of a bundle that are passed on, in packages, wheels and MLflow models.

The build of a wheel imports this module, so it needs the standard library only.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from ..bundles import WHEEL_BUNDLES
from ..record import METADATA, OWN_WEIGHTS, RECORD

PARTS = ("LICENSE", "configs", "docs", "large_files.yml", "scripts")  # of a bundle; the weights come on top


def tree(path: Path) -> Iterator[Path]:
    """A file itself, or all below a folder but caches and hidden files."""
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        parts = file.relative_to(path).parts
        if file.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in parts):
            yield file


def bundle_files(bundle: Path) -> dict[str, Path]:
    """Files of a bundle but its weights and what it wrote, by their paths in it."""
    return {file.relative_to(bundle).as_posix(): file for part in PARTS for file in tree(bundle / part)}


def core_files(core: Path) -> dict[str, Path]:
    """Files of the core but the bundles in it, which an installed wheel has, by their paths in it."""
    paths = {file.relative_to(core): file for file in tree(core)}
    return {path.as_posix(): file for path, file in paths.items() if path.parts[0] != WHEEL_BUNDLES.name}


def weight_files(weights: Path) -> dict[str, Path]:
    """Weights and the ``run.yaml`` beside them, if there is one, by their paths in a bundle."""
    record = weights.with_name(RECORD)
    own = Path(OWN_WEIGHTS)
    return {OWN_WEIGHTS: weights} | ({own.with_name(RECORD).as_posix(): record} if record.is_file() else {})


def files_under_license(bundles: Path, license_: str) -> dict[str, Path]:
    """Files of the bundles in a folder that may be distributed under one licence.

    Bundles and weights whose metadata name another licence, or none, are left out.

    Args:
        bundles: folder of bundles.
        license_: SPDX expression, compared with ``license`` and ``weights_license`` of ``configs/metadata.json``.

    Returns:
        Files by their paths in ``bundles``.
    """
    found: dict[str, Path] = {}
    for file in sorted(bundles.glob(f"*/{METADATA}")):
        bundle = file.parents[1]
        metadata = json.loads(file.read_text(encoding="utf-8"))
        if metadata.get("license") != license_:
            continue
        files = bundle_files(bundle)
        if metadata.get("weights_license") == license_ and (bundle / OWN_WEIGHTS).is_file():
            files |= weight_files(bundle / OWN_WEIGHTS)
        found |= {f"{bundle.name}/{path}": source for path, source in files.items()}
    return found
