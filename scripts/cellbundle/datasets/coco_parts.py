"""Cuts a COCO file for thousands of images into one COCO file an image, which a process can read for itself."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DatasetError
from ..io import atomic_path
from ..io.sealed import seal, unseal

FORM = 1  # of the parts: another number makes them anew
INDEX = "_index.json"  # written last: with it, all parts are there
ENCODER = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True)
class CocoParts:
    """The parts of a COCO file.

    Attributes:
        cells: number of annotations but crowds, by the stem of the image's file name.
        doubled: stems of the files that stand under several ids, of which the one with most cells is kept; sorted.
        orphans: number of annotations of images that the file does not list; they are in no part.
    """

    cells: dict[str, int]
    doubled: list[str]
    orphans: int


def cut_coco(path: Path, folder: Path) -> CocoParts:
    """Write ``<stem>.json`` for each image of a COCO file; nothing, if an earlier call did so for the same file.

    Beside the text of the file, about as much memory again is used for the annotations, which are never held as
    objects. Their key may hold a list, or a dictionary by id as in the first files of LIVECell for one cell type.

    Args:
        path: the COCO file.
        folder: where the parts go; made when needed, and used for this file alone.

    Returns:
        What the parts hold.

    Raises:
        DatasetError: if the file cannot be read or is no COCO file.
    """
    index = folder / INDEX
    state = path.stat()
    stamp = [FORM, state.st_size, state.st_mtime_ns]
    known = _read_index(index, stamp)
    if known and all(part_path(folder, stem).exists() for stem in known.cells):
        return known
    images, annotations, n_cells, categories = _read(path)
    by_stem: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for image in images:
        by_stem[PurePosixPath(image["file_name"]).stem].append(image)
    folder.mkdir(parents=True, exist_ok=True)
    index.unlink(missing_ok=True)
    cells = {}
    for stem, same in sorted(by_stem.items()):
        best = max(same, key=lambda image: (n_cells[image["id"]], -image["id"]))
        cells[stem] = n_cells[best["id"]]
        _write(part_path(folder, stem), best, annotations[best["id"]], categories)
    listed = {image["id"] for image in images}
    orphans = sum(len(texts) for key, texts in annotations.items() if key not in listed)
    parts = CocoParts(cells, [stem for stem, same in sorted(by_stem.items()) if len(same) > 1], orphans)
    with atomic_path(index) as temporary:
        temporary.write_text(ENCODER.encode(seal({"stamp": stamp, "parts": asdict(parts)})), encoding="utf-8")
    return parts


def part_path(folder: Path, stem: str) -> Path:
    """Where the part of an image is."""
    return folder / f"{stem}.json"


def _read(path: Path) -> tuple[list[dict[str, Any]], dict[int, list[str]], Counter[int], list[Any]]:
    """Images; the annotations of each id as texts; the number of those that are no crowd; and categories."""
    annotations: defaultdict[int, list[str]] = defaultdict(list)
    n_cells: Counter[int] = Counter()

    def put_aside(found: dict[str, Any]) -> dict[str, Any] | None:
        """Called for every object that is read: an annotation becomes text, which takes a quarter of the memory."""
        if "image_id" not in found:
            return found
        annotations[found["image_id"]].append(ENCODER.encode(found))
        n_cells[found["image_id"]] += not found.get("iscrowd")
        return None

    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file, object_hook=put_aside)
        images = [{key: image[key] for key in ("id", "file_name", "height", "width")} for image in content["images"]]
        return images, annotations, n_cells, content["categories"]
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); check the permissions") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            f"{path}: is damaged, incomplete or no COCO file ({type(error).__name__}: {error}); get it again"
        ) from error


def _write(path: Path, image: dict[str, Any], annotations: Iterable[str], categories: list[Any]) -> None:
    """Write a COCO file of one image, one annotation a line."""
    head = f'{{"images":[{ENCODER.encode(image)}],\n"categories":{ENCODER.encode(categories)},\n"annotations":[\n'
    text = head + ",\n".join(annotations) + "\n]}\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _read_index(path: Path, stamp: list[int]) -> CocoParts | None:
    """Parts that an earlier call wrote, if it was for the same file; None also if the index is damaged."""
    try:
        content = unseal(path.read_bytes())
        return CocoParts(**content["parts"]) if content["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
