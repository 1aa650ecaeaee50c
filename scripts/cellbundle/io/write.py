"""Files that are either complete or not there, and label maps in them."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np
import tifffile
from numpy.typing import NDArray

from ..errors import ArrayError
from ..instances.labels import check_labels

# Measured on 1500 cells in 1024²: level 6 is no slower than the network, and a predictor makes label maps larger.
ZLIB_LEVEL = 6
TEMPORARY = re.compile(r"\.[0-9a-f]{32}(\.\w+)?")  # names that atomic_path makes


@contextmanager
def atomic_path(path: str | Path, *, sync: bool = False) -> Iterator[Path]:
    """Give a temporary path in the same folder, which takes the place of ``path`` when the block ends well.

    Whatever ends the block otherwise, Ctrl-C included, leaves an older file as it was and removes the temporary one.

    Args:
        path: the file to write; its folder must exist.
        sync: wait until the data are on the disk, so that a power cut cannot leave an empty file.

    Yields:
        A path that does not exist yet, with the same suffix.

    Raises:
        OSError: if the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid4().hex}{path.suffix}")
    try:
        yield temporary
        if sync:
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_labels(path: str | Path, labels: NDArray[np.integer]) -> None:
    """Write a label map as a compressed TIFF: uint16 if the largest id allows, else uint32.

    Args:
        path: the file to write; its folder must exist.
        labels: (H, W) integers, 0 background, ids up to 2³² − 1.

    Raises:
        ArrayError: if ``labels`` is not a 2-D map of non-negative integers, is empty, or has ids that do not fit.
        OSError: if the file cannot be written.
    """
    check_labels(labels)
    if labels.size == 0:
        raise ArrayError(f"labels must have at least one pixel, got shape {labels.shape}")
    highest = labels.max()
    if highest > np.iinfo(np.uint32).max:
        raise ArrayError(f"labels must have ids up to 2**32 - 1, got {highest}; renumber them")
    dtype = np.uint16 if highest <= np.iinfo(np.uint16).max else np.uint32
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            labels.astype(dtype),
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": ZLIB_LEVEL},
            metadata={"axes": "YX"},
        )


def write_image(path: str | Path, image: NDArray) -> None:
    """Write an image as a compressed TIFF that says its axes.

    Args:
        path: the file to write; its folder must exist.
        image: (H, W) or (C, H, W), bool, integers or floats.

    Raises:
        ArrayError: for another number of dimensions.
        OSError: if the file cannot be written.
    """
    if image.ndim not in (2, 3) or image.size == 0:
        raise ArrayError(f"an image must be (H, W) or (C, H, W) with at least one pixel, got shape {image.shape}")
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            image,
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": ZLIB_LEVEL},
            metadata={"axes": "CYX"[-image.ndim :]},
        )


def stem(path: str | Path) -> str:
    """Name of a file without its last suffix only: ``a.b.png`` gives ``a.b``, ``x.ome.tif`` gives ``x.ome``."""
    return Path(path).stem
