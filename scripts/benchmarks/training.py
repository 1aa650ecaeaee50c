"""Speed of a training by number of processes, and the share of its time that goes into checkpoints.

python scripts/benchmarks/training.py [--bundle cell_unet] [--processes 1 2] [--epochs 3] [--crops 160]

Trains a bundle as it is configured on synthetic images, with one thread a process on a CPU, and prints a table. The
first epoch, which fills caches, does not count. Checkpoints are written at the end of each epoch and every 10 minutes.
"""

import argparse
import csv
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cellbundle.bundles import find_bundle, make_importable
from cellbundle.synthetic import write_dataset

IMAGE = 256  # pixels


def train(root: Path, folder: Path, data: Path, epochs: int, crops: int) -> None:
    """Train in this process, one of those of torchrun; the first one writes the seconds of each checkpoint."""
    from cellbundle import distributed  # noqa: PLC0415  (PyTorch takes seconds to import)
    from cellbundle.engine.handlers.checkpoint import TrainingCheckpoint  # noqa: PLC0415
    from cellbundle.engine.workflow import CellWorkflow  # noqa: PLC0415

    seconds: list[float] = []
    save = TrainingCheckpoint.save_epoch

    def timed(self: TrainingCheckpoint, engine: Any) -> None:
        """``save_epoch``, timed."""
        started = time.perf_counter()
        save(self, engine)
        seconds.append(time.perf_counter() - started)

    setattr(TrainingCheckpoint, "save_epoch", timed)  # noqa: B010  (a method, for mypy)
    make_importable(root)
    workflows = vars(importlib.import_module("scripts.workflow")).values()
    (workflow,) = {one for one in workflows if isinstance(one, type) and issubclass(one, CellWorkflow)} - {CellWorkflow}
    options: dict[str, Any] = {"datalist": str(data), "basedir": str(data.parent), "ckpt_path": str(folder)}
    options |= {"train#trainer#max_epochs": epochs, "crops_per_epoch": crops, "num_workers": 0, "final_test": False}
    running = workflow(config_file=str(root / "configs" / "hyper_parameters.yaml"), logging_file=False, **options)
    running.initialize()
    running.run()
    if distributed.rank() == 0:
        (folder / "seconds.json").write_text(json.dumps(seconds))
    running.finalize()


def measure(root: Path, folder: Path, data: Path, processes: int, epochs: int, crops: int) -> tuple[float, float]:
    """Crops per second, and the share of checkpoints in the time of an epoch."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    words = [__file__, "--bundle", str(root), "--worker", str(folder), str(data)]
    words += ["--epochs", str(epochs), "--crops", str(crops)]
    command = [sys.executable, *(launcher if processes > 1 else []), *words]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.DEVNULL)
    with (folder / "history.csv").open() as file:
        epoch_seconds = [float(row["seconds"]) for row in csv.DictReader(file)][1:]
    in_checkpoints = json.loads((folder / "seconds.json").read_text())[1:]
    return crops * len(epoch_seconds) / sum(epoch_seconds), sum(in_checkpoints) / sum(epoch_seconds + in_checkpoints)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="cell_unet")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--crops", type=int, default=160, help="of an epoch, over all processes")
    parser.add_argument("--worker", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = find_bundle(options.bundle)
    if options.worker:
        train(root, *options.worker, options.epochs, options.crops)
        return
    print("| bundle | processes | crops per second | efficiency | checkpoints |\n|---|---|---|---|---|")
    first = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        data = write_dataset(Path(temporary), n_training=10, n_testing=1, size=(IMAGE, IMAGE), seed=0)
        for processes in options.processes:
            folder = Path(temporary) / f"run{processes}"
            folder.mkdir()
            speed, share = measure(root, folder, data, processes, options.epochs, options.crops)
            first = first or speed / processes
            print(
                f"| {root.name} | {processes} | {speed:.1f} | {speed / first / processes:.0%} | {share:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
