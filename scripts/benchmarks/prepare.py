"""Speed and memory of the conversion of published masks, beside the plain way to write it.

python scripts/benchmarks/prepare.py [--images 100] [--cells 300] [--repeats 3] [--output docs/benchmarks/prepare.md]

Mask files: images of 520 x 696 pixels with one PNG file a cell, as the 2018 Data Science Bowl is published, become
label maps. The plain way opens each file with Pillow and assigns its pixels. The label maps are compared first, then
times alternate; medians are printed. ``convert`` is reading and painting alone; ``prepare`` is all that ``cellbundle
data prepare`` does: also copying and checking the image, writing the label map, hashes, lists, report. Polygons: the
memory that one image of 520 x 704 pixels with 3,000 cells takes on top of its label map.
"""

import argparse
import platform
import tempfile
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from cellbundle.datasets import prepare
from cellbundle.instances.painting import paint_rles
from cellbundle.io import atomic_path
from cellbundle.io.formats.mask_files import paint_mask_files
from cellbundle.synthetic import generate

SHAPE = (520, 696)
LIVECELL_SHAPE = (520, 704)
N_LIVECELL = 3000
GOAL = 50  # images a second


def write_published(folder: Path, n_images: int, n_cells: int) -> list[list[Path]]:
    """Write ``stage1_train`` with mask files of cells that touch; their paths by image."""
    paths = []
    for number in range(n_images):
        image, labels = generate("fluorescence", SHAPE, n_cells, diameter=18, seed=number)
        image = (image >> 8).astype(np.uint8)
        home = folder / "stage1_train" / f"{number:03d}"
        for part in ("images", "masks"):
            (home / part).mkdir(parents=True)
        Image.fromarray(np.dstack([image] * 3 + [np.full_like(image, 255)])).save(home / "images" / f"{home.name}.png")
        for cell in range(1, labels.max() + 1):
            Image.fromarray(np.uint8(labels == cell) * 255).save(home / "masks" / f"{cell:04d}.png")
        paths.append(sorted((home / "masks").iterdir()))
    return paths


def paint_plainly(paths: list[Path]) -> NDArray[np.int32]:
    """The loop that everybody writes first."""
    labels = np.zeros(SHAPE, np.int32)
    for number, path in enumerate(paths, start=1):
        labels[np.asarray(Image.open(path)) > 0] = number
    return labels


def paint(paths: list[Path]) -> NDArray[np.int32]:
    """Ours."""
    return paint_mask_files(paths).labels


def paint_all(paths: list[list[Path]]) -> None:
    """Ours for several images."""
    for own in paths:
        paint(own)


def measure_masks(folder: Path, n_images: int, n_cells: int, repeats: int) -> list[str]:
    """Rows of the table of mask files."""
    paths = write_published(folder / "raw", n_images, n_cells)
    for own in paths:
        if not (paint(own) == paint_plainly(own)).all():
            raise RuntimeError(f"{own[0].parent}: the label maps differ")
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(paint_all, [paths[:1], paths[:1]]))  # imports and compilation are not part of the time
        runs: dict[str, Callable[[Path], object]] = {
            "plain loop | 1": lambda output: [paint_plainly(own) for own in paths],
            "convert | 1": lambda output: paint_all(paths),
            "convert | 2": lambda output: list(pool.map(paint_all, [paths[::2], paths[1::2]])),
            "prepare | 2": lambda output: prepare("dsb2018", folder / "raw", output, workers=2),
        }
        for repeat in range(repeats):
            for name, run in runs.items():
                started = time.perf_counter()
                run(folder / f"out{repeat}")
                seconds[name].append(time.perf_counter() - started)
    base = median(seconds["plain loop | 1"])
    return [
        f"| {name} | {n_images / median(times):.1f} | {base / median(times):.1f} |" for name, times in seconds.items()
    ]


def measure_polygons() -> str:
    """Sentence about the memory of the polygons of one image."""
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    centres = rng.uniform((10, 10), (LIVECELL_SHAPE[1] - 10, LIVECELL_SHAPE[0] - 10), (N_LIVECELL, 2))
    rings = centres[:, None] + 9 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    polygons = [[ring.ravel().tolist()] for ring in rings]

    def run() -> int:
        rles = (coco.frPyObjects(polygon, *LIVECELL_SHAPE)[0]["counts"] for polygon in polygons)
        return len(np.unique(paint_rles(rles, LIVECELL_SHAPE, "coco").labels)) - 1

    run()
    tracemalloc.start()
    started = time.perf_counter()
    n = run()
    seconds = time.perf_counter() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (
        f"{N_LIVECELL} polygons in {LIVECELL_SHAPE}: {n} visible cells, {peak / 1e6:.1f} MB at most, {seconds:.2f} s."
    )


def main(arguments: argparse.Namespace) -> None:
    """Measure, print and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_masks(Path(folder), arguments.images, arguments.cells, arguments.repeats)
    page = "\n".join(
        [
            "# Conversion of data sets",
            "",
            f"Written by `scripts/benchmarks/prepare.py`, which says how. Python {platform.python_version()}.",
            "",
            f"{arguments.images} images of {SHAPE[0]} x {SHAPE[1]} with {arguments.cells} cells, a PNG file each; aim: "
            f"{GOAL} images a second on two cores.",
            "",
            "| | processes | images a second | against the plain loop |",
            "|---|---|---|---|",
            *rows,
            "",
            measure_polygons(),
            "",
        ]
    )
    print(page)
    if arguments.output:
        with atomic_path(arguments.output) as temporary:
            temporary.write_text(page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    main(parser.parse_args())
