"""Run the packaged bundles in a server of MONAI Label: inference compared with a direct run, then training.

scripts/monailabel_check.sh makes the environment and calls this.
"""

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from email import message_from_bytes
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import imageio.v3 as iio
import numpy as np
import tifffile
import yaml
from monai.bundle import ConfigParser
from numpy.typing import NDArray

from cellbundle.bundles import INFERENCE
from cellbundle.record import METADATA
from cellbundle.synthetic import write_dataset
from package_bundle import BUNDLES, package, write_random_weights

SIZE = (96, 160)  # pixels (h, w); not square, because square images hide exchanged axes
START_S, REQUEST_S = 600, 1800
SMALL = "configs/small.yaml"
FLOATS = "floats.tiff"  # values in [0, 1], as CellProfiler sends them
UNSUPPORTED = {"text": "text.png: is not a PNG", "many_channels": "many_channels.tif: axes"}  # image: of the message
SEVERAL_TRAININGS = ("cell_unet",)  # one is enough: all bundles do them in the same way


class Row(NamedTuple):
    """One line of the table."""

    bundle: str
    check: str
    passed: bool
    detail: str


class CheckError(Exception):
    """A request or a command failed; the message says what it answered."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 if all checks passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", metavar="NAME", help=f"default: {' '.join(BUNDLES)}")
    parser.add_argument("--environment", type=Path, required=True, help="virtual environment with MONAI Label")
    parser.add_argument("--full", action="store_true", help="all networks as they are, not small ones")
    parser.add_argument("--keep", type=Path, help="folder to keep the app, the studies and the log of the server in")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.bundles) - set(BUNDLES))
    if unknown:
        parser.error(f"unknown bundles {', '.join(unknown)}; choose from {', '.join(BUNDLES)}")
    names = options.bundles or BUNDLES
    with tempfile.TemporaryDirectory(prefix="monailabel-") as temporary:
        folder = options.keep or Path(temporary)
        python = (options.environment / "bin" / "python").absolute()
        try:
            rows = list(check_bundles(names, folder.absolute(), python, options.full))
        except CheckError as error:
            parser.exit(1, f"error: {error}\n")
    failed = sum(not row.passed for row in rows)
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed or not rows else 0


def check_bundles(names: Sequence[str], folder: Path, python: Path, full: bool) -> Iterator[Row]:
    """Yield and print a row for each check of each bundle, all served by one server."""
    app, studies = folder / "app", folder / "studies"
    shutil.copytree(python.parents[1] / "monailabel" / "sample-apps" / "monaibundle", app, dirs_exist_ok=True)
    for name in names:
        install_bundle(name, app / "model", folder / "dist", python, full)
    images = write_studies(studies, folder / "data")
    print(f"{'bundle':<11}{'check':<24}{'':<6}detail", flush=True)
    with serve(python, app, studies, names, folder / "server.log") as server:
        for row in served_rows(names, app / "model", images, server, python):
            print(f"{row.bundle:<11}{row.check:<24}{'ok' if row.passed else 'FAIL':<6}{row.detail}", flush=True)
            yield row


def served_rows(names: Sequence[str], models: Path, images: Sequence[Path], server: str, python: Path) -> Iterator[Row]:
    """Yield the rows of all bundles, and of a request to each when the others have run in the same server."""
    for name in names:
        yield from check_bundle(name, models / name, images, server, python)
    if len(names) > 1:
        for name in names:
            yield attempt(name, "infer after the others", compare, server, models / name, images[0], python)


def check_bundle(name: str, root: Path, images: Sequence[Path], server: str, python: Path) -> Iterator[Row]:
    """Yield inference, training, and inference with the trained weights."""
    yield from (attempt(name, f"infer {image.suffix[1:]}", compare, server, root, image, python) for image in images)
    yield attempt(name, "infer as CellProfiler", compare, server, root, images[0].with_name(FLOATS), python, True)
    yield attempt(name, "unsupported images", refuse, server, root)
    yield attempt(name, "train", train, server, root)
    yield attempt(name, "infer after training", compare, server, root, images[0], python)
    if name in SEVERAL_TRAININGS:
        yield attempt(name, "train again", train, server, root)
        yield attempt(name, "train, two processes", train, server, root, {"force_multi_gpu": True, "gpus": "0,1"})


def attempt(name: str, check: str, function: Any, *arguments: Any) -> Row:
    """Run a check that returns its detail, or raises ``CheckError``."""
    try:
        return Row(name, check, True, function(*arguments))
    except CheckError as error:
        return Row(name, check, False, " ".join(str(error).split()))


def compare(server: str, root: Path, image: Path, python: Path, upload: bool = False) -> str:
    """Compare the pixels of the server's answer with those of ``monai.bundle run`` without mixed precision."""
    started = time.monotonic()
    answer, kind = (segment_upload if upload else segment)(server, root.name, image)
    seconds = time.monotonic() - started
    given = image_of(answer, kind, image.suffix)
    expected = run_directly(root, image, python)
    if given.shape != expected.shape or not np.array_equal(given, expected):
        different = "of other sizes" if given.shape != expected.shape else f"{np.mean(given != expected):.2%} differ"
        raise CheckError(f"200, but pixels {different}: {given.shape} {given.dtype}, expected {expected.shape}")
    n, (height, width) = len(np.unique(given[given > 0])), given.shape
    if n == 0:
        raise CheckError(f"200, {height}x{width}, pixels equal, but without instances, which shows nothing")
    return f"200, {height}x{width} {given.dtype}, {n} instances, pixels equal, {seconds:.1f} s"


