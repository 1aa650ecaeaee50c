"""Start Python programs without the time of their imports.

PyTorch and MONAI take seconds of CPU time to import. ``run`` and ``start`` fork programs from a server process that has
imported them. A program still is a process of its own, with its own arguments, environment, working directory, output
and signals; only its libraries are loaded already.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from itertools import count
from pathlib import Path

LIBRARIES = ("monai.bundle", "torchvision", "timm", "numba", "pandas", "scipy.ndimage", "skimage.measure", "tifffile")
POLL_S = 0.02


class Process:
    """A forked program, with the attributes and methods of ``subprocess.Popen`` that tests need."""

    def __init__(self, command, cwd=None, env=None, stdout=None, stderr=None, start_new_session=False):
        self.args, self.returncode = command, None
        self._done = threading.Event()
        self.pid = _server().start(
            self,
            {
                "arguments": [str(word) for word in command[1:]],
                "cwd": str(cwd or Path.cwd()),
                "env": dict(os.environ if env is None else env),
                "stdout": str(stdout or os.devnull),
                "stderr": str(stderr or os.devnull),
                "session": start_new_session,
            },
        )

    def poll(self):
        return self.returncode

    def wait(self, timeout=None):
        if not self._done.wait(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number):
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def ended(self, code):
        self.returncode = code
        self._done.set()


def run(command, cwd=None, env=None, timeout=600, processes=1):
    """As ``subprocess.run(command, capture_output=True, text=True, check=False)``; ``command[0]`` is this Python.

    Several processes find each other as those of torchrun do; the result is that of the first one that failed.
    """
    base = dict(os.environ if env is None else env)
    environments = [base]
    if processes > 1:
        base |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        base |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        environments = [base | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    with tempfile.TemporaryDirectory() as folder:
        files = [(Path(folder, f"out{rank}"), Path(folder, f"err{rank}")) for rank in range(processes)]
        started = [Process(command, cwd, own, *paths) for own, paths in zip(environments, files, strict=True)]
        try:
            codes = [process.wait(timeout) for process in started]
        finally:
            for process in started:
                process.kill()
        shown = next((rank for rank, code in enumerate(codes) if code), 0)
        texts = [path.read_text(errors="replace") for path in files[shown]]
    return subprocess.CompletedProcess(command, codes[shown], *texts)


def _free_port():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class _Server:
    """Client of the process that forks."""

    def __init__(self):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self.numbers = count()
        self.programs, self.pids = {}, {}
        self.changed = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, program, request):
        number = next(self.numbers)
        with self.changed:
            self.programs[number] = program
            self.process.stdin.write(json.dumps(request | {"number": number}).encode() + b"\n")
            self.process.stdin.flush()
            assert self.changed.wait_for(lambda: number in self.pids, 120), "the server does not fork"
            return self.pids[number]

    def _listen(self):
        for line in self.process.stdout:
            message = json.loads(line)
            with self.changed:
                if "pid" in message:
                    self.pids[message["number"]] = message["pid"]
                    self.changed.notify_all()
                else:
                    self.programs.pop(message["number"]).ended(message["code"])


_started = []


def _server():
    if not _started:
        _started.append(_Server())
    return _started[0]


def _serve():
    """Fork a program for each line of the input, and report its pid and exit code; returns in the program only."""
    running = {}
    waiting = b""
    while True:
        ready, _, _ = select.select([0], [], [], POLL_S if running else None)
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                _report(number=running.pop(pid), code=os.waitstatus_to_exitcode(status))
        if not ready:
            continue
        data = os.read(0, 2**20)
        if not data:  # the tests have ended
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        *lines, waiting = (waiting + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            pid = os.fork()
            if pid == 0:
                return request
            running[pid] = request["number"]
            _report(number=request["number"], pid=pid)


def _report(**message):
    os.write(1, json.dumps(message).encode() + b"\n")


def _become(request):
    """Turn this process into the program."""
    import numpy as np
    import torch

    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["stdout"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (2, request["stderr"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        file = os.open(path, flags, 0o644)
        os.dup2(file, number)
        os.close(file)
    old = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(request["env"])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = paths + [path for path in sys.path[1:] if path not in old]
    random.seed()
    np.random.seed()  # noqa: NPY002 - programs may use the global generator
    if "numba" in sys.modules:
        sys.modules["numba.core.config"].reload_config()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    words = request["arguments"]
    while words[0] in ("-u", "-B"):
        words = words[1:]
    return words


def _execute(words):
    """Run a program as Python does with these arguments."""
    kind, *rest = words
    if kind == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(kind).resolve().parent))
        sys.argv = words
        runpy.run_path(kind, run_name="__main__")


def _end(code):
    """End the process with what the end of a program does, but without clearing the libraries, which takes a second."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _main():
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    gc.collect()
    gc.freeze()  # so that the programs share this memory
    words = _become(_serve())
    warnings.resetwarnings()
    if os.environ.get("PYTHONWARNINGS") == "ignore":
        warnings.simplefilter("ignore")
    try:
        _execute(words)
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            sys.stderr.write(f"{end.code}\n")
        _end(end.code if isinstance(end.code, int) else int(end.code is not None))
    except BaseException:  # noqa: BLE001 - as an interpreter does
        sys.excepthook(*sys.exc_info())
        _end(1)
    _end(0)


if __name__ == "__main__":
    _main()
