"""Many images: read ahead, segment, write behind, survive bad files."""

import contextlib
import errno
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ...errors import CellBundleError, is_out_of_memory
from ...io import Image, printable
from ..segment import Segmentation
from .formats import files_of, write_files
from .inputs import Job
from .store import Reading, Result, Store, with_table

logger = logging.getLogger(__name__)

AHEAD = 2  # images that are read, and results that are written, while the network computes
FULL_DISK = "the disk is full"
FULL = (errno.ENOSPC, errno.EDQUOT)
# What decoders, PyTorch and writers raise for an image that they cannot work with: it must not stop the others.
EXPECTED = (CellBundleError, OSError, MemoryError, RuntimeError, ValueError, ArithmeticError, LookupError)

Segment = Callable[[NDArray[np.float32]], Segmentation]


class FullDiskError(CellBundleError):
    """Nothing more can be written."""


def segment_all(
    jobs: Sequence[Job], store: Store, kinds: Sequence[str], read: Reading, segment: Segment
) -> Iterator[Result]:
    """Segment images and write their files; reading and writing overlap with the network.

    Args:
        jobs: which images.
        store: the folder for the results; a finished image is recorded there.
        kinds: what to save, see ``cellbundle.inference.batch.formats``.
        read: gives the image of a file.
        segment: finds the instances of an image (C, H, W).

    Yields:
        One result for each job, in their order.

    Raises:
        FullDiskError: if the disk is full; all results so far were yielded.
    """
    store.claim(jobs, kinds)
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(AHEAD) as writer:
        try:
            for job, image in _read_ahead(jobs, read, reader):
                waiting.append(_segment_one(job, image, store, kinds, segment, writer))
                while len(waiting) > AHEAD or (waiting and waiting[0].done()):
                    yield _checked(waiting.popleft().result())
            while waiting:
                yield _checked(waiting.popleft().result())
        finally:
            reader.shutdown(cancel_futures=True)


def _read_ahead(
    jobs: Sequence[Job], read: Reading, pool: ThreadPoolExecutor
) -> Iterator[tuple[Job, Image | Exception]]:
    """Images, or what was wrong with them, a few files ahead of their use."""
    coming: deque[tuple[Job, Future[Image]]] = deque()
    for job in jobs:
        coming.append((job, pool.submit(read, job.source)))
        if len(coming) > AHEAD:
            yield _loaded(*coming.popleft())
    while coming:
        yield _loaded(*coming.popleft())


def _loaded(job: Job, future: "Future[Image]") -> tuple[Job, Image | Exception]:
    try:
        return job, future.result()
    except EXPECTED as error:
        return job, error


def _segment_one(
    job: Job, image: Image | Exception, store: Store, kinds: Sequence[str], segment: Segment, writer: ThreadPoolExecutor
) -> "Future[Result]":
    """Segment in this thread, and write in another."""
    started = time.perf_counter()
    try:
        if isinstance(image, Exception):
            raise image
        found = segment(image.data)
    except EXPECTED as error:
        return _finished(_failed(job, store, error))
    return writer.submit(_finish, job, image, found, store, kinds, started)


def _finish(job: Job, image: Image, found: Segmentation, store: Store, kinds: Sequence[str], started: float) -> Result:
    """Measure, write and record one image."""
    files = files_of(job, kinds)
    try:
        instances = with_table(found, image, kinds)
        store.forget(job)
        write_files(store.folder, files, image, instances, job)
        seconds = time.perf_counter() - started
        no_data = tuple(map(str, image.no_data))
        result = Result(job, files, instances.table, seconds, no_data=no_data, size=found.size)
        store.keep(result, kinds)
    except EXPECTED as error:
        return _failed(job, store, error)
    return result


def _failed(job: Job, store: Store, error: Exception) -> Result:
    """Result of an image that failed; nothing of it stays, not even of an earlier run."""
    logger.debug("%s", job.source, exc_info=error)
    with contextlib.suppress(OSError):
        store.discard(job)
    full = isinstance(error, OSError) and error.errno in FULL
    return Result(job, {}, None, error=FULL_DISK if full else _one_line(error, job))


def _checked(result: Result) -> Result:
    if result.error == FULL_DISK:
        raise FullDiskError(
            f"no space is left for the results of {result.job.name}; free some and run the same command again: "
            "finished images are kept"
        )
    return result


def _finished(result: Result) -> "Future[Result]":
    future: Future[Result] = Future()
    future.set_result(result)
    return future


def _one_line(error: Exception, job: Job) -> str:
    """Message of an error on one line, with the file and, for memory, what to do."""
    text = " ".join(str(error).split()) or type(error).__name__
    if is_out_of_memory(error):
        text = "not enough memory; use a smaller --tile, for example 512, or crop the image"
    if job.source.name not in text:
        text = f"{job.source}: {text}"
    return printable(text)
