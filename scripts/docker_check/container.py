"""The image as a container: with the limits of compose.yaml, in a network of its own, until it is told to stop."""

import http.client
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

from .rootfs import UNPRIVILEGED, Stage, call

PORT = 5050
KERNELS = "var/cache/cellbundle"  # the volume of compose.yaml
START_S, STOP_S = 120, 40


def limit(stage: Stage) -> None:
    """Make the files read-only, but for the volume, which begins with what the image has there."""
    volume = stage.folder / "volume"
    shutil.copytree(stage.root / KERNELS, volume)
    call("chown", "--recursive", stage.user, volume)
    call("mount", "-o", "remount,ro", stage.root)
    call("mount", "--bind", volume, stage.root / KERNELS)
    call("ip", "link", "set", "lo", "up")


def check(stage: Stage, image: Path) -> list[str]:
    """Start the service, ask it, stop it; what was wrong."""
    limit(stage)
    words = [*stage.settings["ENTRYPOINT"], *stage.settings.get("CMD", [])]
    started = time.monotonic()
    service = subprocess.Popen(stage.command(words, {}, *UNPRIVILEGED))
    try:
        if not _healthy(stage, service, START_S):
            return [f"not healthy within {START_S} s (exit code {service.poll()})"]
        print(f"healthy after {time.monotonic() - started:.1f} s", flush=True)
        problems = [*_ask(image), *_users(service.pid, stage.user)]
        service.send_signal(signal.SIGTERM)
        started = time.monotonic()
        code = service.wait(STOP_S)
        print(f"stopped after {time.monotonic() - started:.1f} s", flush=True)
        problems += [f"exit code {code} after SIGTERM"] if code else []
        return problems + (["the health check passes without a service"] if _healthy(stage, service, 0) else [])
    finally:
        service.kill()


def _healthy(stage: Stage, service: subprocess.Popen[bytes], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        words = stage.command(stage.settings["HEALTHCHECK"], {}, *UNPRIVILEGED)
        if subprocess.run(words, check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return True
        if service.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(1)


def _ask(image: Path) -> list[str]:
    """The page, and the number of cells in an image."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    connection.request("GET", "/")
    page = connection.getresponse()
    if page.status != 200 or b"cellbundle" not in page.read():
        return [f"the page answers {page.status}"]
    connection.request("POST", "/v1/segment", image.read_bytes(), {"Content-Type": "image/png"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        return [f"/v1/segment answers {answer.status}: {text[:200]!r}"]
    cells = json.loads(text)["n"]
    print(f"{cells} cells in {image.name}", flush=True)
    return [] if cells else ["no cell was found"]


def _users(service: int, expected: str) -> list[str]:
    """The service and its workers run as the user of the image, and can become nobody else."""
    problems = []
    for status in Path("/proc").glob("[0-9]*/status"):
        lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        if int(lines["Pid"]) == service or int(lines["PPid"]) == service:
            uid, gid = lines["Uid"].split()[0], lines["Gid"].split()[0]
            if f"{uid}:{gid}" != expected or lines["NoNewPrivs"] != "1" or int(lines["CapEff"], 16):
                problems.append(f"{lines['Name']} runs as {uid}:{gid} with capabilities {lines['CapEff']}")
    return problems
