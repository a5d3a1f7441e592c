"""Keeps the newest snapshot of each program's heap in hand while its container is near the limit.

Whatever the kill interrupts, the last good moment before it is there. Nothing of it is uploaded unless the container is
killed, and it isn't synced to the disk: each is replaced by the next within moments.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sidecar import logs
from sidecar.core.model import Container, Process, Sample
from sidecar.errors import OomHeapDumperError
from sidecar.spool import Spool
from sidecar.watch.heaps import Heaps, ReadableHeap
from sidecar.watch.life import InHand, Life

# What an end waits for a snapshot that is being taken.
_REST_WITHIN_S = 2.0
# An older one doesn't tell of the end any more.
_FRESH_S = 60.0
_EXPECTED_BYTES = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    life: Life
    container: Container
    sample: Sample
    lets_go: bool


class LastMoments:
    """Takes the snapshots in a thread of its own; `run` is the thread's body."""

    def __init__(self, spool: Spool, heaps: Heaps | None) -> None:
        self.cpu_s = 0.0
        """What all snapshots together have cost so far; written by the thread alone."""
        self._spool = spool
        self._heaps = heaps
        self._wishes: queue.SimpleQueue[_Wish] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._faults = logs.RateLimit()

    def keep(self, life: Life, container: Container, sample: Sample, *, lets_go: bool = False) -> bool:
        """Have snapshots of a container's programs taken now; False if the last ones are still being taken.

        With ``lets_go`` the guard lets go afterwards.
        """
        if not life.rested.is_set():
            return False
        life.rested.clear()
        self._wishes.put(_Wish(life=life, container=container, sample=sample, lets_go=lets_go))
        return True

    def take(self, life: Life, end_s: float, has_ended: Callable[[Process], bool]) -> list[InHand]:
        """Hand over what is in hand of processes that ended by ``end_s``, if fresh and newer than their last dumps.

        The caller lets go of each. What isn't handed over, of a process that has ended, is gone.
        """
        life.rested.wait(_REST_WITHIN_S)
        taken = []
        for process in filter(has_ended, tuple(life.in_hand)):
            one = life.in_hand.pop(process)
            newer = one.sample.at_s > life.captured_s.get(process, float("-inf"))
            if newer and end_s - one.sample.at_s <= _FRESH_S:
                taken.append(one)
            else:
                one.let_go()
        return taken

    def run(self) -> None:
        """Take what is wished for, for ever. Survives whatever goes wrong."""
        while True:
            wish = self._wishes.get()
            began_s = time.thread_time()
            try:
                for heap in self._heaps.of(wish.container) if self._heaps else []:
                    self._keep(wish, heap)
            except Exception:  # noqa: BLE001 -- nothing may stop the watch
                if self._faults.admit("crash", time.monotonic()) is not None:
                    logs.fault("keeping-failed", "a snapshot failed in an unforeseen way")
            finally:
                if wish.lets_go:
                    wish.life.let_killer_go(time.monotonic())
                self.cpu_s += time.thread_time() - began_s
                wish.life.rested.set()

    def _keep(self, wish: _Wish, heap: ReadableHeap) -> None:
        before = wish.life.in_hand.get(heap.process)
        at = datetime.now(tz=UTC)
        name = f"{heap.process.pid}-{next(self._numbers)}.raw"
        executable = -1
        try:
            executable = heap.open_executable()
            path = self._spool.keep_in_hand(name, heap.write_snapshot, _expected_bytes(before))
        except OomHeapDumperError as error:
            if executable >= 0:
                os.close(executable)
            # The one before stays in hand: most often this is the end.
            if self._faults.admit(str(heap.process.pid), time.monotonic()) is not None:
                logs.event(logging.DEBUG, "snapshot-failed", f"process {heap.process.pid}: {error}")
            return
        wish.life.in_hand[heap.process] = InHand(
            process=heap.process,
            program=heap.program,
            go_environment=heap.go_environment,
            executable=executable,
            path=path,
            samples=heap.known_buckets,
            sample=wish.sample,
            at=at,
        )
        if before is not None:
            before.let_go()


def _expected_bytes(before: InHand | None) -> int:
    try:
        return before.path.stat().st_size if before else _EXPECTED_BYTES
    except OSError:
        return _EXPECTED_BYTES
