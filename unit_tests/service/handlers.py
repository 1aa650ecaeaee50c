"""Handlers that load nothing: worker processes import this module."""

import os
import signal
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path


class Echo:
    """A handler: jobs are words, or functions without arguments that a process calls."""

    def __init__(self, batch=1, start_s=0.0):
        time.sleep(start_s)
        self.batch, self.about = batch, {"pid": os.getpid()}

    def __call__(self, jobs):
        return [(len(jobs), job() if callable(job) else job) for job in jobs]


def echo(**options):
    return partial(Echo, **options)


def never_starts():
    raise ValueError("no network here")


def dies_at_start():
    os._exit(3)


def starts_once(flag):
    """The handler of a pool whose processes only start while the file ``flag`` exists."""
    if not Path(flag).exists():
        os._exit(4)
    return Echo()


def die():
    os._exit(7)


def sleep(seconds, result="slept"):
    time.sleep(seconds)
    return result


def stop():
    """Stop this process as a debugger would."""
    os.kill(os.getpid(), signal.SIGSTOP)


def answer_that_stops():
    """An answer whose process stops behind its head, which is sent first where an answer is long."""

    def send_and_stop(self, data, write=os.write):
        write(self.fileno(), data)
        stop()

    Connection._send = send_and_stop
    return bytes(100_000)


class Choosy(Echo):
    """Ends its process when it gets several jobs at once."""

    def __call__(self, jobs):
        if len(jobs) > 1:
            os._exit(8)
        return super().__call__(jobs)


def choosy():
    return Choosy(batch=4)
