"""The published files of a data set, listed once in an order that does not depend on the file system."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatasetError
from ..io.regular import is_irregular

IGNORED = {"__MACOSX"}  # folders besides hidden ones: what macOS adds to archives
UNFINISHED = (".incomplete", ".incomplete.json")  # downloads that were stopped


@dataclass(frozen=True)
class Tree:
    """Files by their name, ``folder/file.png``, relative to the folder or archive they come from; sorted by name.

    Attributes:
        root: the folder or archive that the user gave, for messages.
        files: path of each file by its name.
        irregular: names of FIFOs, devices and sockets, which are not among the files, because they are never opened.
    """

    root: Path
    files: Mapping[str, Path]
    irregular: Sequence[str] = ()

    def glob(self, pattern: str) -> list[str]:
        """Sorted names that end in a pattern, so that ``stage1_train/*/masks/*.png`` is found at any depth.

        ``*`` and ``?`` do not match ``/``; upper and lower case are the same.
        """
        inner = "/".join(_translate(part) for part in pattern.split("/"))
        match = re.compile(f"(?:.*/)?{inner}", re.IGNORECASE | re.DOTALL).fullmatch
        return [name for name in self.files if match(name)]

    def name(self, path: Path) -> str:
        """Name of a file of the tree; of any other, its path."""
        return next((name for name, own in self.files.items() if own == path), path.as_posix())


def _translate(part: str) -> str:
    """Regular expression of a pattern for one folder or file name; ``[abc]`` is one of these characters."""
    pieces = re.split(r"(\*|\?|\[[^\]]+\])", part)
    wild = {"*": "[^/]*", "?": "[^/]"}
    return "".join(wild.get(piece) or (piece if piece[:1] == "[" else re.escape(piece)) for piece in pieces)


def list_files(root: Path, exclude: Path | None = None) -> dict[str, Path]:
    """All files below a folder but hidden and half downloaded ones, sorted by their names.

    Args:
        root: the folder; symbolic links to files are followed, those to folders are not.
        exclude: a folder to leave out, such as that of the results.

    Raises:
        DatasetError: if a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise DatasetError(f"{error.filename}: cannot be listed ({error.strerror}); check the permissions")

    found = {}
    start = len(os.path.join(root, ""))  # noqa: PTH118 - strings are much faster than paths, and there may be 10⁵ files
    for folder, folders, names in os.walk(root, onerror=fail):
        folders[:] = [
            name for name in folders if name not in IGNORED and name[0] != "." and Path(folder, name) != exclude
        ]
        for name in names:
            if name[0] != "." and not name.endswith(UNFINISHED):
                path = os.path.join(folder, name)  # noqa: PTH118
                found[path[start:].replace(os.sep, "/")] = Path(path)
    return dict(sorted(found.items()))


def set_irregular_aside(files: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """Split files into those that may be opened and the names of the others: FIFOs, devices and sockets."""
    irregular = {name: path for name, path in files.items() if is_irregular(path)}
    return {name: path for name, path in files.items() if name not in irregular}, list(irregular)


def pair(
    images: Iterable[str], labels: Iterable[str], key: Callable[[str], str], label_key: Callable[[str], str]
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Bring images and label files together.

    Args:
        images: names of image files.
        labels: names of label files.
        key: gives the key of an image from its name; an image and a label with one key are a pair.
        label_key: the same for a label file.

    Returns:
        Pairs of names by key, sorted; and a sentence for each key that has not just one image and one label.
    """
    found: defaultdict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for name in sorted(images):
        found[key(name)][0].append(name)
    for name in sorted(labels):
        found[label_key(name)][1].append(name)
    pairs, broken = {}, {}
    for one, (left, right) in sorted(found.items()):
        if len(left) == len(right) == 1:
            pairs[one] = left[0], right[0]
        elif not right:
            broken[one] = f"{left[0]} has no label file; get the missing part of the data"
        elif not left:
            broken[one] = f"{right[0]} has no image; get the missing part of the data"
        else:
            broken[one] = f"stands for {', '.join([*left, *right])}; keep one image and one label file"
    return pairs, broken
