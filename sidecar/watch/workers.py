"""Threads for work that may take its time, so that the loop never does."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from sidecar import logs
from sidecar.errors import OomHeapDumperError

# Started in calm times: at the crisis a pod may be at its limit of processes, and no thread can be started.
_STANDING = 3

Job = Callable[[], None]


class Workers:
    """Runs jobs beside the loop, each at once if a thread can be had; what a job raises is logged and goes no further.

    A few threads stand ready; further ones are started for jobs that would have to wait, and end when idle.
    """

    def __init__(self, standing: int = _STANDING) -> None:
        """With that many threads that never end."""
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._pending = 0
        self._threads = 0
        for _ in range(standing):
            self._start(standing=True)

    @property
    def is_idle(self) -> bool:
        """Whether no job waits or runs."""
        return self._pending == 0

    def run(self, job: Job) -> None:
        """Take a job; returns at once and never raises."""
        with self._changed:
            self._jobs.append(job)
            self._pending += 1
            crowded = self._pending > self._threads
            self._changed.notify_all()
        if crowded:
            with contextlib.suppress(RuntimeError):  # no further thread can be had: a standing one will come to it
                self._start(standing=False)

    def join(self, grace_s: float) -> None:
        """Wait until all jobs are done, at most ``grace_s``."""
        deadline_s = time.monotonic() + grace_s
        with self._changed:
            while self._pending and (rest_s := deadline_s - time.monotonic()) > 0:
                self._changed.wait(rest_s)

    def _start(self, *, standing: bool) -> None:
        thread = threading.Thread(target=self._work, args=(standing,), daemon=True, name="worker")
        with self._changed:
            self._threads += 1
        try:
            thread.start()
        except RuntimeError:
            with self._changed:
                self._threads -= 1
            raise

    def _work(self, standing: bool) -> None:  # noqa: FBT001 -- the body of a thread, called by no one else
        while (job := self._next(standing=standing)) is not None:
            self._do(job)

    def _next(self, *, standing: bool) -> Job | None:
        """The next job; None ends the thread, which counts no more from the very moment it was found idle."""
        with self._changed:
            while not self._jobs:
                if not standing:
                    self._threads -= 1
                    return None
                self._changed.wait()
            return self._jobs.popleft()

    def _do(self, job: Job) -> None:
        try:
            job()
        except OomHeapDumperError as error:
            logs.event(logging.WARNING, "capture-error", str(error))
        except Exception:  # noqa: BLE001 -- nothing may stop the watch
            logs.fault("capture-crashed", "a capture failed in an unforeseen way")
        finally:
            with self._changed:
                self._pending -= 1
                self._changed.notify_all()
