"""Make the checks of MONAI's Model Zoo for a bundle, on its folder and on its packaged archive; one line each.

python scripts/verify_bundle.py NAME [NAME ...] | --all

The folder is checked with the core of this repository, the archive alone. Checks that a bundle cannot pass are listed
with the reason under excluded_checks in its metadata.json and printed as excluded. Exits with 1 if a check fails. Needs
the extra test, and that of the bundle.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jsonschema
import yaml

from cellbundle.packages.build import LINK
from cellbundle.packages.files import PARTS
from cellbundle.synthetic import write_dataset
from package_bundle import BUNDLES, MAX_WEIGHTS, ROOT, package, write_random_weights

TOOLS = ROOT / "scripts" / "tools"
SCHEMA = TOOLS / "meta_schema_20240725.json"
REQUIRED_FILES = (
    "LICENSE",
    "configs/metadata.json",
    "configs/inference.json",
    "docs/README.md",
    "docs/data_license.txt",
)
# fmt: off
REQUIRED_KEYS = (
    "schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task",
    "description", "authors", "copyright", "network_data_format", "changelog", "name", "supported_apps",
    "intended_use", "references",
)
TENSOR_KEYS = (
    "type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def",
)
# fmt: on
LARGE_FILE_KEYS = {"path", "url", "hash_val", "hash_type"}
EXACT = re.compile(r"\d+(\.\d+)*")
BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "cellbundle":
            raise ImportError("cellbundle is blocked")

sys.meta_path.insert(0, Block())
"""


class Result(NamedTuple):
    """Result of a check of a bundle's folder or archive; ``status`` is ok, excluded or FAILED."""

    bundle: str
    form: str
    check: str
    status: str
    detail: str


