"""Worker processes: time-outs, crashes, the queue."""

import os
import re
import signal
import time
from functools import partial

import pytest
from unit_tests.service import handlers

from cellbundle.service.workers.pool import WorkerPool
from cellbundle.service.workers.tasks import CrashedError, FullError, NotReadyError, TimedOutError

PATIENCE_S = 60


@pytest.fixture
def make():
    pools = []

    def make_pool(handler=None, *, workers=1, queue_size=8, timeout_s=30.0, ready=True):
        pool = WorkerPool(handler or handlers.echo(), workers=workers, queue_size=queue_size, timeout_s=timeout_s)
        pools.append(pool)
        pool.start()
        if ready:
            assert pool.wait_until_ready(), pool.error
        return pool

    yield make_pool
    for pool in pools:
        pool.close()


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_outcomes_come_from_other_processes(make):
    pool = make(workers=2)
    until(lambda: pool.alive == 2)
    assert [f.result(PATIENCE_S) for f in [pool.submit(i) for i in range(6)]] == [(1, i) for i in range(6)]
    assert len(set(pool.pids)) == 2
    assert os.getpid() not in pool.pids


def test_a_time_out_ends_the_work_and_frees_the_worker(make):
    pool = make()
    (pid,) = pool.pids
    started = time.monotonic()
    with pytest.raises(TimedOutError):
        pool.submit(partial(handlers.sleep, 600), timeout_s=0.3).result(PATIENCE_S)
    assert time.monotonic() - started < 5
    assert pool.submit("next").result(PATIENCE_S) == (1, "next")
    assert gone(pid)
    assert pool.restarts == 1


def test_a_request_cannot_ask_for_more_time_than_the_pool_allows(make):
    with pytest.raises(TimedOutError):
        make(timeout_s=0.3).submit(partial(handlers.sleep, 600), timeout_s=1000).result(PATIENCE_S)


def test_a_crash_costs_its_own_job_only(make):
    pool = make()
    futures = [pool.submit("before"), pool.submit(handlers.die), pool.submit("after")]
    assert futures[0].result(PATIENCE_S) == (1, "before")
    with pytest.raises(CrashedError):
        futures[1].result(PATIENCE_S)
    assert futures[2].result(PATIENCE_S) == (1, "after")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_is_killed_while_it_works_is_replaced(make, number):
    pool = make()
    future = pool.submit(partial(handlers.sleep, 600))
    until(future.running)
    os.kill(pool.pids[0], number)
    with pytest.raises(CrashedError):
        future.result(PATIENCE_S)
    assert pool.submit("next").result(PATIENCE_S) == (1, "next")


def test_an_idle_worker_that_is_killed_costs_no_job(make):
    pool = make()
    os.kill(pool.pids[0], signal.SIGKILL)
    assert pool.submit("next").result(PATIENCE_S) == (1, "next")
    assert pool.restarts == 1


def test_a_stopped_worker_costs_one_job_its_time_out_and_is_replaced(make):
    pool = make()
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    future = pool.submit("never taken", timeout_s=1.0)
    with pytest.raises(TimedOutError):
        future.result(PATIENCE_S)
    assert 1.0 <= time.monotonic() - started < 3.0
    assert pool.submit("next").result(PATIENCE_S) == (1, "next")
    assert gone(pid)


def test_a_worker_that_stops_in_the_middle_of_an_answer_is_killed_in_time(make):
    pool = make()
    started = time.monotonic()
    with pytest.raises(TimedOutError):
        pool.submit(handlers.answer_that_stops, timeout_s=1.0).result(PATIENCE_S)
    assert time.monotonic() - started < 3.0
    assert pool.submit("next").result(PATIENCE_S) == (1, "next")


def test_jobs_of_a_batch_that_a_stopped_worker_never_takes_time_out_together(make):
    pool = make(handlers.echo(batch=4), timeout_s=1.0)
    first = pool.submit(handlers.stop)
    until(first.running)
    others = [pool.submit(i) for i in range(3)]
    with pytest.raises(TimedOutError):
        first.result(PATIENCE_S)
    assert [other.result(PATIENCE_S) for other in others] == [(3, i) for i in range(3)]
    os.kill(pool.pids[0], signal.SIGSTOP)
    with pool.queue.changed:
        others = [pool.submit(i) for i in range(3)]
    for other in others:
        with pytest.raises(TimedOutError):
            other.result(PATIENCE_S)


def test_a_pool_is_not_ready_while_its_worker_does_not_take_a_job(make, monkeypatch):
    monkeypatch.setattr("cellbundle.service.workers.worker.SILENT_S", 0.2)
    pool = make()
    os.kill(pool.pids[0], signal.SIGSTOP)
    future = pool.submit("later", timeout_s=30)
    until(lambda: not pool.ready)
    assert not future.done()
    os.kill(pool._workers[0].process.pid, signal.SIGCONT)
    assert future.result(PATIENCE_S) == (1, "later")
    assert pool.ready
    assert pool.restarts == 0


def test_an_idle_worker_that_is_stopped_is_replaced(make, monkeypatch):
    monkeypatch.setattr("cellbundle.service.workers.worker.SILENT_S", 0.2)
    monkeypatch.setattr("cellbundle.service.workers.worker.PING_S", 0.1)
    pool = make()
    (pid,) = pool.pids
    time.sleep(0.5)  # it answers
    assert pool.restarts == 0
    os.kill(pid, signal.SIGSTOP)
    until(lambda: pool.restarts == 1 and pool.ready)
    assert gone(pid)


