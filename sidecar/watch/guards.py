"""Keeps the guards of the watched containers: adopts, arms, minds and closes them, all beside the loop."""

from __future__ import annotations

import logging
import time

from sidecar import logs
from sidecar.core.model import Container, Reading
from sidecar.guard import Guard, GuardUnavailableError
from sidecar.kernel.cgroup import MemoryCgroup, MemorySource
from sidecar.watch.life import Life
from sidecar.watch.workers import Job, Workers


class Guards:
    """Does nothing at all without a guard, which is the default."""

    def __init__(self, guard: Guard | None, workers: Workers) -> None:
        self._guard = guard
        self._workers = workers

    def tend(self, life: Life, container: Container, source: MemorySource, reading: Reading) -> None:
        """Get a container's guard ready, and let it follow the limit; about once a second."""
        if self._guard is None or life.why_no_guard is not None:
            return
        if life.guarded is not None:
            guarded = life.guarded
            self._beside(life, lambda: guarded.arm(reading, time.monotonic()))
        elif isinstance(source, MemoryCgroup):
            guard = self._guard
            self._beside(life, lambda: _adopt(guard, life, container, source, reading))

    def mind(self, life: Life) -> None:
        """See to the bound of time of what is held; at each sample."""
        guarded = life.guarded
        if guarded is not None and guarded.is_held:
            self._beside(life, lambda: guarded.keep(time.monotonic()))

    def close(self, life: Life) -> None:
        """The container has ended."""
        if self._guard is not None:
            self._workers.run(lambda: _close(life))

    def _beside(self, life: Life, job: Job) -> None:
        """One job at a time for each container: what is skipped comes again soon."""
        if life.tended.is_set():
            life.tended.clear()

            def run() -> None:
                try:
                    job()
                finally:
                    life.tended.set()

            self._workers.run(run)


def _adopt(guard: Guard, life: Life, container: Container, memory: MemoryCgroup, reading: Reading) -> None:
    try:
        guarded = guard.adopt(memory)
    except GuardUnavailableError as error:
        life.why_no_guard = str(error)
        logs.event(
            logging.WARNING,
            "no-guard",
            f"container {container.name} isn't guarded: {error}",
            container=container.name,
        )
        return
    guarded.arm(reading, time.monotonic())
    life.guarded = guarded


def _close(life: Life) -> None:
    life.tended.wait()
    if life.guarded is not None:
        life.guarded.close()
