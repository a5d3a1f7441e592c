"""Keeps the newest snapshot of each program's heap in hand while its container is near the limit.

Whatever the kill interrupts, the last good moment before it is there. Nothing of it is uploaded unless the container is
killed, or may have been, and it isn't synced to the disk: each is replaced by the next within moments.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sidecar import logs
from sidecar.core.manifest import Subject
from sidecar.core.model import Container, Process, Sample
from sidecar.errors import OomHeapDumperError, SpoolError
from sidecar.spool import Spool
from sidecar.watch.heaps import ReadableHeap
from sidecar.watch.life import InHand, Life
from sidecar.watch.sources import MAX_PROCESSES, Source
from sidecar.watch.workers import Workers

# What an end waits for a snapshot that is being taken.
_REST_WITHIN_S = 2.0
# An older one doesn't tell of the end any more.
_FRESH_S = 60.0
# The kill of a process that is gone is counted and seen within this time.
_MOURNED_S = 5.0
# As many again of processes that have just gone: the kill may have been theirs. Beyond these the oldest snapshot goes.
_MOST_IN_HAND = 2 * MAX_PROCESSES


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    life: Life
    container: Container
    sample: Sample
    is_urgent: bool
    lets_go: bool


class LastMoments:
    """Takes the snapshots beside the loop, one at a time for each life."""

    def __init__(self, spool: Spool, sources: Callable[[Container], list[Source]], workers: Workers) -> None:
        """``sources`` tells whose heap can be read; of very many processes only the first are."""
        self.cpu_s = 0.0
        """CPU time that all snapshots together have taken so far."""
        self._cpu_lock = threading.Lock()
        self._spool = spool
        self._sources = sources
        self._workers = workers
        self._numbers = itertools.count(1)
        self._faults = logs.RateLimit()

    def keep(
        self, life: Life, container: Container, sample: Sample, *, is_urgent: bool = False, lets_go: bool = False
    ) -> bool:
        """Have snapshots of a container's programs taken now; False if the last ones are still being taken.

        If it ``is_urgent`` older dumps make room in a full spool; with ``lets_go`` the guard lets go afterwards.
        """
        if not life.rested.is_set():
            return False
        life.rested.clear()
        wish = _Wish(life=life, container=container, sample=sample, is_urgent=is_urgent, lets_go=lets_go)
        self._workers.run(lambda: self._grant(wish))
        return True

    def take(self, life: Life, end_s: float, has_ended: Callable[[Process], bool], *, all_of_it: bool) -> list[InHand]:
        """Hand over what is in hand of processes that ended by ``end_s``, if fresh and newer than their last dumps.

        The newest comes last; of very many the oldest are left out. The caller lets go of each. What isn't handed over,
        of a process that has ended, is gone; with ``all_of_it`` nothing is kept of this life any more.
        """
        life.rested.wait(_REST_WITHIN_S)
        with life.lock:
            life.ended |= all_of_it
            found = [life.in_hand.pop(process) for process in filter(has_ended, tuple(life.in_hand))]
        telling = [
            one
            for one in found
            if one.sample.at_s > life.captured_s.get(one.process, float("-inf")) and end_s - one.sample.at_s <= _FRESH_S
        ]
        taken = sorted(telling, key=lambda one: one.sample.at_s)[-MAX_PROCESSES:]
        for one in found:
            if one not in taken:
                one.let_go()
        return taken

    def forget_ended(self, life: Life, container: Container, now_s: float) -> None:
        """Let go of what is in hand of processes that ended in peace; call it while no kill is to be recorded."""
        gone = [process for process in tuple(life.in_hand) if process not in container.processes]
        for process in tuple(life.captured_s):
            if process not in container.processes and process not in gone:
                del life.captured_s[process]
        for process in gone:
            with life.lock:
                one = life.in_hand.get(process)
                if one is None or now_s - one.sample.at_s < _MOURNED_S:
                    continue  # its kill may be counted any moment
                del life.in_hand[process]
            one.let_go()

    def _grant(self, wish: _Wish) -> None:
        began_s = time.thread_time()
        try:
            readable = ((source.subject, source.heap) for source in self._sources(wish.container) if source.heap)
            for subject, heap in itertools.islice(readable, MAX_PROCESSES):
                self._keep(wish, subject, heap)
        finally:
            if wish.lets_go:
                wish.life.let_killer_go(time.monotonic())
            wish.life.rested.set()
            with self._cpu_lock:
                self.cpu_s += time.thread_time() - began_s

    def _keep(self, wish: _Wish, subject: Subject, heap: ReadableHeap) -> None:
        life, process = wish.life, subject.process
        before = life.in_hand.get(process)
        at = datetime.now(tz=UTC)
        name = f"{process.pid}-{next(self._numbers)}.raw"
        executable = -1
        try:
            executable = heap.open_executable()
            path = self._spool.keep_in_hand(
                name, heap.write_snapshot, heap.known_bytes, older_dumps_may_go=wish.is_urgent
            )
        except OomHeapDumperError as error:
            if executable >= 0:
                os.close(executable)
            self._report(process, error)  # the one before stays in hand: most often this is the end
            return
        new = InHand(
            subject=subject,
            executable=executable,
            path=path,
            samples=heap.known_buckets,
            sample=wish.sample,
            at=at,
        )
        with life.lock:
            installed = not life.ended and life.in_hand.get(process) is before
            if installed:
                life.in_hand[process] = new
                if len(life.in_hand) > _MOST_IN_HAND:
                    oldest = min(life.in_hand.values(), key=lambda one: one.sample.at_s)
                    before = life.in_hand.pop(oldest.process)
        if not installed:
            new.let_go()  # the one before was handed over meanwhile
        elif before is not None:
            before.let_go()

    def _report(self, process: Process, error: OomHeapDumperError) -> None:
        no_room = isinstance(error, SpoolError)
        if self._faults.admit("room" if no_room else "reading", time.monotonic()) is not None:
            logs.event(
                logging.WARNING if no_room else logging.DEBUG, "snapshot-failed", f"process {process.pid}: {error}"
            )
