"""Signals by which a scheduler asks a training to stop: noted, and answered when a checkpoint can be written."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL: the same command goes on; torchrun turns it into 1
MARKER = "PREEMPTED"  # file in the run folder that says the same
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))  # Windows has one
IMPATIENT_S = 15  # a SIGTERM so much later ends the process; launchers forward one that it has had already

_asked: list[float] = []  # times


def asked() -> bool:
    """Whether this process was asked to stop."""
    return bool(_asked)


@contextmanager
def noted_signals() -> Iterator[None]:
    """Note SIGTERM and SIGUSR1 instead of ending the process; a SIGTERM 15 seconds after the first one ends it."""
    _asked.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def survive_signals() -> None:
    """In a process that loads data: schedulers signal all processes, and it must live until the checkpoint is written.

    Only the SIGTERM of the process that started it ends it, where the system tells who sent it.
    """
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_parent, args=(os.getppid(),), daemon=True).start()


def _wait_for_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _note(number: int, frame: FrameType | None) -> None:
    del frame
    now = time.monotonic()
    if number == signal.SIGTERM and _asked and now - _asked[0] >= IMPATIENT_S:
        raise SystemExit(128 + number)
    _asked.append(now)
