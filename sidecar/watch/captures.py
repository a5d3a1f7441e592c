"""Runs captures beside the loop: a thread for each, the first heap profile before anything else."""

from __future__ import annotations

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
from sidecar.errors import EmptyProfileError, OomHeapDumperError
from sidecar.pprof_http import PprofClient
from sidecar.settings import Settings
from sidecar.spool import Spool
from sidecar.watch.baselines import Baselines
from sidecar.watch.endpoints import Answering
from sidecar.watch.scout import Scout
from sidecar.watch.workers import Workers

EXTRA_KINDS = ("heap-gc", "goroutine", "memstats")
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
    """Whether the first heap profile of a request is safe. ``life`` tells whose it was."""

    life: Life
    ok: bool


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
                why_no_dump=None if life.last_dump else life.why_no_dump or "memory never crossed the threshold",
            )
            self._spool.put(life.last_dump or fallback, outcome.file_name, manifest.encode(document))
            self._wake_uploads()

        self._workers.run(write)

    def stop(self, grace_s: float) -> None:
        """Leave out extras from now on and wait for what is being taken."""
        self._stopping = True
        self._workers.join(grace_s)

    def _capture(self, request: Request) -> None:
        dumps: list[tuple[Dump, PprofClient]] = []
        try:
            dumps = self._first_profiles(request)
        finally:
            if dumps:
                request.life.last_dump = dumps[-1][0].dump_id
            request.life.idle.set()
            self.results.put(Result(life=request.life, ok=bool(dumps)))
            self._wake_loop()
        self._wake_uploads()
        for dump, client in dumps:
            self._finish(dump, client)
        self._wake_uploads()

    def _first_profiles(self, request: Request) -> list[tuple[Dump, PprofClient]]:
        """The plain heap of each process that answers; one that fails doesn't stop the others."""
        container = request.incident.container
        dumps, problems = [], []
        for answering in self._scout.endpoints.of(container)[:_MAX_PROCESSES]:
            if not self._scout.is_alive(answering.process):
                problems.append(f"process {answering.process.pid} has ended")
                continue
            dump = self._begin(request, answering)
            try:
                self._take_first(dump, answering.client)
            except OomHeapDumperError as error:
                problems.append(str(error))
                continue
            self._report(request, dump)
            dumps.append((dump, answering.client))
        if not dumps:
            self._report_failure(request, problems or [self._scout.endpoints.why_none(container)])
            self._scout.hurry()
        return dumps

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

    def _take_first(self, dump: Dump, client: PprofClient) -> None:
        try:
            dump.take("heap", client)
        except EmptyProfileError:
            dump.take("heap-gc", client)

    def _finish(self, dump: Dump, client: PprofClient) -> None:
        """The baseline and the extras, on a connection of their own so that a slow one harms no later capture."""
        have = {profile.kind for profile in dump.profiles}
        if "heap-baseline" in self._kinds:
            dump.add_baseline(self._baselines.of(dump.process))
        dump.draft()
        extra_client = client.clone()
        try:
            for kind in EXTRA_KINDS:
                if kind in self._kinds and kind not in have and not self._stopping:
                    with self._extras:
                        dump.attempt(kind, extra_client)
                    dump.draft()
        finally:
            extra_client.close()
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
