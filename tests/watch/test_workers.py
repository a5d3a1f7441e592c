"""Jobs are never lost: not by a job that raises, and not where no thread can be started."""

from __future__ import annotations

import threading
import time

import pytest

from sidecar.watch.workers import Workers

DEADLINE_S = 60.0


def test_a_job_that_raises_stops_nothing() -> None:
    """The next job runs, and the workers are idle in the end."""
    workers, done = Workers(), threading.Event()
    workers.run(lambda: 1 // 0)  # type: ignore[arg-type] # its result is never looked at
    workers.run(done.set)
    assert done.wait(DEADLINE_S)
    workers.join(DEADLINE_S)
    assert workers.is_idle


def test_more_jobs_than_standing_threads_run_at_once() -> None:
    """Ten jobs that wait for each other all get a thread, and the further threads end again."""
    workers, barrier = Workers(), threading.Barrier(10)
    before = threading.active_count()
    for _ in range(10):
        workers.run(lambda: barrier.wait(DEADLINE_S))  # type: ignore[arg-type] # as above
    workers.join(DEADLINE_S)
    assert not barrier.broken
    deadline_s = time.monotonic() + DEADLINE_S
    while threading.active_count() > before:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_without_further_threads_jobs_wait_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the pod's limit of processes the standing threads do everything, and taking a job doesn't fail."""
    workers = Workers()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ran = []
    for number in range(20):
        workers.run(lambda number=number: ran.append(number))  # type: ignore[misc] # mypy can't infer lambda defaults
    workers.join(DEADLINE_S)
    assert sorted(ran) == list(range(20))


def test_no_job_is_stranded_behind_long_ones() -> None:
    """The standing threads are busy for minutes: whatever comes meanwhile runs at once, again and again."""
    workers, release = Workers(), threading.Event()
    for _ in range(3):
        workers.run(lambda: release.wait(DEADLINE_S))  # type: ignore[arg-type] # as above
    try:
        for _ in range(500):
            done = threading.Event()
            workers.run(done.set)
            assert done.wait(DEADLINE_S)
    finally:
        release.set()
