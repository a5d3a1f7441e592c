"""Keeps the guards of the watched containers: adopts, arms, minds and closes them, all beside the loop."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial

from sidecar import logs
from sidecar.core.model import Container, Reading
from sidecar.errors import ASK_CHECK
from sidecar.guard import Guard, Guarded, GuardUnavailableError
from sidecar.kernel.cgroup import MemoryCgroup, MemorySource
from sidecar.watch.life import Life
from sidecar.watch.workers import Job, Workers

# What keeps a container from being guarded may pass: a full disk.
_RETRY_S = 60.0
# A container that its runtime is setting up shows its cgroup soon.
_LOOK_S = 3.0

_UNSEEN = f"its cgroup can't be seen: {ASK_CHECK}"


class Guards:
    """Does nothing at all without a guard, which is the default."""

    def __init__(self, guard: Guard | None, workers: Workers) -> None:
        self._guard = guard
        self._workers = workers
        # Letting go in time waits for nobody: every other thread may be waiting for a disk, and no further one be had.
        self._keepers = workers if guard is None else Workers(standing=1)
        self._limit = logs.RateLimit(interval_s=3600.0)

    def tend(self, life: Life, container: Container, source: MemorySource, reading: Reading) -> None:
        """Get a container's guard ready, and let it follow the limit; about once a second."""
        now_s = time.monotonic()
        if self._guard is None:
            return
        if life.guarded is not None:
            guarded = life.guarded
            self._beside(life.tended, lambda: guarded.arm(reading, time.monotonic()), self._workers)
        elif now_s >= life.adopt_from_s:
            if isinstance(source, MemoryCgroup):
                life.adopt_from_s = now_s + _RETRY_S
                guard = self._guard
                adopt = partial(self._adopt, guard, life, container, source, reading)
                self._beside(life.tended, adopt, self._workers)
            else:
                life.adopt_from_s = now_s + _LOOK_S
                if life.why_no_guard is not None:
                    self._report(life, container, _UNSEEN)
                life.why_no_guard = _UNSEEN

    def mind(self, life: Life) -> None:
        """See to the bound of time of what is held, whatever else is being done to it; at each sample."""
        guarded = life.guarded
        if guarded is not None and guarded.is_held:
            self._beside(life.minded, lambda: guarded.keep(time.monotonic()), self._keepers)

    def drop(self, life: Life) -> None:
        """Undo what was done to a container; it may be guarded again."""
        if life.guarded is not None:
            self._beside(life.tended, lambda: _close(life), self._workers)

    def close(self, life: Life, container: Container) -> None:
        """The container has ended."""
        self._limit.forget(container.key)
        if self._guard is not None:

            def close() -> None:
                life.tended.wait()
                _close(life)

            self._workers.run(close)

    @staticmethod
    def _beside(idle: threading.Event, job: Job, workers: Workers) -> None:
        """One job at a time, as ``idle`` tells: what is skipped comes again soon."""
        if idle.is_set():
            idle.clear()

            def run() -> None:
                try:
                    job()
                finally:
                    idle.set()

            workers.run(run)

    def _adopt(self, guard: Guard, life: Life, container: Container, memory: MemoryCgroup, reading: Reading) -> None:
        try:
            guarded = guard.adopt(memory, container.name)
        except GuardUnavailableError as error:
            self._report(life, container, str(error))
            return
        guarded.arm(reading, time.monotonic())
        life.guarded, life.why_no_guard = guarded, None

    def _report(self, life: Life, container: Container, reason: str) -> None:
        life.why_no_guard = reason
        if self._limit.admit(container.key, time.monotonic()) is not None:
            logs.event(
                logging.WARNING,
                "no-guard",
                f"container {container.name} isn't guarded: {reason}",
                container=container.name,
            )


def _close(life: Life) -> None:
    guarded: Guarded | None = life.guarded
    if guarded is not None:
        guarded.close()
        life.guarded, life.guard_before = None, guarded.record
