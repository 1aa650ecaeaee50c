# SPDX-License-Identifier: AGPL-3.0-or-later
"""What ultralytics trains on: square 8-bit tiles with outlines in text files, made once of the images of data lists."""

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from tqdm import tqdm

from cellbundle.errors import ConfigError, DatalistError
from cellbundle.io.sealed import seal, unseal

from .tiles import COUNTED, DATA_YAML, Entry, TileOptions, Transform, export_image

logger = logging.getLogger(__name__)

FORMAT = 1  # to be raised when what is written changes, so that older folders are made anew
SMALLEST_TILE = 10  # pixels; ultralytics refuses smaller images
ONLY_CLASS = "cell"  # where instances have no classes
SPLITS = {"training": "train", "validation": "val"}
STAMP = "dataset.json"


@dataclass(frozen=True)
class DatasetInfo:
    """A folder that ultralytics can train on.

    Attributes:
        data_yaml: the file that ultralytics takes.
        key: of entries, files and options; the name of the folder.
        class_names: of the classes 0..K-1 in the files, which are 1..K elsewhere.
        max_instances: in the fullest tile.
        counts: what there is, by name, for people.
    """

    data_yaml: Path
    key: str
    class_names: tuple[str, ...]
    max_instances: int
    counts: dict[str, int]


def data_lists(datalist: str | None, basedir: str | None) -> list[dict[str, Any]]:
    """The only data list of a run, as ``find_entries`` takes it.

    Raises:
        DatalistError: if it is YOLO's own ``data.yaml``: scores need label maps.
    """
    if datalist and Path(datalist).suffix.lower() in (".yaml", ".yml"):
        raise DatalistError(
            f"datalist is {datalist}, expected a JSON data list; make one of images with YOLO labels: "
            "cellbundle data prepare custom --raw-dir FOLDER --output-dir data/NAME --option encoding=yolo"
        )
    return [{"datalist": datalist, "basedir": basedir}]


def prepare_dataset(
    data: Sequence[Entry],
    validation: Sequence[Entry],
    transforms: Sequence[Transform],
    cache_dir: str | Path,
    imgsz: int,
    scale: float = 1.0,
    class_names: Sequence[str] = (),
    overlap: float = 0.25,
    min_size: int = 4,
    workers: int = 0,
) -> DatasetInfo:
    """Write the tiles of all images and their outlines, unless they are there from an earlier run.

    Images are cut into tiles of ``imgsz / scale`` pixels, to the nearest pixel, which overlap; smaller ones are filled
    up with grey. Ultralytics resizes tiles to ``imgsz`` and so magnifies all images alike. The folder appears only when
    all of it is written, and several processes may write it at once.

    Args:
        data: training entries with ``image`` and ``label``, and ``classes`` if there are class names; called as MONAI
            Label calls the entries that it replaces.
        validation: entries, likewise.
        transforms: make of an entry an ``image`` (3, H, W) in [0, 1], a ``label`` (1, H, W) and, if there are class
            names, ``classes`` as ``LoadClassesd`` does. What they are set to is part of the key.
        cache_dir: a folder for such folders; made when needed.
        imgsz: side of the square that the network sees, pixels.
        scale: magnification in front of the network.
        class_names: of the classes 1..K.
        overlap: share of a tile that neighbours have in common at least; larger than a cell.
        min_size: of an instance that the edge of a tile cuts, fewer pixels are left out.
        workers: threads that read and write; 0 is one.

    Raises:
        DatalistError: if an entry has no label, or there is no instance to learn from.
        LabelReadError: if a class has no name.
        ConfigError: if tiles would be too small.
    """
    tile = round(imgsz / scale) if scale > 0 else 0
    if tile < SMALLEST_TILE:
        raise ConfigError(
            f"imgsz {imgsz} and scale {scale} make tiles of {tile} pixels; expected at least {SMALLEST_TILE}"
        )
    options = TileOptions(tile, overlap, min_size, tuple(class_names) or (ONLY_CLASS,))
    splits = {"training": list(data), "validation": list(validation)}
    key = _key(splits, transforms, options)
    folder = Path(cache_dir).absolute() / key
    stamp = _read_stamp(folder)
    if stamp:
        logger.info("tiles of an earlier run are in %s", folder)
    else:
        _build(folder, splits, partial(export_image, transforms=transforms, options=options), options, workers)
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    return DatasetInfo(folder / DATA_YAML, key, options.class_names, stamp["max_instances"], stamp["counts"])


