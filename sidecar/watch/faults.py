"""Faults of ours with single processes: whatever a process shows us, it doesn't stop the work for the others."""

from __future__ import annotations

import threading
import time

from sidecar import logs
from sidecar.core.model import Process


class Faults:
    """Counts and logs them; one instance for one kind of work, safe in several threads."""

    def __init__(self, what: str) -> None:
        """``what`` is the work, for people, such as "reading the heap"."""
        self.count = 0
        self._what = what
        self._limit = logs.RateLimit()
        self._lock = threading.Lock()

    def note(self, process: Process) -> None:
        """To be called where the exception is handled; it is logged with its trace, but not each time."""
        with self._lock:
            self.count += 1
            left_out = self._limit.admit(self._what, time.monotonic())
        if left_out is not None:
            logs.fault(
                "process-failed",
                f"{self._what} of process {process.pid} failed in an unforeseen way, trying again later",
                pid=process.pid,
                failures_not_logged=left_out,
            )