def refuse(server: str, root: Path) -> str:
    """Images that cannot be segmented are refused with what is wrong with them."""
    answers = []
    for image, word in UNSUPPORTED.items():
        try:
            segment(server, root.name, Path(image))
        except CheckError as error:
            if not str(error).startswith("400") or word not in str(error):
                raise
            answers.append(f"{image} 400")
        else:
            raise CheckError(f"{image}: 200, expected 400 with {word!r}")
    return ", ".join(answers)


def segment(server: str, bundle: str, image: Path) -> tuple[bytes, str]:
    """Ask for the label map of an image of the studies; returns the answer and its type."""
    url = f"{server}/infer/{bundle}?{urllib.parse.urlencode({'image': image.stem, 'output': 'all'})}"
    return post(url, urllib.parse.urlencode({"params": json.dumps({"device": "cpu"})}).encode())


def segment_upload(server: str, bundle: str, image: Path) -> tuple[bytes, str]:
    """Ask as CellProfiler's module does: the image is uploaded, in a form of several parts."""
    line = "limit-of-the-parts"
    head = f'--{line}\r\nContent-Disposition: form-data; name="params"\r\n\r\n{{"device": "cpu"}}\r\n--{line}\r\n'
    head += f'Content-Disposition: form-data; name="file"; filename="{image.name}"\r\nContent-Type: image/tiff\r\n\r\n'
    body = head.encode() + image.read_bytes() + f"\r\n--{line}--\r\n".encode()
    return post(f"{server}/infer/{bundle}?image=", body, f"multipart/form-data; boundary={line}")


