"""The real service as a process of its own, with the weights of the repository."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "bundles" / "cell_unet" / "docs" / "example.png"
TOKEN = "only-for-tests-0123456789"
PATIENCE_S = 300


class Service:
    """`cellbundle serve` on the loopback interface, which listens; ``log`` has what it said so far."""

    def __init__(self, *options, **environment):
        command = [sys.executable, "-m", "cellbundle", "serve", "--port", "0", *map(str, options)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
        self.log = ""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.port = int(self.wait_for(r"http://127\.0\.0\.1:(\d+)"))
        self._wait_until_it_listens()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _read(self):
        for line in self.process.stderr:
            self.log += line

    def _wait_until_it_listens(self):
        for _ in range(100):
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
            with closing(connection), suppress(ConnectionRefusedError):
                connection.connect()
                return
            time.sleep(0.1)
        raise AssertionError("the service does not listen")

    def wait_for(self, pattern):
        end = time.monotonic() + PATIENCE_S
        while not (found := re.findall(pattern, self.log)):
            assert time.monotonic() < end, self.log
            assert self.process.poll() is None, self.log
            time.sleep(0.05)
        return found[-1]

    def ask(self, method, path, body=None, kind="image/png", token=None):
        """Status, body and headers of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        headers = {"Content-Type": kind} if body else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        connection.request(method, path, body, headers)
        with closing(connection):
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        self.reader.join(PATIENCE_S)
        self.process.stderr.close()
        return code
