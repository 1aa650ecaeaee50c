"""Search folders for images."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePath

from .images.read import IMAGE_SUFFIXES
from .ownership import DATA_SET, STATE


def is_image(path: str | PurePath) -> bool:
    """Whether the suffix is that of an image, in upper or lower case."""
    return PurePath(path).suffix.lower() in IMAGE_SUFFIXES


def scan_folder(
    folder: Path,
    *,
    recursive: bool = True,
    skip: Collection[Path] = (),
    unreadable: list[tuple[Path, str]] | None = None,
) -> Iterator[tuple[Path, str]]:
    """Yield files and OME-Zarr folders below a folder, with their relative paths.

    Hidden files and folders are left out, and so are folders that hold results of cellbundle. Links are followed.

    Args:
        folder: to search.
        recursive: search sub-folders too.
        skip: resolved folders that are left out.
        unreadable: gets folders that cannot be listed, with the reason; without it they are passed over.
    """

    def note(error: OSError) -> None:
        if unreadable is not None:
            unreadable.append((Path(error.filename), f"{error.filename}: cannot be listed ({error.strerror})"))

    visited: set[Path] = set()
    for root, folders, files in os.walk(folder, onerror=note, followlinks=True):
        here = Path(root)
        if here.resolve() in visited:  # a link to a folder above would never end
            folders.clear()
            continue
        visited.add(here.resolve())
        names = [name for name in files if not name.startswith(".")]
        names += [name for name in folders if is_image(name)]
        folders[:] = [
            name
            for name in sorted(folders)
            if recursive
            and not (name.startswith(".") or is_image(name) or (here / name).resolve() in skip)
            and not _is_results(here / name)
        ]
        for name in names:
            yield here / name, (here / name).relative_to(folder).as_posix()


def _is_results(folder: Path) -> bool:
    """Whether a folder holds results of cellbundle, but no data set that it prepared."""
    return (folder / STATE).is_dir() and not (folder / DATA_SET).is_file()