def train(server: str, root: Path, further: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Train for one epoch; the weights must be other ones."""
    weights = root / "models" / "model.pt"
    before = hashlib.sha256(weights.read_bytes()).hexdigest()
    options = {"device": "cpu", "max_epochs": 1, "val_split": 0.25, "multi_gpu": False, "pretrained": True, **further}
    started = time.monotonic()
    post(f"{server}/train/{root.name}?run_sync=true", json.dumps(options).encode(), "application/json")
    if hashlib.sha256(weights.read_bytes()).hexdigest() == before:
        raise CheckError("200, but model.pt is the same as before")
    return f"200, model.pt changed, {time.monotonic() - started:.1f} s"


def install_bundle(name: str, models: Path, dist: Path, python: Path, full: bool) -> None:
    """Unpack the archive of a bundle where the app looks for it.

    A bundle without weights gets random ones, of its small version unless ``full``, and a decoder that finds instances
    with them: ``untrained`` in its metadata.
    """
    shutil.unpack_archive(package(name, dist), models)
    root = models / name
    if (root / "models" / "model.pt").is_file():
        return
    inference = json.loads((root / INFERENCE).read_text())
    small = {} if full else yaml.safe_load((root / SMALL).read_text())
    small.pop("bases", None)
    set_values(root / "configs" / "train.json", small)
    known = {key: value for key, value in small.items() if key.split("::")[0] in inference}
    untrained = json.loads((root / METADATA).read_text()).get("untrained", {})
    set_values(root / INFERENCE, {**known, **untrained})
    write_random_weights(root, python)


def set_values(path: Path, values: Mapping[str, Any]) -> None:
    """Change a configuration file; ids as on MONAI's command line."""
    parser = ConfigParser(ConfigParser.load_config_file(path))
    parser.update(values)
    ConfigParser.export_config_file(parser.get(), path, fmt=path.suffix[1:])


def write_studies(studies: Path, folder: Path) -> list[Path]:
    """Write labelled synthetic images as MONAI Label keeps them; returns one PNG and one TIFF."""
    datalist = write_dataset(folder, n_training=10, n_testing=0, size=SIZE, seed=0)
    (studies / "labels" / "final").mkdir(parents=True, exist_ok=True)
    images = []
    for number, entry in enumerate(json.loads(datalist.read_text())["training"]):
        images.append(studies / f"cells_{number}{'.tif' if number % 2 else '.png'}")
        iio.imwrite(images[-1], iio.imread(folder / entry["image"]))
        label = iio.imread(folder / entry["label"]).astype(np.uint16)
        iio.imwrite(studies / "labels" / "final" / images[-1].name, label)
    tifffile.imwrite(studies / FLOATS, iio.imread(images[0]).astype(np.float32) / 255)
    (studies / "text.png").write_text("this is no image")
    tifffile.imwrite(studies / "many_channels.tif", np.zeros((5, *SIZE), np.uint8))
    return images[:2]


@contextmanager
def serve(python: Path, app: Path, studies: Path, names: Sequence[str], log: Path) -> Iterator[str]:
    """Run a server of MONAI Label; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(python), "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(studies)]
    command += ["--conf", "models", ",".join(names), "--conf", "zoo_source", "ngc", "--conf", "sam2", "false"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=app, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield wait_for(f"http://127.0.0.1:{port}", process, log)
        finally:
            process.kill()
            process.wait()


def wait_for(server: str, process: subprocess.Popen, log: Path) -> str:
    """Return the address once the server answers; raises ``CheckError`` with its last lines if it does not."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{server}/info/", timeout=5):
                return server
        except OSError:
            time.sleep(0.5)
    raise CheckError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


def post(url: str, body: bytes, kind: str = "application/x-www-form-urlencoded") -> tuple[bytes, str]:
    """Send a request and return the answer and its type; raises ``CheckError`` unless it is 200."""
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_S) as response:
            return response.read(), response.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        raise CheckError(f"{error.code}: {error.read().decode(errors='replace')[:500]}") from error
    except OSError as error:
        raise CheckError(f"the server does not answer: {error!r}") from error


def image_of(answer: bytes, kind: str, suffix: str) -> NDArray:
    """Pixels of the image in an answer of several parts."""
    message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + answer)
    parts = [part for part in message.walk() if (part.get_filename() or "").endswith(suffix)]
    if len(parts) != 1:
        raise CheckError(f"expected one {suffix} file in the answer, got {len(parts)}")
    return iio.imread(BytesIO(parts[0].get_payload(decode=True)), extension=suffix)


def run_directly(root: Path, image: Path, python: Path) -> NDArray:
    """Label map of ``monai.bundle run`` with the same weights."""
    with tempfile.TemporaryDirectory() as output:
        command = [str(python), "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
        options = ["--amp", "False", "--device_name", "cpu", "--image", str(image), "--output_dir", output]
        run([*command, *options], root)
        return iio.imread(Path(output) / f"{image.stem}_labels.tif")


def run(command: Sequence[str], folder: Path) -> None:
    """Run a command; raises ``CheckError`` with its last lines if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
