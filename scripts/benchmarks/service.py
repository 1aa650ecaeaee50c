"""Load the service on this machine, then disturb it, and print what it does as a table.

python scripts/benchmarks/service.py [--requests 500] [--clients 4] [--workers 2] [--threads 1] [--bundle cell_unet]

Starts `cellbundle serve` on the loopback interface. Clients send synthetic images of 520 x 704 and ask for label maps;
`cellbundle predict --save labels` works on the same images before and after. Then come a request that takes too long,
more requests than may wait, a worker that is killed and one that is stopped, slow uploads, and idle connections. The
exit code is 1 if anything is not as wanted.
"""

import argparse
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from PIL import Image

SIZE = (520, 704)
IMAGES = 20  # different ones
PREDICTED = 0.2  # images for `cellbundle predict` as a share of the requests
MEDIUM, LARGE = 2, 5  # times the size: one that takes a while, and one that takes longer than a second
WARM = 0.2  # share of the requests after which memory must not grow any more: 100 of 500
HEALTH_PAUSE_S = 0.1
STOPPED_S = 2  # time-out of a request whose worker is stopped
SLOW, IDLE = 40, 600  # clients
ANSWER_S = 300
PREDICT = Path(__file__).with_name("predict.py")


class Row(NamedTuple):
    """A line of the table: what was looked at, what it was, what is wanted, and whether it is so."""

    what: str
    got: str
    wanted: str
    fine: bool = True


class Answer(NamedTuple):
    """An answer of the service, or the name of the error in place of its status."""

    status: int | str
    seconds: float
    headers: dict[str, str]
    body: bytes


