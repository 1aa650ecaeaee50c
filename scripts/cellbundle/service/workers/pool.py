"""Processes that work on jobs, so that a time-out really ends the work and a crash is survived; and their queue."""

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from .tasks import FullError, Handler, NotReadyError, Task
from .worker import LOOK_S, Worker, clean_context

logger = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3  # in a row, after which the service is not ready
LONGEST_PAUSE_S = 60.0  # between two starts
FIRST_GUESS_S = 1.0  # of a job, before one was measured
SMOOTHING = 0.2  # weight of the newest job in the mean


class WorkerPool:
    """Processes with a bounded queue in front.

    Args:
        make_handler: makes what a process runs, in the process; must be picklable.
        workers: processes.
        queue_size: jobs that wait at most.
        timeout_s: how long a process works on a job at most.
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
        self.make_handler, self.workers, self.queue_size, self.timeout_s = make_handler, workers, queue_size, timeout_s
        self.context = clean_context(preload)
        self.seconds = FIRST_GUESS_S
        self.about: Any = None
        self.error = ""
        self.restarts = 0
        self._queue: deque[Task] = deque()
        self._running = 0
        self._changed = threading.Condition()
        self._closing = self._stopped = False
        self._workers = [Worker(self) for _ in range(workers)]

    def start(self) -> None:
        """Start the processes; returns at once."""
        for worker in self._workers:
            worker.thread.start()

    def wait_until_ready(self) -> bool:
        """Wait for the first process that can work; False if the first start of all failed, see ``error``."""
        with self._changed:
            self._changed.wait_for(lambda: self.ready or all(worker.failed_starts for worker in self._workers))
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
        """Processes that can work."""
        return sum(worker.ready for worker in self._workers)

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._queue)

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
            The outcome, or one of the errors of this module.

        Raises:
            FullError: if too many wait.
            NotReadyError: if the pool is closing, or its processes cannot be started.
        """
        with self._changed:
            if not self.accepting:
                raise NotReadyError
            if len(self._queue) + self._running >= self.queue_size + self.workers:
                raise FullError(self.retry_after)
            longest = self.timeout_s if timeout_s is None else min(timeout_s, self.timeout_s)
            task = Task(job, longest)
            self._queue.append(task)
            self._changed.notify()
        return task.future

    def refuse(self) -> None:
        """Take no more jobs; those that are there are finished."""
        self._closing = True

    def close(self) -> None:
        """End all processes, whatever they do."""
        self.refuse()
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._fail_waiting()
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            if worker.thread.ident is not None:
                worker.thread.join()

    @property
    def retry_after(self) -> int:
        """Seconds until what is there is likely to be done."""
        return max(1, math.ceil(self.seconds * (len(self._queue) + self._running) / self.workers))

    def take(self, most: int) -> list[Task]:
        """Tasks to work on now, together; none if there are none for a while."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopped, LOOK_S)
            tasks: list[Task] = []
            while self._queue and len(tasks) < most and not (tasks and not tasks[0].goes_with(self._queue[0])):
                task = self._queue.popleft()
                if task.begin():
                    tasks.append(task)
            self._running += len(tasks)
            return tasks

    def put_back(self, tasks: Sequence[Task]) -> None:
        """Put tasks that were taken to the front of the queue, to be worked on one by one."""
        with self._changed:
            for task in reversed(tasks):
                task.alone = True
                self._queue.appendleft(task)
            self._running -= len(tasks)
            self._changed.notify()

    def done(self, tasks: Sequence[Task], seconds: float | None) -> None:
        """Count tasks as done, and their time if it was one of real work."""
        with self._changed:
            self._running -= len(tasks)
            if seconds is not None:
                self.seconds += SMOOTHING * (seconds / len(tasks) - self.seconds)
            self._changed.notify_all()

    def started(self, worker: Worker) -> None:
        """Note that a process can work."""
        with self._changed:
            self.about = worker.about
            self._changed.notify_all()

    def start_failed(self, worker: Worker, reason: str) -> None:
        """Note that a process could not be started, and wait before the next try."""
        self.error = reason
        logger.error("a worker cannot start (%d in a row): %s", worker.failed_starts, reason)
        if self._hopeless:
            self._fail_waiting()
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopped, min(2.0 ** (worker.failed_starts - 1), LONGEST_PAUSE_S))

    @property
    def stopped(self) -> bool:
        """Whether processes are to end."""
        return self._stopped

    def _fail_waiting(self) -> None:
        with self._changed:
            left = list(self._queue)
            self._queue.clear()
        for task in left:
            task.fail(NotReadyError())
