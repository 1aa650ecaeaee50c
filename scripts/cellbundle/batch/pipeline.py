"""Many images: read ahead, segment, write behind, survive bad files."""

import contextlib
import errno
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import CellBundleError
from ..io import Image, printable
from .jobs import Job
from .outputs import files_of, write_files
from .results import Reading, Result, with_table

AHEAD = 2  # images that are read, and results that are written, while the network computes
FULL_DISK = "the disk is full"

Segment = Callable[[NDArray[np.float32]], tuple[NDArray[np.int32], NDArray[np.float32]]]


class FullDiskError(CellBundleError):
    """Nothing more can be written."""


def segment_all(
    jobs: Sequence[Job], folder: Path, kinds: Sequence[str], read: Reading, segment: Segment
) -> Iterator[Result]:
    """Segment images and write their files; reading and writing overlap with the network.

    Args:
        jobs: which images.
        folder: for the results.
        kinds: what to save, see ``cellbundle.batch.outputs``.
        read: gives the image of a file.
        segment: gives label map and scores of an image (C, H, W).

    Yields:
        One result for each job, in their order.

    Raises:
        FullDiskError: if the disk is full; all results so far were yielded.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(AHEAD) as writer:
        try:
            for job, image in _read_ahead(jobs, read, reader):
                waiting.append(_segment_one(job, image, folder, kinds, segment, writer))
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
    except (CellBundleError, OSError, MemoryError) as error:
        return job, error


def _segment_one(
    job: Job, image: Image | Exception, folder: Path, kinds: Sequence[str], segment: Segment, writer: ThreadPoolExecutor
) -> "Future[Result]":
    """Segment in this thread, and write in another."""
    started = time.perf_counter()
    try:
        if isinstance(image, Exception):
            raise image
        labels, scores = segment(image.data)
    except (CellBundleError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        return _finished(Result(job, {}, None, error=_one_line(error, job)))
    return writer.submit(_finish, job, image, labels, scores, folder, kinds, started)


def _finish(
    job: Job,
    image: Image,
    labels: NDArray[np.int32],
    scores: NDArray[np.float32],
    folder: Path,
    kinds: Sequence[str],
    started: float,
) -> Result:
    """Measure and write; what cannot be written leaves nothing of this image behind."""
    files = files_of(job, kinds)
    try:
        instances = with_table(labels, scores, image, kinds)
        write_files(folder, files, image, instances, job)
    except (CellBundleError, OSError, MemoryError) as error:
        for path in files.values():
            with contextlib.suppress(OSError):
                (folder / path).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return Result(job, {}, None, error=FULL_DISK)
        return Result(job, {}, None, error=_one_line(error, job))
    return Result(job, files, instances.table, time.perf_counter() - started)


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


def _one_line(error: Exception, job: Job | None = None) -> str:
    """Message of an error on one line, with the file and, for memory, what to do."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        text = "not enough memory; use a smaller --tile, for example 512, or crop the image"
    if job is not None and job.source.name not in text:
        text = f"{job.source}: {text}"
    return printable(text)
