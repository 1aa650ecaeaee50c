"""The bounded queue between a pool and its workers."""

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence

from .tasks import FullError, NotReadyError, Task

IDLE_S = 0.2  # an idle worker checks its process this often
FIRST_GUESS_S = 1.0  # duration of a task before one was measured
SMOOTHING = 0.2  # weight of the newest task in the mean


class TaskQueue:
    """Tasks that wait, and a count of those that run.

    Args:
        size: maximum number of waiting tasks.
        workers: number of tasks that run at the same time.

    Attributes:
        seconds: mean duration of a task.
        stopped: the workers are to end.
        changed: condition that is notified of every change; its lock guards the queue.
    """

    def __init__(self, size: int, workers: int) -> None:
        self.size, self.workers = size, workers
        self.seconds = FIRST_GUESS_S
        self.stopped = False
        self.changed = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._running = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def retry_after(self) -> int:
        """Seconds until the present tasks are likely to be done."""
        return max(1, math.ceil(self.seconds * (len(self._waiting) + self._running) / self.workers))

    def put(self, task: Task, accepting: Callable[[], bool]) -> None:
        """Add a task at the end.

        Args:
            task: to be worked on.
            accepting: whether tasks are accepted; called under the lock, so that none comes after ``fail_waiting``.

        Raises:
            FullError: if too many wait.
            NotReadyError: if none are accepted.
        """
        with self.changed:
            if not accepting():
                raise NotReadyError
            if len(self._waiting) + self._running >= self.size + self.workers:
                raise FullError(self.retry_after)
            self._waiting.append(task)
            self.changed.notify()

    def take(self, most: int) -> list[Task]:
        """Return tasks to work on together; empty on timeout."""
        with self.changed:
            self.changed.wait_for(lambda: self._waiting or self.stopped, IDLE_S)
            tasks: list[Task] = []
            while self._waiting and len(tasks) < most and not (tasks and not tasks[0].goes_with(self._waiting[0])):
                task = self._waiting.popleft()
                if task.begin():
                    tasks.append(task)
            self._running += len(tasks)
            return tasks

    def put_back(self, tasks: Sequence[Task]) -> None:
        """Put tasks that were taken to the front of the queue, to be worked on one by one."""
        with self.changed:
            for task in reversed(tasks):
                task.alone = True
                self._waiting.appendleft(task)
            self._running -= len(tasks)
            self.changed.notify()

    def done(self, tasks: Sequence[Task], seconds: float | None) -> None:
        """Count tasks as done, with their duration unless they failed."""
        with self.changed:
            self._running -= len(tasks)
            if seconds is not None:
                self.seconds += SMOOTHING * (seconds / len(tasks) - self.seconds)
            self.changed.notify_all()

    def notify(self) -> None:
        """Wake all threads that wait for a change."""
        with self.changed:
            self.changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than the queue runs."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped, seconds)

    def fail_waiting(self) -> None:
        """Remove all waiting tasks; their futures raise ``NotReadyError``."""
        with self.changed:
            left = list(self._waiting)
            self._waiting.clear()
        for task in left:
            task.fail(NotReadyError())

    def stop(self) -> None:
        """Tell the workers to end, and fail the tasks that wait."""
        self.stopped = True
        self.notify()
        self.fail_waiting()
