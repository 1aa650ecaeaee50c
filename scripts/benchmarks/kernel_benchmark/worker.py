"""The process in which kernels and peers run, so that a peer can be stopped."""

import multiprocessing
import resource
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cellbundle import synthetic
from cellbundle.kernels.parallel import n_threads

from .cases import CASES, Case

WARM_UP = 96  # side of the map of the first call, pixels
OURS_PER_PEER = 5  # we are so much faster that more calls cost nothing
SLOW = 15  # seconds; a peer that takes longer runs once


def serve(connection: Connection, memory: int) -> None:
    """Answer (case, file of a label map, repeats, whether the peer runs) with events, until the other side closes."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    torch.set_num_threads(n_threads())
    warm = synthetic.generate("fluorescence", (WARM_UP, WARM_UP), 6, seed=1)[1]
    while True:
        try:
            number, path, repeats, with_peer = connection.recv()
        except EOFError:
            return
        case = CASES[number]
        try:
            case.ours(case.inputs(warm))
            if with_peer:
                case.theirs(case.inputs(warm))
            inputs = case.inputs(np.load(path))
            for event in measure_case(case, inputs, repeats, with_peer):
                connection.send(event)
        except Exception as error:  # noqa: BLE001  (whatever a peer raises is its result)
            connection.send(("failed", f"{type(error).__name__}: {error}"[:80]))


def measure_case(case: Case, inputs: Any, repeats: int, with_peer: bool) -> Iterator[tuple[str, Any]]:
    """Events ``ours`` and ``theirs`` (seconds), ``start`` before the peer, ``error`` after its first, ``done``."""
    for number in range(repeats):
        for _ in range(OURS_PER_PEER if with_peer else 1):
            started = time.perf_counter()
            ours = case.ours(inputs)
            yield "ours", time.perf_counter() - started
        if with_peer:
            yield "start", None
            started = time.perf_counter()
            theirs = case.theirs(inputs)
            seconds = time.perf_counter() - started
            yield "theirs", seconds
            if number == 0:
                yield "error", case.error(inputs, ours, theirs)
            if seconds > SLOW:
                break
    yield "done", None


class Worker:
    """A process that measures, and is replaced when a peer has to be stopped."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.start()

    def start(self) -> None:
        """Start the process."""
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, self.memory), daemon=True)
        self.process.start()
        other.close()

    def run(self, case: Case, path: Path, repeats: int, with_peer: bool, limit: float) -> tuple[list, list, str, Any]:
        """Seconds of both sides, a note, and how far the results are apart (None if the peer did not finish)."""
        self.connection.send((CASES.index(case), path, repeats, with_peer))
        ours: list[float] = []
        theirs: list[float] = []
        error = None
        peer_runs = False
        while True:
            if peer_runs and not self.connection.poll(limit):
                self.process.kill()
                self.start()
                return ours, theirs, "" if theirs else f"stopped after {limit:.0f} s", error
            try:
                event, value = self.connection.recv()
            except EOFError:
                self.start()
                return ours, theirs, "the process died", error
            peer_runs = event == "start"
            if event == "ours":
                ours.append(value)
            elif event == "theirs":
                theirs.append(value)
            elif event == "error":
                error = value
            elif event == "failed":
                return ours, theirs, value, error
            elif event == "done":
                return ours, theirs, "", error
