"""Measure the memory of a worker of `cellbundle serve` for one large image.

python scripts/benchmarks/memory.py [--side 4096] [--format tiff] [--bundle cell_unet]

The image is a PNG file of side x side pixels, RGBA with 16 bits, with some cells in one corner: few bytes that need
much memory. Printed are the memory of a worker that waits, and the peaks above it of reading and of the whole job.
"""

import argparse
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Self

import imagecodecs
import numpy as np
import psutil

from cellbundle.io import read_image
from cellbundle.service.workers.answers import Job
from cellbundle.service.workers.segmenter import Segmenter, load_bundle
from cellbundle.synthetic import generate

MIB = 2**20
CORNER = 512  # pixels with cells
PAUSE_S = 0.005


class Peak:
    """Largest memory of this process since it was made, in bytes."""

    def __init__(self) -> None:
        self.process, self.bytes, self.over = psutil.Process(), 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.over.wait(PAUSE_S):
            self.bytes = max(self.bytes, self.process.memory_info().rss)


def save_image(path: Path, side: int) -> None:
    """Write the image."""
    picture = generate("fluorescence", (CORNER, CORNER), n_cells=120, seed=0)[0]
    array = np.zeros((side, side, 4), np.uint16)
    array[..., 3] = np.iinfo(np.uint16).max
    array[:CORNER, :CORNER, :3] = picture[..., None]
    path.write_bytes(imagecodecs.png_encode(array))


def main(arguments: argparse.Namespace) -> None:
    """Print the figures."""
    pixels = arguments.side**2
    segmenter = Segmenter({arguments.bundle: arguments.bundle}, partial(load_bundle, "cpu"), pixels, 2)
    idle = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.png")
        save_image(path, arguments.side)
        print(f"a worker that waits: {idle / MIB:.0f} MiB")
        print(f"file: {path.stat().st_size / MIB:.2f} MiB, {pixels / 1e6:.1f} million pixels")
        with Peak() as peak:
            read_image(path, max_pixels=pixels)
        print(f"reading: {(peak.bytes - idle) / MIB:.0f} MiB more")
        if arguments.read:
            return
        started = time.perf_counter()
        with Peak() as peak:
            segmenter([Job(path, arguments.bundle, arguments.format, Path(folder, "answer"))])
        seconds = time.perf_counter() - started
        more = peak.bytes - idle
        print(f"the whole job: {more / MIB:.0f} MiB more, {more / pixels:.0f} bytes a pixel, {seconds:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--format", default="tiff", choices=["json", "geojson", "tiff", "png"])
    parser.add_argument("--bundle", default="cell_unet")
    parser.add_argument("--read", action="store_true", help="only read the image")
    main(parser.parse_args())
