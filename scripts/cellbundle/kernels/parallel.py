"""Run a GIL-free kernel over chunks of its work in plain threads.

numba's own threading layers do not survive a fork (OpenMP) or are not safe to call from two threads (workqueue), and
data-loader workers do both. Plain threads over ``nogil`` kernels have neither problem.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

CHUNKS_PER_THREAD = 8  # of uneven items


THREADS_VARIABLE = "CELLBUNDLE_NUM_THREADS"


def n_threads() -> int:
    """Threads that kernels may use: ``CELLBUNDLE_NUM_THREADS``, else the processors this process may run on."""
    value = os.environ.get(THREADS_VARIABLE, "")
    if value.isdecimal() and int(value) > 0:
        return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_chunks(
    kernel: Callable[..., Any], n_items: int, *args: Any, min_chunk: int = 1, uneven: bool = False
) -> list[Any]:
    """Call ``kernel(start, stop, *args)`` so that together the calls cover ``range(n_items)``.

    Args:
        kernel: releases the GIL and writes to disjoint parts of its array arguments.
        n_items: number of work items.
        *args: passed to every call.
        min_chunk: fewest items worth a call of their own.
        uneven: some items take far longer than others; smaller chunks then keep all threads busy to the end.

    Returns:
        What the calls returned, in the order of their items.
    """
    threads = n_threads()
    parts = min(CHUNKS_PER_THREAD * threads if uneven else threads, n_items // max(1, min_chunk))
    if threads == 1 or parts <= 1:
        return [kernel(0, n_items, *args)]
    bounds = np.linspace(0, n_items, parts + 1).astype(np.int64)
    with ThreadPoolExecutor(threads) as pool:
        calls = [pool.submit(kernel, a, b, *args) for a, b in pairwise(bounds)]
        return [call.result() for call in calls]
