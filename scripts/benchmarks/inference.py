"""How fast and how large ``--mode infer`` is: images a second and peak memory.

python scripts/benchmarks/inference.py --bundle bundles/cell_unet IMAGES [--repeats 3]
python scripts/benchmarks/inference.py --bundle bundles/cell_unet --synthetic 8192

IMAGES is a folder, or a datalist with --basedir (its testing images). Each repeat runs in a process of its own; its
time counts from after the imports to the last written file. The median is printed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any


def run_once(bundle: Path, options: dict[str, Any]) -> dict[str, float]:
    """Infer once in this process; wall time in seconds after imports, and peak memory in GB."""
    import monai.engines  # noqa: PLC0415  (imports are not part of the time)
    import monai.handlers  # noqa: F401, PLC0415

    from cellbundle.engine.workflow import CellWorkflow  # noqa: PLC0415

    config = str(bundle / "configs" / "hyper_parameters.yaml")
    started = time.perf_counter()
    workflow = CellWorkflow(config_file=config, mode="infer", logging_file=False, **options)
    workflow.initialize()
    workflow.run()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def run_in_process(bundle: Path, options: dict[str, Any]) -> dict[str, float]:
    """``run_once`` in a fresh process."""
    command = [sys.executable, __file__, "--bundle", str(bundle), "--once", json.dumps(options)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def write_synthetic(folder: Path, size: int) -> None:
    """One large fluorescence image."""
    import tifffile  # noqa: PLC0415

    from cellbundle.synthetic import generate  # noqa: PLC0415

    image, _ = generate("fluorescence", (size, size), n_cells=size * size // 4000, seed=0)
    tifffile.imwrite(folder / "synthetic.tif", image)


def main(arguments: argparse.Namespace) -> None:
    """Run the repeats and print a table row each, then the median."""
    with tempfile.TemporaryDirectory() as scratch:
        images = arguments.images or Path(scratch) / "images"
        if arguments.synthetic:
            images.mkdir()
            write_synthetic(images, arguments.synthetic)
        options: dict[str, Any] = {"output_dir": f"{scratch}/results"}
        if images.is_dir():
            options["input_dir"] = str(images)
        else:
            options |= {"datalist": str(images), "basedir": str(arguments.basedir or images.parent)}
        runs = [run_in_process(arguments.bundle, options) for _ in range(arguments.repeats)]
        count = len(list(Path(scratch, "results").glob("*_labels.tif")))
    seconds = median(run["seconds"] for run in runs)
    print("| run | seconds | images/s | peak GB |\n|---|---|---|---|")
    for number, run in enumerate(runs, 1):
        print(f"| {number} | {run['seconds']:.2f} | {count / run['seconds']:.2f} | {run['gigabytes']:.2f} |")
    print(
        f"| median of {len(runs)} | {seconds:.2f} | {count / seconds:.2f} | {max(r['gigabytes'] for r in runs):.2f} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--basedir", type=Path)
    parser.add_argument("--synthetic", type=int, help="side of one synthetic image, pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.once:
        print(json.dumps(run_once(parsed.bundle, json.loads(parsed.once))))
    elif parsed.images or parsed.synthetic:
        main(parsed)
    else:
        parser.error("give IMAGES or --synthetic SIZE")