class VerificationError(Exception):
    """A check failed; the message says what was got and what was expected."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 if no check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", metavar="NAME", help=", ".join(BUNDLES))
    parser.add_argument("--all", action="store_true", help="every bundle of the repository")
    options = parser.parse_args(arguments)
    names = BUNDLES if options.all else options.bundles
    unknown = sorted(set(names) - set(BUNDLES))
    if unknown or not names:
        wrong = f"unknown bundles: {', '.join(unknown)}" if unknown else "no bundle is given"
        parser.error(f"{wrong}; give --all, or some of {', '.join(BUNDLES)}")
    failed = 0
    for result in (result for name in names for result in verify(name)):
        print(f"{result.bundle:<10} {result.form:<8} {result.check:<40} {result.status:<9}{result.detail}", flush=True)
        failed += result.status == "FAILED"
    print(f"{failed} checks failed" if failed else "all checks passed")
    return 1 if failed else 0


def verify(name: str) -> Iterator[Result]:
    """Yield the results for a bundle, of its folder and then of its archive."""
    with tempfile.TemporaryDirectory(prefix="verify-") as temporary:
        work = Path(temporary)
        datalist = write_dataset(work / "data", n_training=4, n_testing=1, size=(64, 96), seed=0)
        folder = copy_folder(ROOT / "bundles" / name, work / "folder" / name)
        archive = package(name, work / "dist")
        shutil.unpack_archive(archive, work / "archive")
        (work / "block").mkdir()
        (work / "block" / "sitecustomize.py").write_text(BLOCK)
        forms = {"folder": (folder, None), "archive": (work / "archive" / name, work / "block")}
        weights = folder / "models" / "model.pt"
        if not weights.is_file():  # one file for both: it may have more than a gigabyte
            weights = copy_folder(ROOT / "bundles" / name, work / "weights" / name) / "models" / "model.pt"
            write_random_weights(work / "weights" / name)
        for form, (root, block) in forms.items():
            yield from (Result(name, form, *result) for result in verify_folder(root, block, datalist, weights))


def copy_folder(bundle: Path, target: Path) -> Path:
    """Copy what belongs to a bundle: nothing is written into the repository."""
    target.mkdir(parents=True)
    for part in (*PARTS, "models/model.pt"):
        source = bundle / part
        (target / part).parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copyfile(source, target / part)
    return target


def verify_folder(
    root: Path, block: Path | None, datalist: Path, weights: Path | None = None
) -> Iterator[tuple[str, str, str]]:
    """Yield check, status and detail for a folder that holds a bundle.

    Args:
        root: the folder.
        block: folder on Python's path that makes importing cellbundle fail; None where it may be imported.
        datalist: a small data set.
        weights: what the folder gets for the checks that run the bundle, if it has none.
    """
    metadata = read_metadata(root)
    excluded: dict[str, str] = metadata.get("excluded_checks", {})
    static: dict[str, Callable[[], str]] = {
        "files": lambda: check_files(root),
        "weights": lambda: check_weights(root),
        "large_files.yml": lambda: check_large_files(root),
        "sizes": lambda: check_sizes(root),
        "schema and keys": lambda: check_keys(metadata),
        "version and changelog": lambda: check_version(metadata, root.name),
        "exact versions": lambda: check_exact(metadata),
        "network_data_format": lambda: check_format(metadata.get("network_data_format", {})),
        "links of Markdown pages": lambda: check_links(root),
    }
    for check, function in static.items():
        try:
            status, detail = "ok", function()
        except Exception as error:  # noqa: BLE001  (any error of a check is its result)
            status, detail = "FAILED", str(error) if isinstance(error, VerificationError) else repr(error)
        if status == "FAILED" and check in excluded:
            status, detail = "excluded", excluded[check]
        yield check, status, detail
    if weights and not (root / "models" / "model.pt").is_file():
        (root / "models").mkdir(exist_ok=True)
        os.link(weights, root / "models" / "model.pt")
    yield from run_checks(root, datalist, block, excluded)
    known = {*static, "verify_net_in_out", "ckpt_export"}
    yield from ((check, "FAILED", "excluded_checks names an unknown check") for check in excluded if check not in known)


def run_checks(
    root: Path, datalist: Path, block: Path | None, excluded: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Yield the results of ``bundle_checks.py`` for a folder, in a process in another working directory."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(block or ROOT / "scripts")}
    image = datalist.parent / json.loads(datalist.read_text(encoding="utf-8"))["testing"][0]["image"]
    command = [sys.executable, "-P", str(TOOLS / "bundle_checks.py"), str(root), "--schema", str(SCHEMA)]
    command += ["--datalist", str(datalist), "--image", str(image), "--exclude", *excluded]
    done = subprocess.run(command, cwd=datalist.parent, env=environment, capture_output=True, text=True, check=False)
    for line in (line for line in done.stdout.splitlines() if line.startswith('{"check"')):
        found: dict[str, Any] = json.loads(line)
        yield found["check"], "ok" if found["passed"] else "FAILED", found["detail"]
    if done.returncode:
        yield "process", "FAILED", " ".join(done.stderr.split())[-600:]
    needs_code = ("verify_net_in_out", "ckpt_export")
    yield from ((check, "excluded", excluded[check]) for check in needs_code if check in excluded)


def read_metadata(root: Path) -> dict[str, Any]:
    """Metadata of a bundle, empty if the file is missing or damaged: then its checks fail."""
    try:
        return dict(json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def check_files(root: Path) -> str:
    """The files that the Zoo asks for are there."""
    missing = [name for name in REQUIRED_FILES if not (root / name).is_file()]
    if missing:
        raise VerificationError(f"missing: {', '.join(missing)}")
    return f"{len(REQUIRED_FILES)} required files"


def check_weights(root: Path) -> str:
    """Weights are in the bundle, or large_files.yml says where they are."""
    if (root / "models" / "model.pt").is_file():
        return "models/model.pt"
    if any(entry["path"] == "models/model.pt" for entry in large_files(root)):
        return "in large_files.yml"
    raise VerificationError("neither models/model.pt nor an entry of it in large_files.yml")


def large_files(root: Path) -> list[dict[str, str]]:
    """Entries of large_files.yml."""
    return list(yaml.safe_load((root / "large_files.yml").read_text(encoding="utf-8"))["large_files"] or [])


def check_large_files(root: Path) -> str:
    """Entries have an address, a hash, and a path inside the bundle."""
    entries = large_files(root)
    for entry in entries:
        path = PurePosixPath(entry.get("path", ""))
        if set(entry) != LARGE_FILE_KEYS:
            raise VerificationError(f"{path} has the keys {sorted(entry)}, expected {sorted(LARGE_FILE_KEYS)}")
        if path.is_absolute() or ".." in path.parts:
            raise VerificationError(f"{path} leaves the bundle")
        if not entry["url"].startswith("https://"):
            raise VerificationError(f"{path} comes from {entry['url']}, expected https://")
    return f"{len(entries)} entries"


def check_sizes(root: Path) -> str:
    """No file is larger than the Zoo takes."""
    sizes = {file.relative_to(root).as_posix(): file.stat().st_size for file in root.rglob("*") if file.is_file()}
    large = [f"{name} {size / 1e6:.0f} MB" for name, size in sizes.items() if size > MAX_WEIGHTS]
    if large:
        raise VerificationError(f"larger than {MAX_WEIGHTS // 10**6} MB: {', '.join(large)}")
    return f"{len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB"


def check_keys(metadata: Mapping[str, Any]) -> str:
    """The metadata follow their schema and have the keys that the Zoo asks for."""
    try:
        jsonschema.validate(metadata, json.loads(SCHEMA.read_text(encoding="utf-8")))
    except jsonschema.ValidationError as error:
        raise VerificationError(f"{error.json_path}: {error.message}") from error
    missing = [key for key in REQUIRED_KEYS if key not in metadata]
    if missing:
        raise VerificationError(f"metadata.json has no {', '.join(missing)}")
    return f"{SCHEMA.stem}, {len(REQUIRED_KEYS)} keys"


def check_version(metadata: Mapping[str, Any], name: str) -> str:
    """The version stands in the changelog, and the name is that of the folder."""
    if metadata["version"] not in metadata["changelog"]:
        raise VerificationError(f"changelog has no {metadata['version']}")
    if metadata["name"] != name:
        raise VerificationError(f"name is {metadata['name']}, expected {name} as the folder")
    return str(metadata["version"])


def check_exact(metadata: Mapping[str, Any]) -> str:
    """Versions are exact: the Zoo installs name==version."""
    versions = {key: metadata[key] for key in ("monai_version", "pytorch_version", "numpy_version")}
    versions |= metadata["required_packages_version"]
    wrong = [f"{name} {version}" for name, version in versions.items() if not EXACT.fullmatch(str(version))]
    if wrong:
        raise VerificationError(f"expected exact versions, got {', '.join(wrong)}")
    return f"{len(versions)} packages"


def check_format(formats: Mapping[str, Any]) -> str:
    """Input image and output pred are described, channels by numbers."""
    for tensor in (formats.get("inputs", {}).get("image"), formats.get("outputs", {}).get("pred")):
        if tensor is None:
            raise VerificationError(f"expected inputs.image and outputs.pred, got {formats}")
        missing = [key for key in TENSOR_KEYS if key not in tensor]
        if missing or not all(key.isdigit() for key in tensor["channel_def"]):
            raise VerificationError(f"missing {missing}, channels {list(tensor['channel_def'])}, expected numbers")
    return "inputs.image, outputs.pred"


def check_links(root: Path) -> str:
    """Targets of relative links exist; in the repository they may be outside of the bundle."""
    count = 0
    for page in root.glob("d*/*.md"):
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            count += 1
            file = (page.parent / target).resolve()
            in_repository = ROOT / "bundles" / root.name / page.parent.relative_to(root) / target
            packaged = (root / "scripts" / "cellbundle").is_dir()
            if not file.is_relative_to(root.resolve()) and not packaged:
                file = in_repository.resolve()
            if not file.exists() or (packaged and not file.is_relative_to(root.resolve())):
                raise VerificationError(f"{page.relative_to(root)}: the target {target} does not exist")
    return f"{count} relative links"


if __name__ == "__main__":
    sys.exit(main())
