"""How long a bundle takes from image file to label file, stage by stage, beside the parts of the official VISTA2D.

python scripts/benchmarks/end2end.py --bundle vista2d --images DIR --labels DIR [--weights FILE] [--sample 8]
    [--sizes 520x704 1024 2048] [--output docs/benchmarks/end2end.md]

The reference path reads with Pillow, normalises with MONAI's transforms, runs the same network with plain attention in
float32, one window of 256² at overlap 0.625 a call, blends with MONAI's SlidingWindowInferer, decodes with cellpose's
compute_masks and writes with tifffile. Ours are the preprocessing, inferer, decoder and saver of the bundle's
inference.json, with the options that the rows name, each on top of those above it.

Every path runs once to warm up, and its instances are compared with the reference's: where F1 at IoU 0.5 is below
0.99, no time is printed. Then all run in turns; medians are printed. With --sample N the network sees N windows in a
repeat (whole calls), and its time is multiplied by the number of windows; --limit stops it likewise after so many
seconds. All other stages are timed whole.

Without weights the instances of a random network mean nothing. Its answers are then replaced by what a good network
would say, the true flows with noise, cut into the same windows, blended and decoded by every path; the network runs as
well, and its answers to a window are compared with those of plain attention in float32 as numbers.

Images are mosaics of 256x256 tiles of the fluorescence images in --images, with about 400 cells on 1024², or synthetic.
"""

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from end2end_benchmark import tables
from end2end_benchmark.inputs import Picture, cut_tiles, mosaic, real_pictures, synthetic_picture, write_picture
from end2end_benchmark.memory import memory_variants, peak_memory
from end2end_benchmark.overlaps import compare_overlaps
from end2end_benchmark.paths import OVERLAP, Bundle, Variant
from end2end_benchmark.stages import Comparison, Effort
from kernel_benchmark.inputs import noisy_flows
from tqdm import tqdm

from cellbundle.device import choose_device, describe
from cellbundle.kernels.parallel import n_threads

PARTS = ("stages", "rest", "overlaps", "memory")
PACKAGES = ("torch", "monai", "segment-anything", "cellpose", "numba", "numpy", "tifffile", "pillow")
SIZES = [(520, 704), (1024, 1024), (2048, 2048)]  # of images, pixels
REST_SIZE = (1024, 1024)  # of the image on which everything but the network is measured
REST_REPEATS = 5  # for each of --repeats: these stages are short
STAND_IN = "cell_unet"  # its weights are in the repository
SMALLEST = 512  # shorter side of images that overlaps are compared on: several windows


def parse_size(text: str) -> tuple[int, int]:
    """(H, W) of ``HxW``, or of one number for a square."""
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def size_name(size: tuple[int, int]) -> str:
    """As it stands in tables."""
    return f"{size[0]}²" if size[0] == size[1] else f"{size[0]} x {size[1]}"