def test_workers_ignore_the_signals_that_stop_the_service(make):
    pool = make()
    (pid,) = pool.pids
    future = pool.submit(partial(handlers.sleep, 0.5))
    until(future.running)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert future.result(PATIENCE_S) == (1, "slept")


def test_a_full_queue_refuses_and_says_when_to_come_back(make):
    pool = make(queue_size=2)
    pool.queue.seconds = 4.0
    futures = [pool.submit(partial(handlers.sleep, 0.6)) for _ in range(3)]
    with pytest.raises(FullError) as error:
        pool.submit("one too many")
    assert error.value.retry_after == 12  # three jobs of 4 s
    assert [f.result(PATIENCE_S) for f in futures] == [(1, "slept")] * 3
    assert pool.queue.seconds < 4.0  # it learns
    assert pool.submit("room again").result(PATIENCE_S) == (1, "room again")


def test_a_job_that_is_cancelled_is_never_begun(make):
    pool = make()
    first, second, third = pool.submit(partial(handlers.sleep, 0.5)), pool.submit(handlers.die), pool.submit("third")
    until(first.running)
    assert second.cancel()
    assert third.result(PATIENCE_S) == (1, "third")
    assert pool.restarts == 0


def test_jobs_that_wait_go_together_where_the_handler_takes_several(make):
    pool = make(handlers.echo(batch=4))
    futures = [pool.submit(partial(handlers.sleep, 0.5))]
    until(futures[0].running)
    futures += [pool.submit(i) for i in range(5)]
    assert [f.result(PATIENCE_S) for f in futures] == [(1, "slept"), (4, 0), (4, 1), (4, 2), (4, 3), (1, 4)]


def test_jobs_of_other_time_outs_do_not_go_together(make):
    pool = make(handlers.echo(batch=4))
    futures = [pool.submit(partial(handlers.sleep, 0.5))]
    until(futures[0].running)
    futures += [pool.submit("a"), pool.submit(partial(handlers.sleep, 9), timeout_s=0.2), pool.submit("c")]
    with pytest.raises(TimedOutError):
        futures[2].result(PATIENCE_S)
    assert [futures[1].result(PATIENCE_S)[1], futures[3].result(PATIENCE_S)[1]] == ["a", "c"]


def test_a_process_that_cannot_be_made_is_tried_again(make, monkeypatch):
    pool = WorkerPool(handlers.echo(), workers=1, queue_size=1, timeout_s=30)
    make_process, failures = pool.context.Process, iter([1])

    def fails_once(*args, **options):
        process = make_process(*args, **options)
        if next(failures, None):
            monkeypatch.setattr(process, "start", lambda: (_ for _ in ()).throw(EOFError))
        return process

    monkeypatch.setattr(pool.context, "Process", fails_once)
    pool.start()
    try:
        assert not pool.wait_until_ready()
        assert "no process" in pool.error
        until(lambda: pool.ready)
    finally:
        pool.close()


def test_of_a_batch_that_fails_each_job_is_tried_alone(make):
    pool = make(handlers.choosy)
    futures = [pool.submit(partial(handlers.sleep, 0.5))]
    until(futures[0].running)
    futures += [pool.submit("a"), pool.submit(handlers.die), pool.submit("b")]
    assert futures[1].result(PATIENCE_S) == (1, "a")
    with pytest.raises(CrashedError):
        futures[2].result(PATIENCE_S)
    assert futures[3].result(PATIENCE_S) == (1, "b")


@pytest.mark.parametrize(
    ("handler", "reason"),
    [(handlers.never_starts, "ValueError: no network here"), (handlers.dies_at_start, "exit code 3")],
)
def test_a_worker_that_cannot_start_is_no_service(make, handler, reason):
    pool = make(handler, ready=False)
    assert not pool.wait_until_ready()
    assert reason in pool.error
    assert not pool.ready


def test_replacements_that_die_at_once_make_the_pool_not_ready_until_one_lives(make, tmp_path, caplog):
    flag = tmp_path / "flag"
    flag.touch()
    pool = make(partial(handlers.starts_once, str(flag)))
    flag.unlink()
    waiting = [pool.submit(handlers.die), pool.submit("waits")]
    until(lambda: not pool.accepting)
    with pytest.raises(NotReadyError):
        pool.submit("no")
    with pytest.raises(NotReadyError):
        waiting[1].result(PATIENCE_S)
    assert re.search("worker.*3 in a row.*exit code 4", caplog.text)
    flag.touch()
    until(lambda: pool.ready)
    assert pool.submit("yes").result(PATIENCE_S) == (1, "yes")


def test_closing_ends_the_processes_and_what_waits(make):
    pool = make()
    (pid,) = pool.pids
    running, waiting = pool.submit(partial(handlers.sleep, 600)), pool.submit("waits")
    until(running.running)
    pool.close()
    assert gone(pid)
    with pytest.raises(CrashedError):
        running.result(0)
    with pytest.raises(NotReadyError):
        waiting.result(0)


def test_after_refusing_what_runs_is_finished_and_nothing_more_is_taken(make):
    pool = make()
    future = pool.submit(partial(handlers.sleep, 0.5))
    pool.refuse()
    with pytest.raises(NotReadyError):
        pool.submit("late")
    assert not pool.ready
    assert future.result(PATIENCE_S) == (1, "slept")


def test_closing_while_a_worker_starts_does_not_wait_for_it(make):
    pool = make(handlers.echo(start_s=600), ready=False)
    time.sleep(0.5)
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 10
