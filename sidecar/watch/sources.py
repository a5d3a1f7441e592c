"""Where a process's heap can be had from, its memory, its pprof endpoint, or both; and how it is had."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from sidecar import logs
from sidecar.capture import Dump
from sidecar.core.keys import NEWEST
from sidecar.core.manifest import Subject
from sidecar.core.model import Container, Process
from sidecar.errors import OomHeapDumperError, TargetGoneError
from sidecar.watch.candidates import Answering
from sidecar.watch.endpoints import Endpoints
from sidecar.watch.heaps import Heaps, ReadableHeap

# The oldest are what the container was started for. Each costs a thread, room in the spool, and time of the program.
MAX_PROCESSES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A process of which at least one of ``heap`` and ``answering`` isn't None."""

    process: Process
    heap: ReadableHeap | None
    answering: Answering | None

    @property
    def subject(self) -> Subject:
        """What was learnt of the process in calm times."""
        known = self.heap or self.answering
        return Subject(
            process=self.process,
            ports=(self.answering.client.port,) if self.answering else (),
            program=known.program if known else None,
            go_environment=known.go_environment if known else None,
        )


def sources_of(container: Container, heaps: Heaps | None, endpoints: Endpoints) -> list[Source]:
    """The processes of a container whose heap can be had, oldest first; ``heaps`` is None where memory isn't read."""
    readable = {heap.process: heap for heap in heaps.of(container)} if heaps else {}
    answering = {answer.process: answer for answer in endpoints.of(container)}
    return [
        Source(process=process, heap=readable.get(process), answering=answering.get(process))
        for process in container.processes
        if process in readable or process in answering
    ]


def take_heap(
    dump: Dump, source: Source, held: contextlib.ExitStack, *, is_alive: Callable[[Process], bool]
) -> int | None:
    """Take a dump's first profile, from memory, else by HTTP; it is safe in the spool on return.

    From memory it is a raw snapshot, and what is told is a descriptor of the program's executable to encode it with,
    which ``held`` closes. By HTTP it is None, and the dump says why it isn't from memory. A port is asked only while
    its process ``is_alive``: another one may have it by now. Raises `OomHeapDumperError` with the reasons of both.
    """
    problems = []
    if source.heap is not None:
        try:
            executable = source.heap.open_executable()
            held.callback(os.close, executable)
            dump.take_snapshot(source.heap)
        except OomHeapDumperError as error:
            problems.append(f"{NEWEST}: {error}")
        except Exception as error:  # noqa: BLE001 -- the program may still answer
            logs.fault("capture-crashed", f"reading the heap of process {source.process.pid} failed unforeseen")
            problems.append(f"{NEWEST}: failed in an unforeseen way ({type(error).__name__})")
        else:
            return executable
    if source.answering is not None:
        try:
            if not is_alive(source.process):
                raise TargetGoneError(f"process {source.process.pid} has ended")
            dump.take_first(source.answering.client)
        except OomHeapDumperError as error:
            problems.append(str(error))
        else:
            dump.problems += tuple(problems)
            return None
    raise OomHeapDumperError("; ".join(problems))


def why_no_source(container: Container, heaps: Heaps | None, endpoints: Endpoints) -> str:
    """Why a container's heap can't be had, for people."""
    unreadable = heaps.why_none(container) if heaps else None
    return "; ".join(filter(None, (endpoints.why_none(container), unreadable)))
