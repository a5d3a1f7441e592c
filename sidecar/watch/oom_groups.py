"""Keeps ``memory.oom.group`` off for the watched containers that ask for it, beside the loop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar import logs
from sidecar.core.model import Container
from sidecar.errors import ASK_CHECK
from sidecar.guard import GuardUnavailableError, KeptOff, OomGroup
from sidecar.kernel.cgroup import MemoryCgroup, MemorySource
from sidecar.watch.workers import Workers

_LOOK_S = 3.0
# What is in the way may pass, as a full disk, and each try walks the machine's cgroups.
_RETRY_S = 60.0
_SAY_AGAIN_S = 3600.0


@dataclass(slots=True)
class _Tended:
    """One life of a container; ``idle`` is set while no job of it waits or runs.

    ``is_unseen`` if its cgroup couldn't be seen at the last look.
    """

    due_s: float = 0.0
    is_unseen: bool = False
    kept: KeptOff | None = None
    idle: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.idle.set()


class OomGroups:
    """Does nothing at all without an `OomGroup`, which is the default."""

    def __init__(
        self,
        oom_group: OomGroup | None,
        names: tuple[str, ...],
        workers: Workers,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Of the containers of these ``names``; of every one without any. ``clock`` tells monotonic seconds."""
        self._oom_group = oom_group
        self._names = names
        self._workers = workers
        self._clock = clock
        self._tended: dict[str, _Tended] = {}
        self._limit = logs.RateLimit(interval_s=_SAY_AGAIN_S)
        self._said_v1 = False

    def tend(self, container: Container, source: MemorySource) -> None:
        """See that the flag is off; at first sight, then as often as you like: it looks every few seconds."""
        if self._oom_group is None or (self._names and container.name not in self._names):
            return
        now_s = self._clock()
        tended = self._tended.setdefault(container.key, _Tended())
        if now_s < tended.due_s or not tended.idle.is_set():
            return
        tended.due_s = now_s + _LOOK_S
        if not isinstance(source, MemoryCgroup):
            if tended.is_unseen:  # at first sight its runtime may still be setting it up
                self._warn(container, f"its cgroup can't be seen: {ASK_CHECK}", now_s)
            tended.is_unseen = True
            return
        if tended.is_unseen:
            tended.is_unseen = False
            self._limit.forget(container.key)  # what is in the way from here on is another matter
        if source.version == 1:
            self._say_v1()
            tended.due_s = float("inf")
        else:
            self._beside(self._oom_group, tended, container, source)

    def close(self, container: Container) -> None:
        """The container has ended."""
        self._limit.forget(container.key)
        tended = self._tended.pop(container.key, None)
        if tended is not None:

            def close() -> None:
                tended.idle.wait()
                if tended.kept is not None:
                    tended.kept.close()

            self._workers.run(close)

    def _beside(self, oom_group: OomGroup, tended: _Tended, container: Container, memory: MemoryCgroup) -> None:
        tended.idle.clear()

        def run() -> None:
            try:
                if tended.kept is None:
                    tended.kept = oom_group.adopt(memory, container.name)
                tended.kept.keep(self._clock())
            except GuardUnavailableError as error:
                if not oom_group.is_closed:
                    now_s = self._clock()
                    tended.due_s = now_s + _RETRY_S
                    self._warn(container, str(error), now_s)
            finally:
                tended.idle.set()

        self._workers.run(run)

    def _warn(self, container: Container, reason: str, now_s: float) -> None:
        if self._limit.admit(container.key, now_s) is not None:
            logs.event(
                logging.WARNING,
                "oom-group-unavailable",
                f"container {container.name}: memory.oom.group can't be kept off: {reason}",
                container=container.name,
            )

    def _say_v1(self) -> None:
        if not self._said_v1:
            self._said_v1 = True
            logs.event(
                logging.INFO,
                "oom-group-none",
                "cgroup v1 has no memory.oom.group: an OOM kill takes one process anyway, OOM_GROUP has nothing to do",
            )
