"""What goes through a pool of workers, and what can become of it."""

from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol


class Handler(Protocol):
    """What a process runs.

    Attributes:
        batch: jobs that it takes at once.
        about: anything that can be pickled, for whoever asks the pool.
    """

    batch: int
    about: Any

    def __call__(self, jobs: Sequence[Any]) -> list[Any]:
        """One outcome for each job; it must not raise for what is wrong with a job."""
        ...


class PoolError(Exception):
    """A job was not done."""


class FullError(PoolError):
    """Too many jobs wait.

    Args:
        retry_after: seconds until there is likely to be room.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many jobs wait")
        self.retry_after = retry_after


class NotReadyError(PoolError):
    """No process can work."""


class TimedOutError(PoolError):
    """The job took longer than it may; its process was killed."""


class CrashedError(PoolError):
    """The process ended while it worked on the job."""


@dataclass(eq=False)
class Task:
    """A job on its way.

    Attributes:
        job: for the handler.
        timeout_s: of the work on it.
        alone: not to be worked on together with others, because that failed.
        future: of the outcome.
    """

    job: Any
    timeout_s: float
    alone: bool = False
    future: "Future[Any]" = field(default_factory=Future)

    def goes_with(self, other: "Task") -> bool:
        """Whether both may be worked on at once; not with different time-outs, as the shortest would end the work."""
        return not (self.alone or other.alone) and self.timeout_s == other.timeout_s

    def begin(self) -> bool:
        """Whether the work on it may begin; not if it was cancelled."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def fail(self, error: PoolError) -> None:
        """End with an error, unless the task was cancelled or has ended."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)
