"""Chunks over plain threads."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from numba import njit

from cellbundle.kernels.parallel import n_threads, run_chunks


@pytest.fixture
def threads(monkeypatch):
    return lambda n: monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", str(n))


class Recorder:
    """A kernel that notes its calls."""

    def __init__(self):
        self.calls, self.names = [], set()

    def __call__(self, start, stop, *args):
        self.calls.append((int(start), int(stop), *args))
        self.names.add(threading.current_thread().name)

    @property
    def bounds(self):
        return sorted(call[:2] for call in self.calls)


@njit(nogil=True)
def add_index(start, stop, out):
    for i in range(start, stop):
        out[i] += i


@pytest.mark.parametrize(("value", "expected"), [("1", 1), ("2", 2), ("16", 16), ("007", 7)])
def test_the_variable_sets_the_number(threads, value, expected):
    threads(value)
    assert n_threads() == expected


@pytest.mark.parametrize("value", ["", "0", "-2", "many", "1.5"])
def test_other_values_mean_all_processors(threads, value):
    threads(value)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert n_threads() == allowed


def test_without_the_variable_all_processors(monkeypatch):
    monkeypatch.delenv("CELLBUNDLE_NUM_THREADS", raising=False)
    assert n_threads() >= 1


@pytest.mark.parametrize(
    ("n_items", "n", "min_chunk", "expected"),
    [
        (10, 1, 1, [(0, 10)]),
        (10, 2, 1, [(0, 5), (5, 10)]),
        (10, 3, 1, [(0, 3), (3, 6), (6, 10)]),
        (10, 4, 4, [(0, 5), (5, 10)]),  # work for two threads only
        (10, 4, 6, [(0, 10)]),
        (3, 8, 1, [(0, 1), (1, 2), (2, 3)]),
        (3, 8, 0, [(0, 1), (1, 2), (2, 3)]),
        (1, 8, 1, [(0, 1)]),
        (0, 8, 1, [(0, 0)]),
    ],
)
def test_chunks_by_hand(threads, n_items, n, min_chunk, expected):
    threads(n)
    kernel = Recorder()
    run_chunks(kernel, n_items, min_chunk=min_chunk)
    assert kernel.bounds == expected


@pytest.mark.parametrize(
    ("n_items", "n", "min_chunk", "calls"), [(1600, 2, 1, 16), (1600, 2, 400, 4), (1600, 2, 1000, 1), (1600, 1, 1, 1)]
)
def test_uneven_items_come_in_smaller_chunks(threads, n_items, n, min_chunk, calls):
    threads(n)
    kernel = Recorder()
    run_chunks(kernel, n_items, min_chunk=min_chunk, uneven=True)
    assert len(kernel.bounds) == calls
    assert kernel.bounds[0][0] == 0
    assert kernel.bounds[-1][1] == n_items
    assert all(a[1] == b[0] for a, b in pairwise(kernel.bounds))


def test_one_chunk_runs_in_the_calling_thread(threads):
    threads(1)
    kernel = Recorder()
    run_chunks(kernel, 100, "a", 2)
    assert kernel.calls == [(0, 100, "a", 2)]
    assert kernel.names == {threading.current_thread().name}


def test_arguments_reach_every_call(threads):
    threads(3)
    kernel, array = Recorder(), np.zeros(2)
    run_chunks(kernel, 9, array, "x")
    assert len(kernel.calls) == 3
    assert all(call[2] is array and call[3] == "x" for call in kernel.calls)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_every_item_is_done_once(threads, n):
    threads(n)
    for n_items in (0, 1, 2, 6, 7, 100, 1001):
        out = np.zeros(n_items, np.int64)
        run_chunks(add_index, n_items, out, min_chunk=2)
        np.testing.assert_array_equal(out, np.arange(n_items))


@pytest.mark.parametrize("n", [1, 2])
def test_errors_of_a_kernel_are_raised(threads, n):
    threads(n)

    def kernel(start, stop):
        if stop == 10:
            raise ZeroDivisionError(f"{start}..{stop}")

    with pytest.raises(ZeroDivisionError, match=r"\.\.10"):
        run_chunks(kernel, 10)


def test_two_threads_may_call_at_once(threads):
    threads(2)
    outs = [np.zeros(1000, np.int64) for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda out: run_chunks(add_index, 1000, out), outs))
    for out in outs:
        np.testing.assert_array_equal(out, np.arange(1000))
