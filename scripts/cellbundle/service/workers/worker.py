"""One process of a pool, and the thread that drives it."""

import logging
import multiprocessing
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from .queue import IDLE_S, TaskQueue
from .tasks import CrashedError, Handler, PoolError, Task, TimedOutError

logger = logging.getLogger(__name__)

LONGEST_PAUSE_S = 60.0  # between two starts
START_S = 300.0  # a process may take so long to load its networks
PING_S = 1.0  # between two questions to an idle process whether it still runs
SILENT_S = 3.0  # without an acknowledgement a process counts as stopped


def clean_context(preload: Sequence[str]) -> Any:
    """How processes are started: clean ones, because a fork of this one would copy locks of its threads.

    Where the system can, they are forked from a small server process that has imported ``preload``, which saves the
    seconds that PyTorch and MONAI take; nothing is computed in it, so CUDA is not in use there either.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


class Worker:
    """A process and a thread that starts it, gives it tasks, and kills and replaces it.

    Args:
        queue: of the tasks.
        context: of multiprocessing, to start processes.
        make_handler: makes the handler of the process, in the process.
        on_failed_start: called after the process could not be started.

    Attributes:
        ready: the process can work.
        failed_starts: number of failed starts since the last good one.
        restarts: number of processes that were replaced.
        error: why the last failed start failed.
        about: ``about`` of the handler.
    """

    def __init__(
        self,
        queue: TaskQueue,
        context: Any,
        make_handler: Callable[[], Handler],
        on_failed_start: Callable[[], None],
    ) -> None:
        self.queue, self.context = queue, context
        self.make_handler, self.on_failed_start = make_handler, on_failed_start
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.process: Any = None
        self.connection: Connection[Any, Any]
        self.ready = False
        self.failed_starts = self.restarts = 0
        self.error = ""
        self.batch = 1
        self.about: Any = None

    def kill(self) -> None:
        """End the process now."""
        self.ready = False
        if self.process is not None and self.process.ident is not None:
            self.process.kill()

    def _run(self) -> None:
        first = True
        while not self.queue.stopped:
            self.restarts += not first
            first = False
            reason = self._start()
            if reason is None:
                self.failed_starts = 0
                self.ready = True
                logger.info("worker %d is ready", self.process.pid)
                self.queue.notify()
                self._feed()
            elif not self.queue.stopped:
                self.error = reason
                self.failed_starts += 1
                logger.error("a worker cannot start (%d in a row): %s", self.failed_starts, reason)
                self.on_failed_start()
                self.queue.notify()
                self.queue.pause(min(2.0 ** (self.failed_starts - 1), LONGEST_PAUSE_S))
            self.kill()
            if self.process.ident is not None:
                self.process.join()
            self.connection.close()

    def _start(self) -> str | None:
        """Start a process; why it cannot work, or None."""
        self.connection, there = self.context.Pipe()
        self.process = self.context.Process(target=_work, args=(there, self.make_handler), daemon=True)
        late = threading.Event()
        try:
            with there:
                self.process.start()
            if self.queue.stopped:  # too late for it to be seen by who stopped the pool
                self.process.kill()
            with self._deadline(START_S) as late:
                error, self.batch, self.about = self.connection.recv()
        except EOFError:
            if self.process.ident is None:  # the server that forks has ended
                return "no process could be made"
            self.process.join()
            if late.is_set():
                return f"it was not ready after {START_S:.0f} s"
            return f"it ended with exit code {self.process.exitcode}"
        except OSError as problem:
            return str(problem)
        return error

    def _feed(self) -> None:
        """Hand out tasks until the process is lost."""
        heard = time.monotonic()
        while self.process.is_alive() and not self.queue.stopped:
            tasks = self.queue.take(self.batch)
            if tasks and not self.process.is_alive():
                self.queue.put_back(tasks)
            elif tasks:
                if not self._hand_over(tasks):
                    return
                heard = time.monotonic()
            elif time.monotonic() - heard > PING_S:
                if not self._answers():
                    return
                heard = time.monotonic()

    @contextmanager
    def _deadline(self, seconds: float) -> Iterator[threading.Event]:
        """Kill the process if the block takes longer; then the event is set and the connection raises ``EOFError``.

        A time-out of the connection is not enough: it ends the wait for the first byte, and a process may stop in the
        middle of what it sends.
        """
        late = threading.Event()

        def end(process: Any = self.process) -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()

    def _answers(self) -> bool:
        """Whether the idle process still runs; it is killed if not."""
        try:
            with self._deadline(SILENT_S):
                self.connection.send([])
                self.connection.recv()
        except (EOFError, OSError):
            self.ready = False
            logger.warning("an idle worker ended, or was stopped for %.0f s", SILENT_S)
        return self.ready

    def _hand_over(self, tasks: list[Task]) -> bool:
        """Have tasks worked on; False if the process is lost."""
        started = time.monotonic()
        begun = False
        late = threading.Event()
        try:
            with self._deadline(min(task.timeout_s for task in tasks)) as late:
                self.connection.send([task.job for task in tasks])
                self.ready = self.connection.poll(SILENT_S)
                if not self.ready:
                    logger.warning("worker %s has not taken its job after %.0f s", self.process.pid, SILENT_S)
                begun = self.ready = self.connection.recv()
                outcomes = self.connection.recv()
        except (EOFError, OSError):
            self.ready = False
            self.process.join(IDLE_S)
            if late.is_set():
                logger.warning("a worker is stopped after %.1f s of work", time.monotonic() - started)
            else:
                logger.warning("a worker ended with exit code %s while it worked", self.process.exitcode)
        else:
            for task, outcome in zip(tasks, outcomes, strict=True):
                task.future.set_result(outcome)
            self.queue.done(tasks, time.monotonic() - started)
            return True
        if tasks[0].alone or (begun and len(tasks) == 1) or (late.is_set() and not begun):
            error: PoolError = TimedOutError() if late.is_set() else CrashedError()
            for task in tasks:
                task.fail(error)
            self.queue.done(tasks, None)
        else:  # the process had died before, or one of several jobs is to blame: each gets a chance alone
            self.queue.put_back(tasks)
        return False


def _work(connection: "Connection[Any, Any]", make_handler: Callable[[], Handler]) -> None:
    """Main function of a process. It is silent: what there is to say goes through the connection."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the service decides when this one ends
        signal.signal(number, signal.SIG_IGN)
    logging.disable()
    warnings.simplefilter("ignore")
    try:
        handler = make_handler()
    except Exception as error:  # noqa: BLE001 - the reason must reach the log, whatever it is
        connection.send((f"{type(error).__name__}: {' '.join(str(error).split())}", 1, None))
        return
    try:
        connection.send((None, handler.batch, handler.about))
        while True:
            jobs = connection.recv()
            connection.send(True)  # from here on, it is the jobs that end this process
            if jobs:  # none: a question whether this process still runs
                connection.send(handler(jobs))
    except (EOFError, BrokenPipeError):
        return  # the service is gone
    except Exception:  # noqa: BLE001 - no trace: the service sees that the process ended
        sys.exit(1)