def _key(splits: Mapping[str, Sequence[Entry]], transforms: Sequence[Transform], options: TileOptions) -> str:
    """Changes with whatever may change a file that is written."""
    entries = {
        split: [{**entry, "files": [_state(entry.get(k)) for k in ("image", "label", "classes")]} for entry in chosen]
        for split, chosen in splits.items()
    }
    steps = [(type(step).__name__, {name: repr(value) for name, value in vars(step).items()}) for step in transforms]
    text = json.dumps([FORMAT, asdict(options), steps, entries], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _state(name: Any) -> list[tuple[int, int]]:
    """Sizes and times of a file, or of the files of a folder (an image in Zarr); nothing for what is no path."""
    if not isinstance(name, str | Path):
        return []
    path = Path(name)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [(found.stat().st_size, found.stat().st_mtime_ns) for found in files]


def _build(
    folder: Path,
    splits: Mapping[str, Sequence[Entry]],
    export: Callable[[Path, tuple[int, Entry]], Counter[str]],
    options: TileOptions,
    workers: int,
) -> None:
    """Write everything beside ``folder``, the stamp last, and then name it so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}")
    try:
        counts: dict[str, int] = {}
        fullest = 0
        for split, entries in splits.items():
            found = _export_all(temporary, split, entries, export, workers)
            fullest = max(fullest, found.pop("fullest"))
            counts |= {f"{split} {name}": number for name, number in found.items()}
        if not counts["training outlines"]:
            raise DatalistError(f"none of {len(splits['training'])} training images has an instance; give labels")
        settings = {**{name: f"images/{name}" for name in SPLITS.values()}, "nc": len(options.class_names)}
        names = dict(enumerate(options.class_names))
        text = yaml.safe_dump({**settings, "names": names}, sort_keys=False, allow_unicode=True)
        (temporary / DATA_YAML).write_text(text, encoding="utf-8")
        stamp = seal({"format": FORMAT, **asdict(options), "max_instances": fullest, "counts": counts})
        (temporary / STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    logger.info("%s: %s", folder, ", ".join(f"{number} {name}" for name, number in counts.items()))


def _publish(temporary: Path, folder: Path) -> None:
    """Give a complete folder its name, unless another process was faster."""
    if folder.exists() and not _read_stamp(folder):  # someone has deleted or damaged files in it
        shutil.rmtree(folder, ignore_errors=True)
    try:
        temporary.replace(folder)
    except OSError:
        if not _read_stamp(folder):
            raise


def _read_stamp(folder: Path) -> dict[str, Any] | None:
    """What is known of the tiles in a folder; None if they are not complete, or the file is damaged."""
    try:
        stamp = unseal((folder / STAMP).read_bytes(), required=False)
    except (OSError, ValueError):
        return None
    sound = isinstance(stamp.get("max_instances"), int) and isinstance(stamp.get("counts"), dict)
    return stamp if sound else None


def _export_all(
    root: Path,
    split: str,
    entries: Sequence[Entry],
    export: Callable[[Path, tuple[int, Entry]], Counter[str]],
    workers: int,
) -> Counter[str]:
    """Write the tiles of one split and count."""
    for kind in ("images", "labels"):
        (root / kind / SPLITS[split]).mkdir(parents=True)
    total = Counter(dict.fromkeys(COUNTED, 0))
    with ThreadPoolExecutor(max(1, workers)) as pool:
        results = pool.map(partial(export, root / "images" / SPLITS[split]), enumerate(entries))
        for found in tqdm(results, f"{split} tiles", total=len(entries), unit="image", disable=None):
            fullest = max(total["fullest"], found["fullest"])
            total.update(found)
            total["fullest"] = fullest
    return total