def version(package: str) -> str:
    """Version of an installed distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


class Benchmark:
    """What all parts share: the bundle, the images and a folder for files."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.arguments, self.scratch = arguments, scratch
        self.device = choose_device(arguments.device)
        self.bundle = Bundle(arguments.bundle, self.device, arguments.weights, scratch, tuple(arguments.config))
        self.effort = Effort(arguments.repeats, arguments.sample, arguments.limit)
        self.has_weights = self.bundle.weights is not None
        self.tiles = cut_tiles(real_pictures(arguments.images, arguments.labels)) if arguments.images else []

    def picture(self, size: tuple[int, int]) -> Picture:
        """An image of this size with its labels."""
        return mosaic(self.tiles, size) if self.tiles else synthetic_picture(size, seed=0)

    def variants(self) -> list[Variant]:
        """The rows that are wanted; the reference always."""
        reference, *others = self.bundle.variants(self.arguments.compile)
        wanted = self.arguments.variants or [""]
        return [reference, *(v for v in others if any(text in v.name for text in wanted))]

    def stages(self) -> Iterator[list[str]]:
        """End to end, one table a size."""
        yield ["## End to end", "", *self.explanation(), ""]
        for size in self.arguments.sizes:
            picture = self.picture(size)
            write_picture(picture, self.scratch / "image.png")
            logits = None if self.has_weights else noisy_flows(picture.labels)
            comparison = Comparison(self.scratch / "image.png", logits)
            first_calls = []
            for variant in tqdm(self.variants(), f"{size_name(size)}: warm-up"):
                row = comparison.add(self.bundle.path(variant))
                if variant.compiled:
                    first_calls.append(f"{variant.name}: the first call took {row.first_call:.0f} s.")
            comparison.measure(self.effort)
            yield [f"### {size_name(size)}, {picture.labels.max()} cells", ""]
            yield [*tables.end_to_end(comparison.rows, self.has_weights), "", *first_calls, ""]

    def explanation(self) -> list[str]:
        """What the columns mean."""
        lines = [
            "Seconds of one image; the network's are those of the timed windows, multiplied by the number of windows."
        ]
        if self.has_weights:
            return [*lines, "F1@.5 compares the instances with those of the reference path."]
        return [
            *lines,
            "There are no weights, so F1@.5 is of the parts after the network: true flows with noise stand for its",
            "answers. The network is compared on one window, with random weights, as a share of its largest answer.",
        ]

    def rest(self) -> Iterator[list[str]]:
        """Everything but the network, on real labels."""
        picture = self.picture(REST_SIZE)
        write_picture(picture, self.scratch / "image.png")
        comparison = Comparison(self.scratch / "image.png", noisy_flows(picture.labels))
        reference, *others = self.bundle.variants()
        for variant in [reference, *(v for v in others if not v.is_reference)]:
            comparison.add(self.bundle.path(variant))
        comparison.measure(Effort(REST_REPEATS * self.arguments.repeats, windows=0))
        yield ["## Everything but the network", ""]
        yield [
            f"{size_name(REST_SIZE)} with {picture.labels.max()} cells; true flows with noise stand for the network's"
        ]
        yield [f"answers. Medians of {REST_REPEATS * self.arguments.repeats} runs.", ""]
        yield [*tables.everything_else(comparison.rows), ""]

    def overlaps(self) -> Iterator[list[str]]:
        """Windows and instances at every overlap."""
        bundle, note = self.bundle, ""
        if not self.has_weights:
            bundle = Bundle(STAND_IN, self.device, None, self.scratch)
            note = (
                f" There are no weights of {self.bundle.root.name}:\n`{STAND_IN}` stands in, in the same windows; "
                "it may have been trained on some of these images."
            )
        count = self.arguments.overlap_images
        if self.tiles:
            found = list(real_pictures(self.arguments.images, self.arguments.labels, SMALLEST))
            pictures = found[:: max(1, len(found) // max(1, count))][:count]
            source = f"fluorescence images of at least {SMALLEST} pixels on the shorter side"
        else:
            pictures, source = [synthetic_picture((520, 704), seed) for seed in range(count)], "synthetic images"
        rows = compare_overlaps(bundle, pictures, self.arguments.sizes, self.scratch)
        yield ["## Overlap", ""]
        yield [
            f"Instances of {len(pictures)} {source}, against those at overlap {OVERLAP} and against the labels.{note}",
            "",
        ]
        yield [*tables.overlaps(rows, [size_name(size) for size in self.arguments.sizes]), ""]

    def memory(self) -> Iterator[list[str]]:
        """Peak memory, each kind of attention in a process of its own."""
        names = [variant.name for variant in memory_variants(self.bundle)]
        if names:
            runs = []
            for name in tqdm(names, "memory"):
                command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                runs.append(json.loads(done.stdout.splitlines()[-1]))
            yield ["## Peak memory", "", *tables.memory(runs), ""]


def heading(benchmark: Benchmark) -> list[str]:
    """What ran."""
    arguments, root = benchmark.arguments, benchmark.bundle.root
    metadata = json.loads((root / "configs" / "metadata.json").read_text())
    source = f"mosaics of `{arguments.images.name}`" if arguments.images else "synthetic images"
    changed = "".join(f", {config.name}" for config in arguments.config)
    weights = benchmark.bundle.weights.name if benchmark.bundle.weights else "random weights"
    installed = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return [
        f"# {root.name} from file to file",
        "",
        "Written by `scripts/benchmarks/end2end.py`, which says how it measures.",
        "",
        f"{root.name} {metadata['version']}{changed}, {weights}; {source}; medians of {arguments.repeats} runs.",
        f"{describe(benchmark.device)}, {n_threads()} threads of the kernels. Python {platform.python_version()};",
        f"{installed}.",
        "",
    ]


def main(arguments: argparse.Namespace) -> None:
    """Print the page, and write it after every table."""
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(arguments, Path(folder))
        if arguments.memory_of:
            (variant,) = (v for v in memory_variants(benchmark.bundle) if v.name == arguments.memory_of)
            print(json.dumps(peak_memory(benchmark.bundle, variant)))
            return
        text = "\n".join(heading(benchmark)) + "\n"
        for part in arguments.parts:
            for lines in getattr(benchmark, part)():
                text += "\n".join(lines) + "\n"
                if arguments.output:
                    arguments.output.write_text(text.rstrip() + "\n", encoding="utf-8")
        print(text.rstrip())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True, help="name or folder")
    parser.add_argument("--weights", type=Path, help="checkpoint; by default the bundle's models/model.pt, else random")
    parser.add_argument("--config", type=Path, action="append", default=[], help="further values of inference.json")
    parser.add_argument("--images", type=Path, help="folder of images; synthetic ones without it")
    parser.add_argument("--labels", type=Path, help="folder of their label maps, files of the same stems")
    parser.add_argument("--sizes", type=parse_size, nargs="+", default=SIZES, help="HxW or sides")
    parser.add_argument("--variants", nargs="+", help="rows whose name contains one of these texts")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, which takes minutes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sample", type=float, default=float("inf"), help="windows a repeat that the network sees")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds a repeat for the network")
    parser.add_argument("--overlap-images", type=int, default=16, help="images for the table of overlaps")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if (parsed.images is None) != (parsed.labels is None):
        parser.error("give --images and --labels together")
    if parsed.memory_of:
        parsed.images = None
    main(parsed)
