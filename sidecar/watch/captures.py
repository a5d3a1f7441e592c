"""Runs captures beside the loop, the first heap profile before anything else."""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sidecar import logs
from sidecar.capture import Dump
from sidecar.core.keys import DumpId
from sidecar.core.manifest import Incident, Place
from sidecar.core.model import Container
from sidecar.core.quantities import format_bytes
from sidecar.errors import OomHeapDumperError
from sidecar.heap_encoder import HeapEncoder
from sidecar.pprof import PprofClient
from sidecar.settings import Settings
from sidecar.spool import Spool
from sidecar.watch.baselines import Baselines
from sidecar.watch.life import Life
from sidecar.watch.scout import Scout
from sidecar.watch.sources import MAX_PROCESSES, Source, take_heap, why_no_source
from sidecar.watch.workers import Workers

# Extras may each take half a minute of a throttled program; two at a time keep our own memory bounded.
_EXTRAS_AT_ONCE = 2

_UNFORESEEN = "failed in an unforeseen way"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A dump that the trigger asked for."""

    incident: Incident
    incident_id: str
    number: int
    at: datetime
    life: Life


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Whether the first heap profile of a request is safe. ``life`` tells whose it was.

    ``asked_nobody`` is a failure for want of an endpoint, which may be found at any moment.
    """

    life: Life
    incident: str
    ok: bool
    asked_nobody: bool = False


