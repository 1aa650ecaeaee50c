"""The real service as a process of its own, with the weights of the repository."""

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "bundles" / "cell_unet" / "docs" / "example.png"
TOKEN = "only-for-tests-0123456789"


@contextmanager
def running(*options, **environment):
    """Port of `cellbundle serve` on the loopback interface, until the block ends."""
    command = [sys.executable, "-m", "cellbundle", "serve", "--port", "0", "--threads", "1", *map(str, options)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if match := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                yield _listening(int(match[1]))
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def _listening(port):
    """The port, once something listens there."""
    for _ in range(100):
        with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection, suppress(ConnectionRefusedError):
            connection.connect()
            return port
        time.sleep(0.1)
    raise AssertionError("the service does not listen")


def segment(port, data, query="", token=TOKEN):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Content-Type": "image/png", "Authorization": f"Bearer {token}"}
    connection.request("POST", f"/v1/segment{query}", data, headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()
