"""A pool of worker processes: a timeout really ends the work, and a crash is survived."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from .queue import TaskQueue
from .tasks import Handler, Task
from .worker import Worker, clean_context

MAX_FAILED_STARTS = 3  # in a row, after which the service is not ready


class WorkerPool:
    """Processes behind a bounded queue.

    Args:
        make_handler: makes the handler of a process, in that process; must be picklable.
        workers: number of processes.
        queue_size: maximum number of jobs that wait.
        timeout_s: maximum duration of the work on a job.
        preload: modules that processes need and that take long to import.
    """

    def __init__(
        self,
        make_handler: Callable[[], Handler],
        *,
        workers: int,
        queue_size: int,
        timeout_s: float,
        preload: Sequence[str] = (),
    ) -> None:
        self.workers, self.timeout_s = workers, timeout_s
        self.queue = TaskQueue(queue_size, workers)
        self.context, self.make_handler = clean_context(preload), make_handler
        self._closing = False
        self._workers = [Worker(self.queue, self.context, make_handler, self._check_starts) for _ in range(workers)]

    def start(self) -> None:
        """Start the processes; returns at once."""
        for worker in self._workers:
            worker.thread.start()

    def wait_until_ready(self) -> bool:
        """Wait for the first process that can work; False if the first start of all failed, see ``error``."""
        with self.queue.changed:
            self.queue.changed.wait_for(lambda: self.ready or all(worker.failed_starts for worker in self._workers))
        return self.ready

    @property
    def ready(self) -> bool:
        """Whether jobs are accepted and a process can work."""
        return not self._closing and any(worker.ready for worker in self._workers)

    @property
    def accepting(self) -> bool:
        """Whether jobs are taken: also while a process is replaced, but not if that failed again and again."""
        return not (self._closing or self._hopeless)

    @property
    def alive(self) -> int:
        """Number of processes that can work."""
        return sum(worker.ready for worker in self._workers)

    @property
    def waiting(self) -> int:
        """Number of jobs that wait."""
        return len(self.queue)

    @property
    def retry_after(self) -> int:
        """Seconds until the present jobs are likely to be done."""
        return self.queue.retry_after

    @property
    def restarts(self) -> int:
        """Number of processes that were replaced."""
        return sum(worker.restarts for worker in self._workers)

    @property
    def about(self) -> Any:
        """``about`` of a handler; None before the first process is ready."""
        return next((worker.about for worker in self._workers if worker.about is not None), None)

    @property
    def error(self) -> str:
        """Why a process could not be started; empty if none failed."""
        return next((worker.error for worker in self._workers if worker.error), "")

    @property
    def pids(self) -> list[int]:
        """Of the processes that can work."""
        return [worker.process.pid for worker in self._workers if worker.ready and worker.process.pid is not None]

    @property
    def _hopeless(self) -> bool:
        return all(worker.failed_starts >= MAX_FAILED_STARTS for worker in self._workers)

    def submit(self, job: Any, timeout_s: float | None = None) -> "Future[Any]":
        """Put a job into the queue. Cancelling the future of one that waits takes it out.

        Args:
            job: for the handler; picklable.
            timeout_s: of the work on it; at most, and by default, that of the pool.

        Returns:
            The outcome, or an error of ``tasks``.

        Raises:
            FullError: if too many wait.
            NotReadyError: if the pool is closing, or its processes cannot be started.
        """
        longest = self.timeout_s if timeout_s is None else min(timeout_s, self.timeout_s)
        task = Task(job, longest)
        self.queue.put(task, lambda: self.accepting)
        return task.future

    def refuse(self) -> None:
        """Take no more jobs; those in the queue are finished."""
        self._closing = True

    def close(self) -> None:
        """End all processes immediately."""
        self.refuse()
        self.queue.stop()
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            if worker.thread.ident is not None:
                worker.thread.join()

    def _check_starts(self) -> None:
        if self._hopeless:
            self.queue.fail_waiting()