class Service:
    """`cellbundle serve` as a process of its own, until the block ends.

    Args:
        options: of the command.
    """

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "cellbundle", "serve", "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.port = self._port()
        threading.Thread(target=self.process.stderr.read, daemon=True).start()  # a full pipe would stop the service
        self.until_ready()

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _port(self) -> int:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if match := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                return int(match[1])
            sys.stderr.write(line)
        raise SystemExit("the service did not start")

    def ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """One request on a connection of its own."""
        started = time.perf_counter()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            connection.request(method, path, body, {"Content-Type": "image/png"} if body else {})
            answer = connection.getresponse()
            content = answer.read()
            return Answer(answer.status, time.perf_counter() - started, dict(answer.getheaders()), content)
        except (OSError, HTTPException) as error:
            return Answer(type(error).__name__, time.perf_counter() - started, {}, b"")
        finally:
            connection.close()

    def segment(self, image: bytes, **options: object) -> Answer:
        """Send an image and ask for its label map."""
        query = "&".join(f"{name}={value}" for name, value in {"format": "tiff", **options}.items())
        return self.ask("POST", f"/v1/segment?{query}", image)

    def workers(self) -> list[psutil.Process]:
        """The processes that hold the bundles: those without children, but for Python's own helper."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        leaves = [one for one in below if not one.children()]
        return [one for one in leaves if "resource_tracker" not in " ".join(one.cmdline())]

    def memory(self) -> int:
        """Bytes that the service and all its processes hold."""
        here = psutil.Process(self.process.pid)
        return sum(one.memory_info().rss for one in [here, *here.children(recursive=True)])

    def until_ready(self) -> float:
        """Wait until a worker can work; for how long."""
        started = time.perf_counter()
        while self.ask("GET", "/readyz").status != 200:
            if time.perf_counter() - started > ANSWER_S:
                raise SystemExit("the service does not become ready")
            time.sleep(0.1)
        return time.perf_counter() - started


def load(service: Service, images: Sequence[bytes], requests: int, clients: int) -> list[Row]:
    """Requests of several clients, each sending the next when it has its answer; meanwhile /healthz."""
    numbers, answers, memory = count(), [], []
    lock, over = threading.Lock(), threading.Event()

    def client() -> None:
        while (number := next(numbers)) < requests:
            answer = service.segment(images[number % len(images)])
            with lock:
                answers.append(answer)
                memory.append(service.memory())

    def pulse() -> list[Answer]:
        beats = []
        while not over.wait(HEALTH_PAUSE_S):
            beats.append(service.ask("GET", "/healthz"))
        return beats

    with ThreadPoolExecutor(clients + 1) as pool:
        health = pool.submit(pulse)
        started = time.perf_counter()
        for work in [pool.submit(client) for _ in range(clients)]:
            work.result()
        seconds = time.perf_counter() - started
        over.set()
        beats = health.result()
    return [*latencies(answers, seconds, clients), growth(memory), pulses(beats)]


def latencies(answers: Sequence[Answer], seconds: float, clients: int) -> list[Row]:
    """Errors, times of answers, and throughput (the last row)."""
    wrong = Counter(answer.status for answer in answers if answer.status != 200)
    p50, p95, p99 = np.percentile([answer.seconds for answer in answers], (50, 95, 99))
    what = f"{len(answers)} requests of {clients} clients"
    errors = ", ".join(f"{number} of {status}" for status, number in wrong.items()) or "none"
    return [
        Row(f"{what}: errors", errors, "none", not wrong),
        Row("time to answer p50 / p95 / p99", f"{p50:.2f} / {p95:.2f} / {p99:.2f} s", ""),
        Row("throughput", f"{len(answers) / seconds:.3f} images/s", ""),
    ]


def growth(memory: Sequence[int]) -> Row:
    """Memory at the end against that when everything was warm, each the median of a tenth of the requests."""
    warm, tenth = int(WARM * len(memory)), max(len(memory) // 10, 1)
    before, after = np.median(memory[warm : warm + tenth]), np.median(memory[-tenth:])
    share = after / before - 1
    got = f"{share:+.1%} ({before / 2**20:.0f} to {after / 2**20:.0f} MiB)"
    return Row(f"memory of all processes since request {warm}", got, "< 5 %", bool(share < 0.05))


def pulses(beats: Sequence[Answer]) -> Row:
    """/healthz while the service is busy."""
    p99 = np.percentile([beat.seconds for beat in beats], 99) * 1000
    fine = all(beat.status == 200 for beat in beats) and p99 < 100
    return Row(f"/healthz p99 of {len(beats)}", f"{p99:.1f} ms", "< 100 ms, all 200", bool(fine))


def predict_seconds(folder: Path, bundle: str) -> float:
    """Seconds of `cellbundle predict --save labels` for the images of a folder, without imports."""
    command = [sys.executable, str(PREDICT), str(folder), "--bundle", bundle, "--once", "labels"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds: float = json.loads(done.stdout.splitlines()[-1])
    return seconds


def too_long(service: Service, small: bytes, large: bytes) -> list[Row]:
    """A request that takes longer than it may, and the one after it."""
    answer = service.segment(large, timeout=1)
    after = service.segment(small)
    stopped = answer.status == 504 and answer.seconds < 3
    return [
        Row("time-out of 1 s", f"{answer.status} after {answer.seconds:.2f} s", "504, < 3 s", stopped),
        Row("the request after it", f"{after.status} after {after.seconds:.1f} s", "200", after.status == 200),
    ]


def full_queue(service: Service, medium: bytes) -> list[Row]:
    """More requests at once than one that is worked on and one that waits."""
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: service.segment(medium), range(6)))
    refused = [answer for answer in answers if answer.status == 503]
    waits = [answer.headers.get("Retry-After", answer.headers.get("retry-after", "")) for answer in refused]
    counted = Counter(answer.status for answer in answers)
    counts = ", ".join(f"{number} of {status}" for status, number in sorted(counted.items()))
    slowest = max((answer.seconds for answer in refused), default=0)
    got = f"{counts}; Retry-After {', '.join(sorted(set(waits)))} s; refused within {slowest:.2f} s"
    fine = {answer.status for answer in answers} == {200, 503} and all(wait.isdigit() and int(wait) for wait in waits)
    return [Row("6 requests at once, of which one may wait", got, "200 and 503 with Retry-After", fine)]


def killed(service: Service, small: bytes, medium: bytes) -> list[Row]:
    """A worker that is killed while it works."""
    with ThreadPoolExecutor(1) as pool:
        victim = pool.submit(service.segment, medium)
        time.sleep(0.5)
        before = {worker.pid for worker in service.workers()}
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        answer = victim.result()
    after = service.segment(small)
    now = {worker.pid for worker in service.workers()}
    works = after.status == 200 and len(now) == len(before) and before.isdisjoint(now)
    return [
        Row("request of a worker that is killed", str(answer.status), "5xx", str(answer.status).startswith("5")),
        Row("the request after it", f"{after.status} after {after.seconds:.1f} s", "200, another worker", works),
    ]


def stopped(service: Service, small: bytes) -> list[Row]:
    """A worker that is stopped, as by a debugger, before a request."""
    (worker,) = service.workers()
    worker.suspend()
    with ThreadPoolExecutor(1) as pool:
        victim = pool.submit(service.segment, small, timeout=STOPPED_S)
        started = time.perf_counter()
        while service.ask("GET", "/readyz").status == 200 and time.perf_counter() - started < ANSWER_S:
            time.sleep(0.05)
        unready = time.perf_counter() - started
        answer = victim.result()
    service.until_ready()
    after = service.segment(small)
    in_time = answer.status == 504 and answer.seconds < STOPPED_S + 2
    return [
        Row(
            f"request of a stopped worker, time-out of {STOPPED_S} s",
            f"{answer.status} after {answer.seconds:.2f} s",
            f"504, < {STOPPED_S + 2} s",
            in_time,
        ),
        Row("/readyz of a stopped worker", f"503 after {unready:.2f} s", "503", unready < STOPPED_S + 2),
        Row("the request when it is ready again", str(after.status), "200", after.status == 200),
    ]


def crowded(service: Service, small: bytes) -> list[Row]:
    """Uploads that do not go on, and connections that ask nothing."""
    head = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    rows = []
    for number, what, begun in ((SLOW, "slow uploads", head), (IDLE, "idle connections", b"")):
        with ExitStack() as stack:
            for _ in range(number):
                one = stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))
                one.sendall(begun)
            health, answer = service.ask("GET", "/healthz"), service.segment(small)
        got = f"/healthz {health.status} after {health.seconds * 1000:.0f} ms, an image {answer.status}"
        rows.append(Row(f"{number} {what}", got, "200, 200", health.status == answer.status == 200))
    return rows


def make_images(folder: Path, files: int) -> tuple[list[bytes], bytes, bytes]:
    """Different images of 520 x 704 as bytes, and again and again as files in a folder; a medium and a large one."""
    from cellbundle.synthetic import generate  # noqa: PLC0415  (--help is immediate)

    pictures = [generate("fluorescence", SIZE, n_cells=120, seed=number)[0] for number in range(IMAGES)]
    images = [png(picture) for picture in pictures]
    for number in range(files):
        (folder / f"{number}.png").write_bytes(images[number % IMAGES])
    medium, large = (png(np.tile(pictures[0], (times, times))) for times in (MEDIUM, LARGE))
    return images, medium, large


def png(picture: np.ndarray) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return file.getvalue()


def main(arguments: argparse.Namespace) -> int:
    """Print the table; 1 if something is not as wanted."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "images")
        folder.mkdir()
        predicted = max(IMAGES, int(PREDICTED * arguments.requests))
        images, medium, large = make_images(folder, predicted)
        options = ["--bundle", arguments.bundle, "--threads", str(arguments.threads)]
        seconds = predict_seconds(folder, arguments.bundle)
        with Service(*options, "--workers", str(arguments.workers)) as service:
            for image in images[: 2 * arguments.workers]:
                service.segment(image)
            rows = load(service, images, arguments.requests, arguments.clients)
        seconds += predict_seconds(folder, arguments.bundle)
        speed = 2 * predicted / seconds
        share = float(rows[2].got.split()[0]) / speed
        rows[3:3] = [
            Row(f"`cellbundle predict --save labels`, {2 * predicted} images", f"{speed:.3f} images/s", ""),
            Row("throughput as a share of it", f"{share:.0%}", "≥ 80 %", share >= 0.8),
        ]
        with Service(*options, "--workers", "1", "--queue-size", "1") as service:
            small = images[0]
            for disturb, *sent in (
                (too_long, small, large),
                (full_queue, medium),
                (killed, small, medium),
                (stopped, small),
                (crowded, small),
            ):
                service.until_ready()
                rows += disturb(service, *sent)
    print("| what | got | wanted | |\n|---|---|---|---|")
    for row in rows:
        verdict = ("yes" if row.fine else "**no**") if row.wanted else ""
        print(f"| {row.what} | {row.got} | {row.wanted} | {verdict} |")
    return 0 if all(row.fine for row in rows) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bundle", default="cell_unet")
    raise SystemExit(main(parser.parse_args()))
