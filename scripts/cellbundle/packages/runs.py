"""Packages of training runs: the bundle with the weights of a run, configured as they were trained."""

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser

from ..bundles import INFERENCE, REPOSITORY_BUNDLES, find_bundle
from ..datasets.archive_members import size_text
from ..datasets.convert import file_hash
from ..engine.runs import FINISHED, RUNS
from ..errors import CheckpointError
from ..inference.predictor import Predictor
from ..record import BEST, METADATA, RECORD, Record, apply_settings, bundle_name, read_record, settings_of
from .archive import MAX_ARCHIVE, NAME, STAMP, read_stamp
from .build import check_replaced, collect, read_version, vendored, weight_contents, write_package

logger = logging.getLogger(__name__)

OF_OTHER_WEIGHTS = "eval_metrics"  # key of the metadata with scores of the shipped weights
DATA_SOURCE = f"training data of a user, see models/{RECORD}"
HASH_DIGITS = 8  # of a run that does not say when it started


class RunPackage(NamedTuple):
    """A package that was written.

    Attributes:
        archive: zip archive.
        folder: with the same files.
    """

    archive: Path
    folder: Path


def package_run(run: Path, bundle: str | Path | None = None, output: Path = Path("dist")) -> RunPackage:
    """Write OUTPUT/NAME and its archive, a bundle that finds what the weights of a run find.

    The settings of the run are in ``configs/inference.json``. Equal sources give equal archives. An error leaves an
    older package as it was.

    Args:
        run: folder of the run, with ``model.pt`` and ``run.yaml``.
        bundle: name or folder; by default the bundle that the run is in, else the one that ``run.yaml`` names.
        output: folder of the packages.

    Returns:
        ``NAME_v<version>_<start of the run>.zip`` and ``NAME`` in ``output``.

    Raises:
        CheckpointError: if ``model.pt`` or ``run.yaml`` is missing or damaged, or they are of another bundle.
        ConfigError: if there is no such bundle.
        CellBundleError: if something would be replaced that is no package.
    """
    record, weights = read_run(run)
    root = find_bundle(_containing_bundle(run, record) or record["bundle"] if bundle is None else bundle)
    settings = settings_of(weights, root) or {}
    version = read_version(root)
    folder, archive = output / record["bundle"], output / f"{record['bundle']}_v{version}_{run_label(run, record)}.zip"
    check_replaced(folder, archive)
    Predictor(root, device="cpu", weights=weights)  # weights of another network would be found out by a user only
    repository = root.parents[1] if root.parent == REPOSITORY_BUNDLES else None
    files = collect(root, repository) | weight_contents(weights)
    files[INFERENCE] = vendored(_configured(root, settings)).encode()
    files[METADATA] = _described(files[METADATA]).encode()
    core = read_stamp(root).core_version if (root / STAMP).is_file() else ""
    write_package(folder, archive, version, files, core)
    if (size := archive.stat().st_size) > MAX_ARCHIVE:
        logger.warning(
            "%s has %s, and `cellbundle install` takes %s at most; use the folder %s instead",
            archive, size_text(size), size_text(MAX_ARCHIVE), folder,
        )  # fmt: skip
    return RunPackage(archive, folder)


def read_run(run: Path) -> tuple[Record, Path]:
    """Record and weights of a run folder; raises ``CheckpointError`` if one is missing, or the record is damaged."""
    record = read_record(run)
    if record is None:
        raise CheckpointError(
            f"{run} has no {RECORD}, so its bundle and settings are not known; give the folder of a run, such as runs/1"
        )
    if not NAME.fullmatch(record["bundle"]):
        raise CheckpointError(f"{run / RECORD} has the bundle {record['bundle']!r}, expected a name; restore the file")
    status = record.get("status")
    if not (run / BEST).is_file():
        raise CheckpointError(
            f"{run} has no {BEST} (status of the run: {status}); resume the training, or give another run"
        )
    if status != FINISHED:
        logger.warning("%s did not finish (%s): these are its best weights so far", run, status)
    if record.get("quick"):
        logger.warning("%s was a trial with --quick: its weights are not useful", run)
    return record, run / BEST


def run_label(run: Path, record: Record) -> str:
    """Start of a run as 20261130T132006; if it is not known, the first digits of the SHA-256 of its weights."""
    try:
        return datetime.fromisoformat(str(record.get("started"))).strftime("%Y%m%dT%H%M%S")
    except ValueError:
        return file_hash(run / BEST)[:HASH_DIGITS]


def _containing_bundle(run: Path, record: Record) -> Path | None:
    """The bundle whose ``runs`` hold a run, if it is the one that the run is of."""
    folder = run.resolve().parent
    inside = folder.name == RUNS and (folder.parent / INFERENCE).is_file()
    return folder.parent if inside and bundle_name(folder.parent) == record["bundle"] else None


def _configured(root: Path, settings: dict[str, Any]) -> str:
    """``inference.json`` of a bundle with the settings of a run."""
    parser = ConfigParser(ConfigParser.load_config_file(root / INFERENCE))
    apply_settings(parser, settings)
    config = {key: value for key, value in parser.get().items() if key != ConfigParser.meta_key}
    try:
        return json.dumps(config, indent=4) + "\n"
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the settings in {RECORD} are not plain values ({error}); restore the file") from error


def _described(metadata: bytes) -> str:
    """Metadata of a bundle without what is true of its shipped weights only."""
    content = json.loads(metadata)
    content.pop(OF_OTHER_WEIGHTS, None)
    content["data_source"] = DATA_SOURCE
    return json.dumps(content, indent=4, ensure_ascii=False) + "\n"
