"""Prepares the reading of each Go program's heap from its memory while the pod is healthy, and keeps that current."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sidecar import logs
from sidecar.core.backoff import Retry
from sidecar.core.model import Container, GoProgram, Process
from sidecar.core.output import Output
from sidecar.errors import NotPermittedError, OomHeapDumperError, TargetGoneError
from sidecar.goheap import GoHeapError, HeapReader, NotGoError, prepare
from sidecar.kernel.environment import read_go_environment
from sidecar.kernel.go_executable import executable_identity
from sidecar.watch.faults import Faults

# New stacks that are known beforehand make the snapshot in the crisis faster.
_REFRESH_INTERVAL_S = 5.0
# Learning may not cost more than a hundredth of the time.
_COST_FACTOR = 100.0
_retry = partial(Retry, first_s=1.0, last_s=300.0)
_UNFORESEEN = "reading its memory failed in an unforeseen way"


# What is copied of a program's memory is ours as long as we have it: tens of MiB of a program with many stacks.
_copying = threading.Lock()
# One that is stuck, as on a disk that stalls, doesn't keep the others from it.
_COPYING_WAIT_S = 1.0


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    acquired = _copying.acquire(timeout=_COPYING_WAIT_S)
    try:
        yield
    finally:
        if acquired:
            _copying.release()


class ReadableHeap:
    """A program whose heap can be read from its memory. Safe to use from several threads."""

    def __init__(self, process: Process, reader: HeapReader, go_environment: dict[str, str] | None) -> None:
        """Takes the reader over."""
        self.process = process
        self.go_environment = go_environment
        self._reader = reader
        self._lock = threading.Lock()

    @property
    def program(self) -> GoProgram:
        """What its executable says."""
        return self._reader.program

    @property
    def known_buckets(self) -> int:
        """How many stacks its profile has, as far as we know."""
        return self._reader.known_buckets

    @property
    def known_bytes(self) -> int:
        """How much memory they take, and a snapshot about as much."""
        return self._reader.known_bytes

    def open_executable(self) -> int:
        """A descriptor of the executable, the caller's to close; it outlives the process. Raises `TargetGoneError`."""
        try:
            return os.dup(self._reader.executable)
        except OSError as error:
            raise TargetGoneError(f"process {self.process.pid} has ended") from error

    def write_snapshot(self, file: Output) -> int:
        """Write the heap as it is now, raw; tells how many bytes. Raises as `HeapReader.snapshot` does."""
        with self._lock, _one_at_a_time():
            self._ensure_open()
            return self._reader.write_snapshot(file)

    def refresh(self) -> None:
        """Learn new stacks. Raises as `HeapReader.snapshot` does."""
        with self._lock:
            self._ensure_open()
            self._reader.refresh()

    def close(self) -> None:
        """Give the descriptors back."""
        with self._lock:
            self._reader.close()

    def _ensure_open(self) -> None:
        if self._reader.executable < 0:
            raise TargetGoneError(f"process {self.process.pid} has ended")


@dataclass(slots=True)
class _Seen:
    """What is known of a process. ``why_not`` is None for a program that isn't Go, ``refused`` if we lack rights."""

    process: Process
    executable: tuple[int, int] | None
    heap: ReadableHeap | None = None
    why_not: str | None = "its memory wasn't looked at yet"
    refused: bool = False
    next_s: float = float("-inf")
    retry: Retry = field(default_factory=_retry)


class Heaps:
    """The readable heaps of the pod's processes. `refresh` is for one thread, the rest for any."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._seen: dict[Process, _Seen] = {}
        self._faults = Faults("preparing to read the heap")

    @property
    def faults(self) -> int:
        """How often the work on a process failed in an unforeseen way."""
        return self._faults.count

    def of(self, container: Container) -> list[ReadableHeap]:
        """Those of a container's processes, oldest process first."""
        found = (self._seen.get(process) for process in container.processes)
        return [seen.heap for seen in found if seen is not None and seen.heap is not None]

    def why_none(self, container: Container) -> str | None:
        """Why nothing can be read from a container's memory; None if it has no Go program, or nobody has looked yet."""
        found = (self._seen.get(process) for process in container.processes)
        reasons = [seen.why_not for seen in found if seen is not None and seen.why_not is not None]
        return "; ".join(dict.fromkeys(reasons)) or None

    def is_refused(self, container: Container) -> bool:
        """Whether the kernel refuses us the memory of any of a container's processes."""
        return any(seen.refused for process in container.processes if (seen := self._seen.get(process)) is not None)

    def refresh(self, containers: Iterable[Container], now_s: float) -> None:
        """Follow processes that came, went or run another program; prepare what is new, learn what changed."""
        present = {process for container in containers for process in container.processes}
        for process in self._seen.keys() - present:
            self._drop(self._seen.pop(process))
        for process in present:
            executable = executable_identity(self._proc, process.pid)
            seen = self._seen.get(process)
            if seen is None or (executable is not None and seen.executable != executable):
                if seen is not None:
                    self._drop(seen)
                seen = self._seen[process] = _Seen(process=process, executable=executable)
            if now_s >= seen.next_s:
                self._attend(seen)

    def close(self) -> None:
        """Give all descriptors back."""
        for seen in tuple(self._seen.values()):
            self._drop(seen)

    def _attend(self, seen: _Seen) -> None:
        began_s = time.monotonic()
        try:
            if seen.heap is None:
                seen.heap = self._prepare(seen.process)
            else:
                seen.heap.refresh()
        except NotGoError:
            seen.why_not, seen.next_s = None, float("inf")  # until it executes another program
            return
        except OomHeapDumperError as error:
            self._postpone(seen, error)
            return
        except Exception as error:  # noqa: BLE001 -- one odd process stops nothing else
            self._faults.note(seen.process)
            self._postpone(seen, error)
            return
        seen.why_not, seen.refused, seen.retry = None, False, _retry()
        now_s = time.monotonic()
        seen.next_s = now_s + max(_REFRESH_INTERVAL_S, _COST_FACTOR * (now_s - began_s))

    def _prepare(self, process: Process) -> ReadableHeap:
        reader = prepare(self._proc, process.pid)
        logs.event(
            logging.DEBUG,
            "heap-readable",
            f"the heap of process {process.pid} can be read from its memory: {reader.known_buckets} stacks",
            pid=process.pid,
            stacks=reader.known_buckets,
        )
        return ReadableHeap(process, reader, read_go_environment(self._proc, process.pid))

    def _postpone(self, seen: _Seen, error: Exception) -> None:
        """A runtime that is just starting looks like an unknown one: soon again, then less and less often."""
        is_foreseen = isinstance(error, OomHeapDumperError)
        if not is_foreseen or isinstance(error, GoHeapError | TargetGoneError):
            self._drop(seen)  # it isn't what it was
        seen.why_not = str(error) if is_foreseen else f"{_UNFORESEEN} ({type(error).__name__})"
        seen.refused = isinstance(error, NotPermittedError)
        seen.retry.note_failure(time.monotonic())
        seen.next_s = seen.retry.next_s

    def _drop(self, seen: _Seen) -> None:
        heap, seen.heap = seen.heap, None
        if heap is not None:
            heap.close()
