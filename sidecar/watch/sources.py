"""Where a process's heap can be had from: its memory, its pprof endpoint, or both."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.manifest import Subject
from sidecar.core.model import Container, Process
from sidecar.watch.endpoints import Answering, Endpoints
from sidecar.watch.heaps import Heaps, ReadableHeap


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


def why_no_source(container: Container, heaps: Heaps | None, endpoints: Endpoints) -> str:
    """Why a container's heap can't be had, for people."""
    unreadable = heaps.why_none(container) if heaps else None
    return "; ".join(filter(None, (endpoints.why_none(container), unreadable)))
