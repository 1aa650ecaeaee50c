"""How much of each nucleus a file of outlines keeps: label map → YOLO outlines → label map, as IoU of each nucleus.

python scripts/benchmarks/yolo_polygons.py LABELS [--every 5]                  LABELS is a folder of label maps
python scripts/benchmarks/yolo_polygons.py --datalist FILE --basedir DIR       all label maps of a data list

Outlines are filled in two ways: by ``read_yolo``, and by OpenCV in the way of ultralytics when it trains, which is left
out where OpenCV is not installed.
"""

import argparse
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from cellbundle.datalists.datalist import read_datalist
from cellbundle.errors import CellBundleError
from cellbundle.instances.labels import renumber
from cellbundle.io import read_labels
from cellbundle.io.formats.yolo import Written, read_yolo, write_yolo

LEAST_IOU = 0.95

Fill = Callable[[Path, tuple[int, int]], Iterator[np.ndarray]]


class Measured(NamedTuple):
    """Label maps after the round trip.

    Attributes:
        ious: of each nucleus, in the order of the files and ids.
        files: number of the file that each is in.
        with_holes: nuclei with holes.
        in_parts: nuclei in several 4-connected parts.
    """

    ious: np.ndarray
    files: np.ndarray
    with_holes: int
    in_parts: int


def fill_as_read(path: Path, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """Masks of the outlines in a file by ``read_yolo``, one at a time."""
    painted, classes = read_yolo(path, shape, corners="edges")
    for number in range(1, len(classes) + 1):
        yield painted.labels == number


def fill_as_ultralytics(path: Path, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """Masks of the outlines in a file by OpenCV: corners in float32, rounded down, and filled with their outline."""
    import cv2  # noqa: PLC0415  (only here, and installed with ultralytics)

    for line in path.read_text(encoding="utf-8").splitlines():
        corners = np.array(line.split()[1:], np.float32).reshape(-1, 2) * np.array(shape[::-1], np.float32)
        mask = np.zeros(shape, np.uint8)
        cv2.fillPoly(mask, corners.astype(np.int32)[None], color=1)
        yield mask.astype(bool)


def round_trip(labels: np.ndarray, fill: Fill, path: Path) -> tuple[list[float], Written]:
    """IoU of each nucleus of a label map with what its outline, written to ``path``, is filled to."""
    written = write_yolo(path, labels)
    ids = np.unique(labels[labels > 0])
    pairs = ((labels == number, mask) for number, mask in zip(ids, fill(path, labels.shape), strict=True))
    return [float((a & b).sum() / (a | b).sum()) for a, b in pairs], written


def measure(paths: Sequence[Path], fill: Fill) -> Measured:
    """The round trip of many label maps."""
    ious: list[float] = []
    files: list[int] = []
    holes = parts = 0
    with TemporaryDirectory() as folder:
        for number, path in enumerate(tqdm(paths, fill.__name__, disable=None)):
            found, written = round_trip(renumber(read_labels(path))[0], fill, Path(folder, "outlines.txt"))
            ious += found
            files += [number] * len(found)
            holes, parts = holes + written.with_holes, parts + written.in_parts
    return Measured(np.array(ious), np.array(files), holes, parts)


def row(name: str, measured: Measured, paths: Sequence[Path]) -> str:
    """A line of the table."""
    ious = measured.ious
    good = ious >= LEAST_IOU
    worst = paths[measured.files[ious.argmin()]].name
    shares = f"{len(ious)} | {good.mean():.4%} | {ious.mean():.5f} | {ious.min():.4f} ({worst})"
    return f"| {name} | {shares} | {(~good).sum()} | {measured.with_holes} | {measured.in_parts} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="?")
    parser.add_argument("--datalist", type=Path)
    parser.add_argument("--basedir", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take only every n-th label map")
    arguments = parser.parse_args()
    if bool(arguments.labels) == bool(arguments.datalist and arguments.basedir):
        parser.error("give a folder of label maps, or --datalist FILE --basedir DIR")
    if arguments.labels:
        paths = sorted(path for path in arguments.labels.iterdir() if path.is_file())
    else:
        datalist = read_datalist(arguments.datalist, arguments.basedir)
        paths = [Path(entry["label"]) for entries in datalist.values() for entry in entries]
    paths = paths[:: arguments.every]
    fills: dict[str, Fill] = {"read_yolo": fill_as_read}
    if importlib.util.find_spec("cv2"):
        fills["ultralytics"] = fill_as_ultralytics
    print(
        f"| filled by, {len(paths)} label maps | nuclei | IoU ≥ {LEAST_IOU} | mean IoU | least | below {LEAST_IOU} "
        "| with holes | in parts |\n|---|---|---|---|---|---|---|---|"
    )
    for name, fill in fills.items():
        measured = measure(paths, fill)
        print(row(name, measured, paths) if len(measured.ious) else f"| {name} | 0 | | | | | | |")
    if len(fills) < 2:
        print("OpenCV is not installed: how ultralytics fills them is left out (pip install 'cellbundle[yolo]')")


if __name__ == "__main__":
    try:
        main()
    except CellBundleError as error:
        raise SystemExit(f"error: {error}") from None
