"""How much of the speed of network and decoder is left when ``cellbundle predict`` reads, measures and writes as well.

python scripts/benchmarks/predict.py IMAGES [--bundle cell_unet] [--repeats 3]

IMAGES is a folder. Runs alternate, each in a process of its own: network and decoder alone on images in memory, then
``cellbundle predict`` with ``--save labels`` and with all that it saves by default. Times count from after the imports
and the compilation of the kernels to the last file; medians are printed.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

KINDS = {"network and decoder": "", "--save labels": "labels", "default": "labels,overlay,measurements,page"}


def run_once(folder: Path, bundle: str, kinds: str) -> float:
    """Seconds for all images of a folder, in this process."""
    from cellbundle.cli import main as command  # noqa: PLC0415
    from cellbundle.inference.batch.inputs import find_jobs  # noqa: PLC0415  (imports are not part of the time)
    from cellbundle.inference.predictor import Predictor  # noqa: PLC0415
    from cellbundle.io import read_image  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as scratch:
        jobs, _, _ = find_jobs([folder], scratch)
        predictor = Predictor(bundle)
        predictor(read_image(jobs[0].source).data)
        if not kinds:
            images = [read_image(job.source).data for job in jobs]
            started = time.perf_counter()
            for image in images:
                predictor.segment(image)
            return time.perf_counter() - started
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            command(["predict", str(folder), "--output", f"{scratch}/out", "--bundle", bundle, "--save", kinds])
        seconds = time.perf_counter() - started
        written = len(list(Path(scratch, "out").rglob("*_labels.tif")))
        if written != len(jobs):
            raise RuntimeError(f"{written} of {len(jobs)} label maps were written; run cellbundle predict to see why")
        return seconds


def main(arguments: argparse.Namespace) -> None:
    """Alternate the runs and print their medians."""
    from cellbundle.inference.batch.inputs import find_jobs  # noqa: PLC0415

    seconds: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(arguments.repeats):
        for name, kinds in KINDS.items():
            command = [sys.executable, __file__, str(arguments.images), "--bundle", arguments.bundle, "--once", kinds]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            seconds[name].append(json.loads(done.stdout.splitlines()[-1]))
    count = len(find_jobs([arguments.images], "results")[0])
    base = median(seconds["network and decoder"])
    print(f"{count} images, median of {arguments.repeats}\n\n| run | seconds | images/s | share |\n|---|---|---|---|")
    for name, values in seconds.items():
        middle = median(values)
        print(f"| {name} | {middle:.2f} | {count / middle:.2f} | {base / middle:.0%} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--bundle", default="cell_unet")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.once is None:
        main(parsed)
    else:
        print(json.dumps(run_once(parsed.images, parsed.bundle, parsed.once)))
