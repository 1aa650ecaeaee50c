"""OME-TIFF images whose planes lie in several files of one folder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from ...errors import ImageReadError
from ..regular import open_regular
from .errors import named
from .header import Stored
from .ome import Ome, Part, Pixels, Reference, bare_name, first_plane, own_references, parse_ome, short_names
from .tiff import ONE_FILE, Member, Opened, open_part, open_tiff, own_metadata
from .tiff_limits import MAX_TEXT, check_directories

MAX_FILES = 256  # of an image; all are open at the same time
ORDER = "TCZYX"
TIFF_STARTS = (b"II", b"MM")


@dataclass(frozen=True, eq=False)
class _Set:
    """One image in several files: its metadata, the file that holds them, the files of the planes in their order."""

    ome: Ome
    holder: Path
    files: Mapping[Path, Reference]

    @property
    def pixels(self) -> Pixels:
        return self.ome.images[0]


def find_ome_set(path: Path) -> tuple[Path, ...]:
    """List the files that hold an image together with a TIFF file.

    Args:
        path: a file of the set.

    Returns:
        The files in the order of their planes, then one that holds only the metadata. Nothing if the file is no
        OME-TIFF, or holds whole images: those of a set with one file a position are separate.

    Raises:
        ImageReadError: as ``open_ome_set``.
    """
    with named(path, ImageReadError), ExitStack() as stack:
        found = _find(path)
        if found is None:
            return ()
        _open_all(found, stack)
        return tuple(dict.fromkeys((*found.files, found.holder)))


@contextmanager
def open_ome_set(path: Path) -> Iterator[Stored]:
    """Open the image that a TIFF file holds together with other files, or the file alone if there are none.

    Raises:
        ImageReadError: if a file that the metadata name is missing, is not a regular file of the same folder or has
            another UUID, or if the planes of the files differ in size or type, or make no complete image.
    """
    found = _find(path)
    if found is None:
        with open_tiff(path) as stored:
            yield stored
        return
    with ExitStack() as stack:
        yield _open_all(found, stack)


def _find(path: Path) -> _Set | None:
    """The image that a file has planes of, if these lie in several files."""
    with open_regular(path) as file:
        ome = _metadata(file)
    if ome is None:
        return None
    uuid, holder = ome.uuid, path
    if ome.metadata_file is not None:
        holder, ome = _other_metadata(path.parent, ome.metadata_file)
    own, me = own_references(ome, holder.name), Reference(ome.uuid, holder.name)
    for data in (data for image in ome.images for data in image.data):
        data.file = me if data.file is None or data.file in own else data.file
    mine = {me} if holder == path else {file for file in ome.references if uuid and file.uuid == uuid}
    images = [image for image in ome.images if mine & image.files]
    if len(images) != 1 or len(images[0].files) == 1 or _shared(ome, images[0]):
        return None
    return _Set(Ome(ome.uuid, None, images), holder, _files(path.parent, images[0]))


def _shared(ome: Ome, image: Pixels) -> bool:
    """Whether files of an image also hold planes of another."""
    return any(image.files & other.files for other in ome.images if other is not image)


def _metadata(file: BinaryIO) -> Ome | None:
    """OME metadata in an open file; those of a set can be in an XML file."""
    start = file.read(2)
    file.seek(0)
    if start not in TIFF_STARTS:
        text = file.read(MAX_TEXT + 1)
        if len(text) > MAX_TEXT:
            raise ImageReadError(f"has more than {MAX_TEXT} bytes of metadata")
        return parse_ome(text.decode("utf-8-sig"))
    check_directories(file)
    file.seek(0)
    with tifffile.TiffFile(file, **ONE_FILE) as tiff:
        return own_metadata(tiff)


def _other_metadata(folder: Path, reference: Reference) -> tuple[Path, Ome]:
    """Metadata of a set that are in another file of its folder."""
    path = _beside(folder, reference.name)
    with named(path, ImageReadError), open_regular(path, follow=False) as file:
        ome = _metadata(file)
        if ome is None or ome.metadata_file is not None or ome.uuid != reference.uuid:
            raise ImageReadError("does not hold the metadata of the set")
    return path, ome


def _files(folder: Path, pixels: Pixels) -> dict[Path, Reference]:
    """Files of an image in the order of their planes."""
    sizes = pixels.sizes
    order = sorted(pixels.data, key=lambda data: first_plane(data, sizes))
    references = list(dict.fromkeys(data.file for data in order if data.file is not None))
    if len(references) > MAX_FILES:
        raise ImageReadError(f"is one of {len(references)} files of an image, more than {MAX_FILES}; save it as one")
    files = {_beside(folder, file.name): file for file in references}
    if len(files) < len(references) or len({file.uuid for file in references}) < len(references):
        raise ImageReadError("has OME metadata that name two files of one name or UUID; export the set again")
    return files


def _beside(folder: Path, name: str) -> Path:
    """A regular file of a folder; a link may lead to another file of it."""
    shown = repr(short_names([name]))
    if name in ("", ".", "..") or "\0" in name or name != bare_name(name):
        raise ImageReadError(f"its metadata name {shown} in another folder, expected a file of the same folder")
    path = folder / name
    if not path.exists():
        raise ImageReadError(f"its metadata name {shown}, which is missing; copy all files of the set into one folder")
    real = path.resolve()
    if real.parent != folder.resolve() or not real.is_file():
        raise ImageReadError(f"its metadata name {shown}, which is no regular file of the same folder")
    return path


def _open_all(found: _Set, stack: ExitStack) -> Stored:
    """Open all files of a set; they close with the stack."""
    opened = []
    for path, reference in found.files.items():
        with named(path, ImageReadError):
            file = stack.enter_context(open_regular(path.resolve(), follow=False))
            opened.append(stack.enter_context(open_part(file, Member(found.ome, reference))))
            _check_member(opened[-1], opened[0])
    return _joined(found.pixels, opened)


def _check_member(opened: Opened, first: Opened) -> None:
    """Refuse a file whose planes do not fit those of the first."""
    stored = opened.stored
    if not set(stored.axes) <= set(ORDER):
        raise ImageReadError(f"has planes of shape {stored.shape} (axes {stored.axes}), which are not joined")
    planes, expected = (f"{one.stored.shape[-2:]} {one.stored.dtype.name}" for one in (opened, first))
    if planes != expected:
        raise ImageReadError(f"has planes of shape and type {planes}, but the first file of its set has {expected}")


def _joined(pixels: Pixels, opened: Sequence[Opened]) -> Stored:
    """The image that open files hold together."""
    parts = [(one.stored, part) for one in opened for part in one.parts]
    sizes = pixels.sizes
    n_found = np.zeros([sizes[letter] for letter in ORDER[:3]], np.uint8)
    for _, part in parts:
        n_found[_grid(part)] += 1
    if (n_found != 1).any():
        t, c, z = np.argwhere(n_found != 1)[0]
        raise ImageReadError(
            f"is one file of an image whose plane C={c}, Z={z}, T={t} is in {n_found[t, c, z]} files, expected one"
        )
    first = opened[0].stored
    full = (*n_found.shape, *first.shape[-2:])
    axes = "".join(letter for letter, size in zip(ORDER, full, strict=True) if size > 1 or letter in "YX")
    return Stored(
        shape=tuple(size for letter, size in zip(ORDER, full, strict=True) if letter in axes),
        axes=axes,
        dtype=first.dtype,
        decode=partial(_decode, parts, full, axes),
        pixel_size_um=first.pixel_size_um,
        lossy=any(one.stored.lossy for one in opened),
        tile_pixels=max(one.stored.tile_pixels for one in opened),
    )


def _decode(parts: Sequence[tuple[Stored, Part]], shape: tuple[int, ...], axes: str) -> NDArray:
    """Pixels of all files as one array without dimensions of length 1."""
    array = np.empty(shape, parts[0][0].dtype)
    for stored, part in parts:
        inner = stored.decode().transpose([stored.axes.index(letter) for letter in ORDER if letter in stored.axes])
        grid = _grid(part)
        array[grid] = inner.reshape(*(along.size for along in grid), *inner.shape[-2:])
    return array.reshape([size for letter, size in zip(ORDER, shape, strict=True) if letter in axes])


def _grid(part: Part) -> tuple[NDArray, ...]:
    """Index of the planes of a part in an array (T, C, Z)."""
    c, z, t = part.positions
    return np.ix_(t, c, z)
