"""Runs captures beside the loop, the first heap profile before anything else."""

from __future__ import annotations

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
from sidecar.core import manifest
from sidecar.core.keys import DumpId
from sidecar.core.manifest import HistoryRow, Incident, Place, Subject
from sidecar.core.model import Container, Sample
from sidecar.core.outcome import Outcome
from sidecar.core.quantities import format_bytes
from sidecar.errors import OomHeapDumperError
from sidecar.pprof_http import PprofClient
from sidecar.settings import Settings
from sidecar.spool import Spool
from sidecar.watch.baselines import Baselines
from sidecar.watch.endpoints import Answering
from sidecar.watch.scout import Scout
from sidecar.watch.workers import Workers

# Extras may each take half a minute of a throttled program; two at a time keep our own memory bounded.
_EXTRAS_AT_ONCE = 2
_MAX_PROCESSES = 8
_OUTCOME_WAIT_S = 15.0


def _idle() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass(slots=True)
class Life:
    """One life of a container as the captures see it; shared with the loop."""

    last_dump: DumpId | None = None
    why_no_dump: str | None = None
    idle: threading.Event = field(default_factory=_idle)


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
    """One request while its processes are captured side by side."""

    request: Request
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
        self._extras = threading.Semaphore(_EXTRAS_AT_ONCE)
        self._workers = workers
        self._baselines = baselines
        self._stopping = False

    def request(self, request: Request) -> None:
        """Capture now, in a thread of its own."""
        request.life.idle.clear()
        self._workers.run(lambda: self._capture(request))

    def record_outcome(
        self,
        *,
        life: Life,
        fallback: DumpId,
        container: Container,
        outcome: Outcome,
        last: Sample | None,
        history: list[HistoryRow],
    ) -> None:
        """Write the last manifest: beside the container's last dump, or as ``fallback`` where it had none."""

        def write() -> None:
            life.idle.wait(_OUTCOME_WAIT_S)  # a dump may be on its last yards
            document = manifest.outcome(
                place=self._place,
                dump_id=life.last_dump or fallback,
                at=fallback.at,
                container=container,
                result=outcome,
                last=last,
                history=history,
                why_no_dump=None if life.last_dump else life.why_no_dump or "no sample was above the threshold",
            )
            self._limit_failures.forget(container.key)
            self._spool.put(life.last_dump or fallback, outcome.file_name, manifest.encode(document))
            self._wake_uploads()

        self._workers.run(write)

    def stop(self, grace_s: float) -> None:
        """Leave out extras from now on and wait for what is being taken."""
        self._stopping = True
        self._workers.join(grace_s)

    def _capture(self, request: Request) -> None:
        """The plain heap of each process that answers, side by side: one that keeps silent doesn't delay another."""
        answering = self._scout.endpoints.of(request.incident.container)[:_MAX_PROCESSES]
        gathering = _Gathering(request, len(answering), asked_nobody=not answering)
        if not answering:
            gathering.problems.append(self._scout.endpoints.why_none(request.incident.container))
            self._conclude(gathering)
            return
        for answer in answering[1:]:
            self._workers.run(functools.partial(self._capture_process, gathering, answer))
        self._capture_process(gathering, answering[0])

    def _capture_process(self, gathering: _Gathering, answering: Answering) -> None:
        request, dump, problem = gathering.request, None, "failed in an unforeseen way"
        try:
            dump, problem = self._first_profile(request, answering)
        finally:
            with gathering.lock:
                gathering.waiting -= 1
                if dump is None:
                    gathering.problems.append(problem)
                else:
                    request.life.last_dump = dump.dump_id
                    if not gathering.succeeded:
                        gathering.succeeded = True
                        self._tell(request, ok=True)
            if gathering.waiting == 0:
                self._conclude(gathering)
        if dump is not None:
            self._report(request, dump)
            self._wake_uploads()
            self._finish(dump, answering.client)
            self._wake_uploads()

    def _conclude(self, gathering: _Gathering) -> None:
        """Every process had its turn."""
        request = gathering.request
        if not gathering.succeeded:
            request.life.why_no_dump = "; ".join(gathering.problems)
        request.life.idle.set()
        if not gathering.succeeded:
            self._tell(request, ok=False, asked_nobody=gathering.asked_nobody)
            self._report_failure(request, gathering.problems)
            self._scout.hurry()

    def _tell(self, request: Request, *, ok: bool, asked_nobody: bool = False) -> None:
        self.results.put(Result(life=request.life, incident=request.incident_id, ok=ok, asked_nobody=asked_nobody))
        self._wake_loop()

    def _first_profile(self, request: Request, answering: Answering) -> tuple[Dump | None, str]:
        if not self._scout.is_alive(answering.process):
            return None, f"process {answering.process.pid} has ended"
        dump = self._begin(request, answering)
        try:
            dump.take_first(answering.client)
        except OomHeapDumperError as error:
            return None, str(error)
        return dump, ""

    def _begin(self, request: Request, answering: Answering) -> Dump:
        container = request.incident.container
        return Dump(
            spool=self._spool,
            place=self._place,
            dump_id=DumpId(
                at=request.at,
                container=container.name,
                pid=answering.process.pid,
                incident=request.incident_id,
                number=request.number,
            ),
            incident=request.incident,
            subject=Subject(
                process=answering.process,
                ports=(answering.client.port,),
                program=answering.program,
                go_environment=answering.go_environment,
            ),
        )

    def _finish(self, dump: Dump, client: PprofClient) -> None:
        """The baseline and the extras, on a connection of their own so that a slow one harms no later capture."""
        try:
            if "heap-baseline" in self._kinds:
                dump.add_baseline(self._baselines.of(dump.process))
            dump.draft()
            extra_client = client.clone()
            try:
                with self._extras:
                    dump.take_extras(self._kinds, extra_client, go_on=lambda: not self._stopping)
            finally:
                extra_client.close()
        finally:
            dump.finish()

    def _report(self, request: Request, dump: Dump) -> None:
        self.taken += 1
        process = dump.process
        incident = request.incident
        profile = dump.profiles[0]
        limit = incident.sample.reading.limit_bytes
        value = incident.sample.metric_bytes(incident.policy.metric)
        latency_s = time.monotonic() - incident.sample.at_s
        at = f"{value / limit:.0%} of {format_bytes(limit)}" if limit else format_bytes(value)
        self._limit_failures.forget(incident.container.key)
        logs.event(
            logging.WARNING,
            "captured",
            f"container {incident.container.name}: heap profile of {process.name}[{process.pid}] saved at {at} "
            f"({incident.reason}), {format_bytes(profile.size_bytes)} in {latency_s * 1000:.0f} ms",
            container=incident.container.name,
            pid=process.pid,
            reason=incident.reason,
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


def utc_now() -> datetime:
    """The wall clock, for names and manifests only: nothing is ever decided by it."""
    return datetime.now(tz=UTC)
