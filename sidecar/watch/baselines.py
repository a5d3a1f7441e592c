"""Keeps a heap profile of calm times for each process that answers, to be put beside its dumps."""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sidecar import logs
from sidecar.capture import Baseline
from sidecar.core.baseline import baseline_due
from sidecar.core.keys import profile_name, safe_name
from sidecar.core.model import Process
from sidecar.core.trigger import TriggerPolicy
from sidecar.errors import OomHeapDumperError, SpoolError
from sidecar.pprof import PprofClient
from sidecar.published_profile import take_profile
from sidecar.spool import Spool
from sidecar.watch.candidates import Answering
from sidecar.watch.workers import Workers

# While the spool has no room, the program isn't asked for profiles only to throw them away.
_NO_ROOM_PAUSE_S = 60.0
# No dump of a process is begun so long after its end.
_MOURNED_S = 60.0
_FEW_FILES = 16


@dataclass(slots=True)
class _State:
    since_s: float
    tried_s: float = float("-inf")
    no_room_s: float = float("-inf")
    ended_s: float | None = None
    taken_uptime_s: float | None = None
    baseline: Baseline | None = None


class Baselines:
    """Takes baselines when they are due, beside the loop."""

    def __init__(self, policy: TriggerPolicy, spool: Spool, workers: Workers) -> None:
        self._policy = policy
        self._spool = spool
        self._workers = workers
        self._states: dict[Process, _State] = {}
        self._lock = threading.Lock()
        self._files: list[Path] = []
        self._numbers = itertools.count(1)

    def keep(self, answering: Iterable[Answering], ratio: float | None, now_s: float) -> None:
        """Take what is due for these processes, whose container's memory is at ``ratio`` of its limit."""
        for answer in answering:
            state = self._states.setdefault(answer.process, _State(since_s=now_s))
            uptime_s = now_s - state.since_s
            if now_s - state.no_room_s >= _NO_ROOM_PAUSE_S and baseline_due(
                self._policy,
                ratio=ratio,
                uptime_s=uptime_s,
                taken_at_uptime_s=state.taken_uptime_s,
                tried_s_ago=now_s - state.tried_s,
            ):
                state.tried_s = now_s
                self._workers.run(functools.partial(self._take, answer.process, answer.client, state, uptime_s))

    def of(self, process: Process) -> Baseline | None:
        """The baseline of a process, if one was taken."""
        state = self._states.get(process)
        return state.baseline if state else None

    def forget(self, alive: set[Process], now_s: float) -> None:
        """Drop the baselines of processes that have ended, and those replaced by a later one.

        Not while a dump may be under way that wants one.
        """
        for process in self._states.keys() - alive:
            state = self._states[process]
            state.ended_s = now_s if state.ended_s is None else state.ended_s
            if self._workers.is_idle or now_s - state.ended_s > _MOURNED_S:
                del self._states[process]
        if not self._workers.is_idle and len(self._files) < 2 * len(self._states) + _FEW_FILES:
            return
        with self._lock:
            current = {state.baseline.path for state in self._states.values() if state.baseline is not None}
            stale = [path for path in self._files if path not in current]
            self._files = [path for path in self._files if path in current]
        if stale:
            self._workers.run(lambda: self._drop(stale))

    def _drop(self, stale: Iterable[Path]) -> None:
        for path in stale:
            self._spool.drop_baseline(path.name)

    def _take(self, process: Process, client: PprofClient, state: _State, uptime_s: float) -> None:
        """Take one under a name of its own: a dump may just be linking the one before by its name."""
        name = profile_name("heap-baseline", client.port)
        file = self._spool.write_baseline(f"{safe_name(process.name)}-{process.pid}-{next(self._numbers)}-{name}")
        try:
            profile = take_profile("heap-baseline", client, file, name)
        except OomHeapDumperError as error:
            if isinstance(error, SpoolError):
                state.no_room_s = state.tried_s
            logs.event(logging.DEBUG, "baseline-failed", f"no baseline of process {process.pid} yet: {error}")
            return
        if file.result is not None:
            with self._lock:  # a file that nobody has as baseline would be dropped
                state.baseline = Baseline(profile=profile, path=file.result.path)
                self._files.append(file.result.path)
            state.taken_uptime_s = uptime_s
