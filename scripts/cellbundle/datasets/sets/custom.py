"""Your own images: a folder of image and label files, in the encodings that annotation tools and challenges use.

How labels are stored is recognised from the files (``_layout``) and read by ``_encodings``. Nothing is guessed: where
two encodings fit, or masks do not tell cells apart, an error names the option that decides. Folders named train, val
and test are a split and kept.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DatasetError, LabelReadError
from ...instances.labels import keep_ids, renumber
from ...instances.regions import find_regions
from ...io import read_image
from ...io.folder import is_image
from ...io.formats.colour_masks import colour_classes, find_colours
from ...io.images.orientation import UPRIGHT, remark_on_orientation, turn
from ...kernels.geometry import boxes_and_areas
from ..model import Found, Item, Problem, Sample, Section
from ..splits import beside_validation as split
from ..tree import Tree
from ._encodings import FORMS, QUPATH, READERS, cut_file, kind_of_raster, read_instances, save_part
from ._layout import EXPECTED, SHARED, Layout, key, place_of, read_layout

__all__ = ["convert", "locate", "split"]

AUTO = "auto"
SPLITS = (AUTO, "folders", "random")
BY_FOLDER = "folder"
N_PEEKED = 3  # label files that are opened to tell ids, colours, and black and white masks apart
N_SHOWN = 3  # names that a message gives

Place = tuple[Section, int | None]


class Labels(NamedTuple):
    """Labels of one image: their files; the file of its part, if they are for many images; its place by their name."""

    names: list[str]
    part: Path | None = None
    place: Place | None = None


def locate(tree: Tree, variant: str, options: Mapping[str, Any], work: Path) -> Found:
    """Recognise the encoding and bring images and labels together; see ``DatasetModule``.

    Raises:
        ConfigError: if an option has no possible value.
        DatasetError: if no image has labels, their encoding is not clear, or some images lie outside of the folders
            of a split.
    """
    del variant
    _check_options(options)
    layout = read_layout(tree)
    encoding = _choose_encoding(tree, layout, options)
    names = _item_names(layout.image_names)
    if encoding in SHARED:
        labels, problems = _cut_shared(tree, layout, encoding, names, work)
    else:
        pairs, broken = layout.pairs(encoding)
        labels = {image: Labels(files) for image, files in pairs.items()}
        problems = [Problem(name, reason) for name, reason in broken.items()]
    if not labels:
        reason = f"; {problems[0].reason}" if problems else ""
        raise DatasetError(
            f"{tree.root}: none of {len(names)} images has labels as {encoding}{reason}. Expected {EXPECTED[encoding]}"
        )
    places = _places(tree, labels, options["split"])
    groups = _groups({image: names[image] for image in labels}, options["group"])
    items = []
    for image, own in sorted(labels.items()):
        section, fold = places.get(image, (None, None))
        detail = {"encoding": encoding} | ({"part": str(own.part)} if own.part else {})
        paths = tuple(tree.files[name] for name in own.names)
        items.append(Item(names[image], tree.files[image], paths, groups[image], section, fold, detail=detail))
    return Found(items, problems)


def convert(item: Item, options: Mapping[str, Any]) -> Sample:
    """Read the labels of an image and drop small instances; see ``DatasetModule``."""
    labels, remarks = read_instances(item, options)
    numbered, n = renumber(labels)
    keep = np.append(False, boxes_and_areas(numbered, n)[1] >= options["min_size"])
    n_small = n - int(keep.sum())
    if options["drop_regions"] and (regions := find_regions(numbered, n)):
        keep[regions] = False
        remarks.append(f"{len(regions)} of {n} instances are regions and left out")
    if n_small:
        remarks.append(f"{n_small} of {n} instances have fewer than {options['min_size']} pixels and are left out")
    kept = keep_ids(numbered, keep)
    image, turned = _upright(item, kept, options["exif"] == "apply")
    return Sample(image, kept, (*remarks, *turned))


def _upright(item: Item, labels: NDArray[np.int32], apply: bool) -> tuple[Path | NDArray, list[str]]:
    """The image file, or its turned pixels if they are wanted; and a remark if the labels do not fit them."""
    stored = read_image(item.image) if apply else None
    if stored is None or stored.orientation == UPRIGHT:
        return item.image, []
    remark = remark_on_orientation(stored.data, labels, stored.orientation, applied=True)
    turned = turn(stored.data, stored.orientation).astype(stored.dtype if stored.dtype.kind in "iu" else np.float32)
    return turned if len(turned) > 1 else turned[0], [remark] if remark else []


def _check_options(options: Mapping[str, Any]) -> None:
    for name, allowed in (
        ("encoding", (AUTO, *READERS)),
        ("rle_order", tuple(FORMS)),
        ("yolo_corners", ("centres", "edges")),
        ("split", SPLITS),
        ("drop_regions", (False, True)),
        ("exif", ("ignore", "apply")),
        ("geojson_objects", ("auto", *QUPATH)),
    ):
        if options[name] not in allowed:
            raise ConfigError(f"option {name} is {options[name]!r}; choose one of {', '.join(map(str, allowed))}")
    if options["min_size"] < 1:
        raise ConfigError(f"option min_size is {options['min_size']}; give a number of pixels, at least 1")
    if options["colours"] is not None or options["encoding"] == "colours":
        try:
            colour_classes(options["colours"])
        except ConfigError as error:
            raise ConfigError(f"option colours: {error}") from error


def _choose_encoding(tree: Tree, layout: Layout, options: Mapping[str, Any]) -> str:
    """The encoding that is asked for, or the only one that fits."""
    if options["encoding"] != AUTO:
        return str(options["encoding"])
    fits = layout.fitting()
    if not fits:
        expected = "; ".join(
            f"{name}: {files}" for name, files in EXPECTED.items() if name not in ("binary", "colours")
        )
        raise DatasetError(
            f"{tree.root}: no labels are recognised for any of {len(layout.image_names)} images such as "
            f"{layout.image_names[0]}. Expected one of: {expected}"
        )
    if len(fits) > 1:
        raise DatasetError(
            f"{tree.root}: labels can be read as {' and as '.join(fits)}; set the option encoding to one of them"
        )
    if fits != ["label_map"]:
        return fits[0]
    return "colours" if options["colours"] else _check_rasters(tree, layout)


def _check_rasters(tree: Tree, layout: Layout) -> str:
    """Refuse pictures that are no label maps, as far as a few of them tell; the others tell when they are read."""
    names = [files[0] for files in layout.pairs("label_map")[0].values()]
    peeked: dict[str | None, str] = {}
    for name in names[:: len(names) // N_PEEKED + 1]:
        peeked.setdefault(kind_of_raster(tree.files[name]), name)
    if "label_map" not in peeked and "binary" in peeked:
        raise DatasetError(
            f"{tree.root}: masks such as {peeked['binary']} do not tell cells apart. If cells never touch, set the "
            "option encoding: binary, and each connected part becomes a cell. If each image has one cell, set "
            "encoding: label_map"
        )
    if "label_map" not in peeked and "colours" in peeked:
        raise DatasetError(
            f"{tree.root}: labels such as {peeked['colours']} hold colours, not ids. If a colour is a class, set "
            f"the option colours to a table of all of them{_propose(tree.files[peeked['colours']])}"
        )
    return "label_map"


def _propose(path: Path) -> str:
    """The table that a mask suggests, or how one looks if it suggests none."""
    try:
        return f"; this one suggests {json.dumps(find_colours(path).proposal)}"
    except LabelReadError:
        return ', such as {"255,0,0": tumour, "0,0,0": background}'


def _item_names(images: Sequence[str]) -> dict[str, str]:
    """Name of the item of each image: its stem; where stems repeat, with the folders."""
    stems = {image: PurePosixPath(image).stem for image in images}
    counts = Counter(stem.casefold() for stem in stems.values())
    return {
        image: stem if counts[stem.casefold()] == 1 else "_".join([*key(image).split("/")[:-1], stem])
        for image, stem in stems.items()
    }


def _cut_shared(
    tree: Tree, layout: Layout, encoding: str, names: Mapping[str, str], work: Path
) -> tuple[dict[str, Labels], list[Problem]]:
    """Cut files for many images into a part for each; parts without an image, and the reverse, are problems."""
    by_stem = defaultdict(list)
    for image in layout.image_names:
        by_stem[PurePosixPath(image).stem].append(image)
    labels: dict[str, Labels] = {}
    reasons: dict[str, str] = {}
    files = layout.labels.get(encoding, [])
    for file in files:
        place = place_of(_words(file))
        for entry, texts in cut_file(encoding, tree.files[file]):
            candidates = _candidates(by_stem, entry, file, place)
            if len(candidates) != 1 or len(texts) > 1 or candidates[0] in labels:
                name = names[candidates[0]] if candidates else entry
                reasons[name] = _why_not(entry, file, candidates, labels)
                continue
            part = work / encoding / f"{names[candidates[0]]}.json"
            save_part(part, texts[0])
            labels[candidates[0]] = Labels([file], part, place)
    labels = {image: own for image, own in labels.items() if names[image] not in reasons}
    listed = ", ".join(files[:N_SHOWN]) or f"any file such as {EXPECTED[encoding]}"
    for image in layout.image_names:
        if image not in labels:
            reasons.setdefault(names[image], f"{image} is not in {listed}; add its labels, or remove the image")
    return labels, [Problem(name, reason) for name, reason in sorted(reasons.items())]


def _candidates(by_stem: Mapping[str, Sequence[str]], entry: str, file: str, place: Place | None) -> Sequence[str]:
    """Images that an entry of a file may mean; fewer, where folders or the part of a split agree."""
    path = PurePosixPath(entry.replace("\\", "/"))
    stem = path.stem if is_image(path) else path.name
    folder = "" if path.parent == PurePosixPath() else f"/{path.parent}"
    below = f"{PurePosixPath(file).parent}/"
    found = by_stem.get(stem, ())
    for fits in (
        lambda image: f"/{PurePosixPath(image).parent}".endswith(folder),
        lambda image: image.startswith(below),
        lambda image: place is not None and place_of(PurePosixPath(image).parts[:-1]) == place,
    ):
        found = [image for image in found if fits(image)] or found
    return found


def _why_not(entry: str, file: str, candidates: Sequence[str], taken: Mapping[str, Labels]) -> str:
    """What is wrong with an entry of a file for many images."""
    if not candidates:
        return f"{file} lists {entry}, which is not there; get the image"
    if len(candidates) > 1:
        return f"{file} lists {entry}, which may be {' or '.join(candidates[:N_SHOWN])}; give them different names"
    if candidates[0] in taken:
        return f"is listed in {taken[candidates[0]].names[0]} and {file}, or twice; keep one"
    return f"{file} lists {entry} several times; keep one"


def _words(file: str) -> list[str]:
    """Folders of a file and words of its stem, which may name a part of a split: ``instances_train2017``."""
    path = PurePosixPath(file)
    return [*path.parts[:-1], *re.split(r"[^a-z]+", path.stem.lower())]


def _places(tree: Tree, labels: Mapping[str, Labels], how: str) -> dict[str, Place]:
    """Section and fold of each image by the folders that it lies in, if these are a split."""
    if how == "random":
        return {}
    found = {image: place_of(PurePosixPath(image).parts[:-1]) or own.place for image, own in labels.items()}
    places = {image: place for image, place in found.items() if place}
    outside = sorted(found.keys() - places.keys())
    if outside and (places or how != AUTO):
        raise DatasetError(
            f"{tree.root}: {len(outside)} images such as {', '.join(outside[:N_SHOWN])} lie in none of the "
            "folders train, val and test; move them, or set the option split: random"
        )
    return places if how != AUTO or len(set(places.values())) > 1 else {}


def _groups(names: Mapping[str, str], rule: Any) -> dict[str, str]:
    """Group of each image: what the pattern finds in its name, or the folders it lies in; by default its name."""
    if rule is None:
        return dict(names)
    if rule == BY_FOLDER:
        return {image: _folder_group(image) for image in names}
    try:
        pattern = re.compile(rule)
    except (re.error, TypeError) as error:
        raise ConfigError(f"option group is {rule!r}, which is no regular expression ({error})") from error
    if pattern.groups != 1:
        raise ConfigError(
            f"option group is {rule!r} with {pattern.groups} groups in parentheses; put what images of one group "
            r"have in common into one, such as (patient\d+)_"
        )
    found = {image: pattern.search(name) for image, name in names.items()}
    groups = {image: match[1] for image, match in found.items() if match and match[1]}
    missing = [names[image] for image in names if image not in groups]
    if missing:
        raise ConfigError(
            f"option group: {rule!r} finds nothing in {len(missing)} names such as {', '.join(missing[:N_SHOWN])}; "
            "change it so that every image has a group"
        )
    return groups


def _folder_group(image: str) -> str:
    """Folders of an image without those for images and for parts of a split, if others are left."""
    folders = key(image).split("/")[:-1]
    return "/".join([one for one in folders if not place_of([one])]) or "/".join(folders) or "."
