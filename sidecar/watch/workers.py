"""Threads for work that may take its time: started on demand, watched over, and waited for at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sidecar import logs
from sidecar.errors import OomHeapDumperError


class Workers:
    """Runs each job in a daemon thread of its own; what a job raises is logged and touches nothing else."""

    def __init__(self) -> None:
        self._active: set[threading.Thread] = set()

    @property
    def is_idle(self) -> bool:
        """Whether no job is running."""
        return not self._active

    def run(self, job: Callable[[], None]) -> None:
        """Start a job and return at once."""

        def body() -> None:
            try:
                job()
            except OomHeapDumperError as error:
                logs.event(logging.WARNING, "capture-error", str(error))
            except Exception:  # noqa: BLE001 -- nothing may stop the watch
                logs.fault("capture-crashed", "a capture failed in an unforeseen way")
            finally:
                self._active.discard(thread)

        thread = threading.Thread(target=body, daemon=True, name="worker")
        self._active.add(thread)
        thread.start()

    def join(self, grace_s: float) -> None:
        """Wait for the jobs that are running, at most ``grace_s``."""
        deadline_s = time.monotonic() + grace_s
        for thread in tuple(self._active):
            thread.join(max(0.0, deadline_s - time.monotonic()))