@dataclass(slots=True)
class _Gathering:
    """One request while its processes are captured side by side; ``left_out`` are those beyond the most of them."""

    request: Request
    several: bool
    left_out: int
    waiting: int
    asked_nobody: bool
    succeeded: bool = False
    problems: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Captures:
    """Takes dumps; what it finished is in ``results`` for the loop to collect."""

    def __init__(
        self,
        *,
        settings: Settings,
        spool: Spool,
        place: Place,
        scout: Scout,
        workers: Workers,
        baselines: Baselines,
        encoder: HeapEncoder,
        wake_loop: Callable[[], None],
        wake_uploads: Callable[[], None],
    ) -> None:
        self.results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self.taken = 0
        self.failed = 0
        self._kinds = settings.pprof.profiles
        self._spool = spool
        self._place = place
        self._scout = scout
        self._wake_loop = wake_loop
        self._wake_uploads = wake_uploads
        self._limit_failures = logs.RateLimit()
        self._limit_partial = logs.RateLimit()
        self._extras = threading.Semaphore(_EXTRAS_AT_ONCE)
        self._workers = workers
        self._baselines = baselines
        self._encoder = encoder
        self._stopping = False

    def request(self, request: Request) -> None:
        """Capture now, in a thread of its own."""
        request.life.idle.clear()
        self._workers.run(lambda: self._capture(request))

    def forget(self, container: Container) -> None:
        """It has ended: the next failure under its name is another story."""
        self._limit_failures.forget(container.key)
        self._limit_partial.forget(container.key)

    def stop(self, grace_s: float) -> None:
        """Leave out extras from now on and wait for what is being taken."""
        self._stopping = True
        self._workers.join(grace_s)

    def _capture(self, request: Request) -> None:
        """The heap of each process that can be had, side by side: one that keeps silent doesn't delay another."""
        container = request.incident.container
        found: list[Source] = []
        problem = _UNFORESEEN
        try:
            found = self._scout.sources(container)
            if not found:
                problem = why_no_source(container, self._scout.heaps, self._scout.endpoints)
        finally:
            sources = found[:MAX_PROCESSES]
            gathering = _Gathering(
                request=request,
                several=len(sources) > 1,
                left_out=len(found) - len(sources),
                waiting=len(sources),
                asked_nobody=not sources,
            )
            if not sources:
                gathering.problems.append(problem)
                self._conclude(gathering)
        if not sources:
            return
        for source in sources[1:]:
            self._workers.run(functools.partial(self._capture_process, gathering, source))
        self._capture_process(gathering, sources[0])

    def _capture_process(self, gathering: _Gathering, source: Source) -> None:
        request = gathering.request
        taken: Dump | None = None
        executable, problem = None, _UNFORESEEN
        with contextlib.ExitStack() as held:
            try:
                dump = self._begin(gathering, source)
                executable = take_heap(dump, source, held, is_alive=self._scout.is_alive)
                taken = dump
                if executable is not None:
                    request.life.captured_s[source.process] = request.incident.sample.at_s
            except OomHeapDumperError as error:
                problem = str(error)
            finally:
                with gathering.lock:
                    gathering.waiting -= 1
                    is_last = gathering.waiting == 0
                    if taken is None:
                        whose = f"process {source.process.pid}: " if gathering.several else ""
                        gathering.problems.append(f"{whose}{problem}")
                    else:
                        request.life.last_dump = taken.dump_id
                        if not gathering.succeeded:
                            gathering.succeeded = True
                            self._tell(request, ok=True)
                if is_last:
                    self._conclude(gathering)
            if taken is not None:
                self._report(request, taken)
                self._wake_uploads()
                self._finish(taken, source, executable)
                self._wake_uploads()

    def _conclude(self, gathering: _Gathering) -> None:
        """Every process had its turn."""
        request = gathering.request
        request.life.let_killer_go(time.monotonic())
        if not gathering.succeeded:
            request.life.why_no_dump = "; ".join(gathering.problems)
        request.life.idle.set()
        if not gathering.succeeded:
            self._tell(request, ok=False, asked_nobody=gathering.asked_nobody)
            self._report_failure(request, gathering.problems)
            self._scout.hurry()
        elif gathering.problems:
            self._report_partial(request.incident.container, gathering.problems)

    def _tell(self, request: Request, *, ok: bool, asked_nobody: bool = False) -> None:
        self.results.put(Result(life=request.life, incident=request.incident_id, ok=ok, asked_nobody=asked_nobody))
        self._wake_loop()

    def _begin(self, gathering: _Gathering, source: Source) -> Dump:
        request = gathering.request
        dump = Dump(
            spool=self._spool,
            place=self._place,
            dump_id=DumpId(
                at=request.at,
                container=request.incident.container.name,
                pid=source.process.pid,
                incident=request.incident_id,
                number=request.number,
            ),
            incident=request.incident,
            subject=source.subject,
            guard=request.life.guard_record,
        )
        if gathering.left_out:
            dump.problems += (f"{gathering.left_out} younger programs of the container were left out",)
        return dump

    def _finish(self, dump: Dump, source: Source, executable: int | None) -> None:
        """What the race allows: the plain profile, then what needs no haste, the baseline and the extras."""
        try:
            if executable is not None:
                dump.draft()
                if source.answering is not None:
                    dump.take_plain(source.answering.client)
            if source.answering is not None and "heap-baseline" in self._kinds:
                dump.add_baseline(self._baselines.of(dump.process))
            dump.draft()
            if source.answering is not None:
                self._take_extras(dump, source.answering.client)  # the program may be gone soon, the snapshot is safe
            if executable is not None:
                dump.encode_snapshot(self._encoder, executable)
        finally:
            dump.finish()

    def _take_extras(self, dump: Dump, client: PprofClient) -> None:
        """On a connection of their own, so that a slow one harms no later capture."""
        extra_client = client.clone()
        try:
            with self._extras:
                dump.take_extras(self._kinds, extra_client, go_on=lambda: not self._stopping)
        finally:
            extra_client.close()

    def _report(self, request: Request, dump: Dump) -> None:
        self.taken += 1
        process = dump.process
        incident = request.incident
        profile = dump.profiles[0]
        limit = incident.sample.reading.limit_bytes
        value = incident.sample.metric_bytes(incident.policy.metric)
        latency_s = time.monotonic() - incident.sample.at_s
        at = f"{value / limit:.0%} of {format_bytes(limit)}" if limit else format_bytes(value)
        source = "memory" if profile.port is None else "http"
        how = "read from its memory" if profile.port is None else "saved"
        self._limit_failures.forget(incident.container.key)
        logs.event(
            logging.WARNING,
            "captured",
            f"container {incident.container.name}: heap of {process.name}[{process.pid}] {how} at {at} "
            f"({incident.reason}), {format_bytes(profile.size_bytes)} in {latency_s * 1000:.0f} ms",
            container=incident.container.name,
            pid=process.pid,
            reason=incident.reason,
            source=source,
            value_bytes=value,
            limit_bytes=limit,
            size_bytes=profile.size_bytes,
            profile_samples=profile.samples,
            latency_s=round(latency_s, 4),
            key=dump.key,
        )

    def _report_failure(self, request: Request, problems: list[str]) -> None:
        self.failed += 1
        container = request.incident.container
        request.life.why_no_dump = "; ".join(problems)
        left_out = self._limit_failures.admit(container.key, time.monotonic())
        if left_out is not None:
            logs.event(
                logging.ERROR,
                "capture-failed",
                f"container {container.name}: no heap profile ({request.life.why_no_dump}), trying again",
                container=container.name,
                problems=problems,
                failures_not_logged=left_out,
            )

    def _report_partial(self, container: Container, problems: list[str]) -> None:
        """Another process of the container was captured, so this one isn't tried again before the next dump."""
        left_out = self._limit_partial.admit(container.key, time.monotonic())
        if left_out is not None:
            logs.event(
                logging.WARNING,
                "capture-partial",
                f"container {container.name}: no heap profile of some of its processes ({'; '.join(problems)})",
                container=container.name,
                problems=problems,
                failures_not_logged=left_out,
            )


def utc_now() -> datetime:
    """The wall clock, for names and manifests only: nothing is ever decided by it."""
    return datetime.now(tz=UTC)
