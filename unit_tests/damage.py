"""Damaged copies of files: what disks, kills and editors leave; and files and pickles that must not be opened."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

import numpy as np

SHAPES = [
    b"",
    b"\n",
    b"null",
    b"3",
    b"-1e400",
    b"1" * 5000,
    b'"text"',
    b"[]",
    b"[1]",
    b"{}",
    b'{"a": 1}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"\xff\xfe\x00",
    b"\x00" * 100,
    '{"a": "ä"}'.encode("latin-1"),
]
"""Contents that are no record: other JSON, deep nesting, huge numbers, no UTF-8."""

WRONG = [None, True, -1, 10**30, 1.5, "text", "\0", [], [None], [[1]], {}, {"a": [1]}]
"""Values of other types than those of a record."""


def mutations(original: bytes, n: int, seed: int = 0) -> Iterator[bytes]:
    """Damaged copies of a file: bytes changed, cut off, left out, repeated."""
    random = np.random.default_rng(seed)
    for _ in range(n):
        content = bytearray(original)
        at, length = sorted(random.integers(0, len(content), 2))
        change = random.integers(4)
        if change == 0:
            content[at] ^= 1 << random.integers(8)
        elif change == 1:
            del content[at:]
        elif change == 2:
            del content[at:length]
        else:
            content[at:at] = content[at:length]
        yield bytes(content)


def other_values(record: dict) -> Iterator[bytes]:
    """JSON of an object with each of its values in turn missing, or of another type."""
    for name, original in record.items():
        yield json.dumps({key: value for key, value in record.items() if key != name}).encode()
        for value in WRONG:
            if type(value) is not type(original):
                yield json.dumps(record | {name: value}).encode()


def damaged(original: bytes, n: int, seed: int = 0) -> Iterator[bytes]:
    """Other contents, and mutations, n in all."""
    return islice(chain(SHAPES, mutations(original, n, seed)), n)


@contextmanager
def fifo(path: Path, seconds: float = 20) -> Iterator[None]:
    """Make a FIFO; fail if the block waits for it, instead of waiting for ever."""
    opened = threading.Event()

    def release() -> None:
        opened.set()
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))

    os.mkfifo(path)
    timer = threading.Timer(seconds, release)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    assert not opened.is_set(), f"{path} was opened"


class Call:
    """An object whose pickle calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def bind_socket(path: Path) -> None:
    """Make a socket; its path may be short only, so that it is made in its folder."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)
