"""Print what tracking costs a training: time per step without, with a live server, and with servers that are no use.

python scripts/benchmarks/tracking.py [--steps 60] [--rounds 5] [--size 128] [--batch 8]

Trains cell_unet on synthetic images on the CPU. Every round trains once in each setting, in turn, so that what else the
machine does hits all alike; the table has the median over rounds. Needs the extra `mlflow`.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ignite.engine import Events

from cellbundle.engine.workflow import CellWorkflow
from cellbundle.synthetic import write_dataset

CONFIG = Path(__file__).resolve().parents[2] / "bundles" / "cell_unet" / "configs" / "hyper_parameters.yaml"
SETTINGS = ("without", "server", "server down", "server hangs")
LEFT_OUT = 5  # first steps of a training, which warm up


@contextmanager
def live_server(folder: Path) -> Iterator[str]:
    """Address of an MLflow server of our own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"),
        *("--artifacts-destination", str(folder / "artifacts"), "--port", str(port), "--workers", "1"),
    ]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=folder, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        while not answers(address):
            if process.poll() is not None:
                sys.exit("the MLflow server ended; is the extra `mlflow` installed?")
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def answers(address: str) -> bool:
    """Whether a server is up."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2):
            return True
    except OSError:
        return False


@contextmanager
def useless_servers() -> Iterator[tuple[str, str]]:
    """Addresses where nobody listens, and where somebody takes calls and says nothing."""
    with socket.socket() as closed, socket.socket() as silent:
        closed.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        yield tuple(f"http://127.0.0.1:{one.getsockname()[1]}" for one in (closed, silent))


def train(uri: str | None, folder: Path, datalist: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Median milliseconds of a step, and seconds from the last step to the end."""
    workflow = CellWorkflow(
        config_file=str(CONFIG),
        logging_file=False,
        datalist=str(datalist),
        basedir=str(datalist.parent),
        ckpt_path=str(folder),
        output_dir=str(folder / "eval"),
        device_name="cpu",
        num_workers=0,
        batch_size=options.batch,
        crops_per_epoch=options.batch * options.steps,
        roi_size=[options.size, options.size],
        val_interval=1000,
        final_test=False,
        amp=False,
        mlflow_tracking_uri=uri,
        mlflow_log_system_metrics=uri is not None,
        **{"train#trainer#max_epochs": 1, "network_def#features": [16, 32, 64]},
    )
    workflow.initialize()
    times: list[float] = []
    workflow.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: times.append(time.perf_counter()))
    workflow.run()
    waited = time.perf_counter() - times[-1]
    steps = [after - before for before, after in zip(times[LEFT_OUT:], times[LEFT_OUT + 1 :], strict=False)]
    return 1000 * statistics.median(steps), waited


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="steps of a training")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=128, help="pixels of a crop")
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {setting: [] for setting in SETTINGS}
    with tempfile.TemporaryDirectory() as name, live_server(Path(name)) as live, useless_servers() as (down, silent):
        datalist = write_dataset(Path(name) / "data", n_training=4, n_testing=0, size=(256, 256), seed=0)
        addresses = dict(zip(SETTINGS, (None, live, down, silent), strict=True))
        for number in range(options.rounds):
            for setting, uri in addresses.items():
                folder = Path(name) / f"{setting} {number}"
                found[setting].append(train(uri, folder, datalist, options))
    print("| tracking | ms a step | against none | seconds from the last step to the end |\n|---|---|---|---|")
    base = statistics.median(step for step, _ in found["without"])
    for setting, values in found.items():
        step, wait = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"| {setting} | {step:.1f} | {100 * (step / base - 1):+.1f} % | {wait:.1f} |")


if __name__ == "__main__":
    main()
