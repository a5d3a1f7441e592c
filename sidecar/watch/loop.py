"""The watch loop: sample every container, judge, ask for captures. It never waits for HTTP, disk, DNS or S3."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from dataclasses import replace

from sidecar import logs
from sidecar.core import trigger
from sidecar.core.model import Process, Sample
from sidecar.core.outcome import Ending, Outcome
from sidecar.core.quantities import format_bytes
from sidecar.core.trigger import Hold, Verdict
from sidecar.errors import OomHeapDumperError, TargetGoneError
from sidecar.settings import Settings
from sidecar.watch.baselines import Baselines
from sidecar.watch.captures import Captures, Life, utc_now
from sidecar.watch.scout import Scout
from sidecar.watch.target import Target

_HOUSEKEEPING_S = 1.0
# A container is announced once its port is known, or without one after this time.
_ANNOUNCE_AFTER_S = 5.0
_LONELY_AFTER_S = 15.0


class Wakeup:
    """Cuts the loop's sleep short, from other threads and from signal handlers (eventfd(2))."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def set(self) -> None:
        """End the current sleep, or the next one."""
        with contextlib.suppress(BlockingIOError):  # the counter is full: it is set
            os.eventfd_write(self._fd, 1)

    def sleep(self, seconds: float) -> None:
        """Sleep until ``set`` is called or the time is over."""
        if self._poll.poll(max(0.0, seconds) * 1000):
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._fd)


class Loop:
    """Samples each target every ``interval_s``; `run` returns after `stop`."""

    def __init__(
        self, settings: Settings, scout: Scout, captures: Captures, baselines: Baselines, wakeup: Wakeup
    ) -> None:
        self.last_ok_s = time.monotonic()
        self.samples = 0
        self.read_errors = 0
        self._settings = settings
        self._policy = settings.trigger
        self._scout = scout
        self._captures = captures
        self._baselines = baselines
        self._takes_baselines = "heap-baseline" in settings.pprof.profiles
        self._wakeup = wakeup
        self._targets: dict[str, Target] = {}
        self._limit = logs.RateLimit()
        self._holds = logs.RateLimit(interval_s=3600.0)
        self._next_housekeeping_s = 0.0
        self._began_s = time.monotonic()
        self._said_lonely = False
        self._stopping = False

    @property
    def targets(self) -> int:
        """How many containers are watched."""
        return len(self._targets)

    def stop(self) -> None:
        """End `run` soon; safe in a signal handler."""
        self._stopping = True
        self._wakeup.set()

    def run(self) -> None:
        """Sample until `stop`. After a stall the next sample is taken at once, but missed ones aren't made up for."""
        due_s = time.monotonic()
        while not self._stopping:
            self.tick()
            now_s = time.monotonic()
            due_s = max(due_s + self._settings.interval_s, now_s)
            while not self._stopping and (rest_s := due_s - time.monotonic()) > 0:
                self._wakeup.sleep(rest_s)
                self._collect()

    def tick(self) -> None:
        """One round over all targets; what fails for one is logged and doesn't touch the others."""
        self._follow_survey()
        self._collect()
        succeeded = not self._targets
        for key, target in tuple(self._targets.items()):
            try:
                self._sample(target)
                succeeded = True
            except TargetGoneError:
                self._end(key, target)
                self._scout.lost(key)
                succeeded = True
            except OomHeapDumperError as error:
                self._read_failed(target, str(error))
            except Exception as error:  # noqa: BLE001 -- nothing may stop the watch
                self._read_failed(target, f"{type(error).__name__}: {error}")
        now_s = time.monotonic()
        if succeeded:
            self.last_ok_s = now_s
        if now_s >= self._next_housekeeping_s:
            self._next_housekeeping_s = now_s + _HOUSEKEEPING_S
            self._keep_house(now_s)

    def _follow_survey(self) -> None:
        survey = {surveyed.container.key: surveyed for surveyed in self._scout.survey}
        for key, target in tuple(self._targets.items()):
            surveyed = survey.get(key)
            if surveyed is not None and surveyed.life == target.surveyed.life:
                if surveyed.source is not target.surveyed.source:
                    target.surveyed.source.close()
                target.surveyed = surveyed
                continue
            with contextlib.suppress(OomHeapDumperError):
                self._observe(target)  # its processes are gone, its cgroup may still tell how
            self._end(key, target)
        for key, surveyed in survey.items():
            if key not in self._targets and surveyed.source.is_open:
                self._said_lonely = True  # not any more: there is, or was, somebody
                self._targets[key] = Target(surveyed=surveyed, since_s=time.monotonic())

    def _observe(self, target: Target) -> Verdict:
        reading = target.surveyed.source.read()
        now_s = time.monotonic()
        self.samples += 1
        verdict = target.observe(self._policy, Sample(at_s=now_s, reading=reading))
        if target.killed_at_s == now_s:
            target.warn("oom-kill", "the kernel's OOM killer struck", oom_kills=reading.oom_kills)
        return verdict

    def _sample(self, target: Target) -> None:
        verdict = self._observe(target)
        if verdict.fire is not None:
            self._captures.request(target.request(self._policy, verdict.fire, utc_now()))
        elif verdict.hold is Hold.HOURLY_CAP and self._admit_hold(target):
            target.warn(
                "held-back", f"above its threshold, but {self._policy.max_per_hour} dumps were taken in this hour"
            )
        if verdict.incident_ended:
            logs.event(
                logging.INFO,
                "calm",
                f"container {target.surveyed.container.name}: memory is back below "
                f"{self._policy.rearm_ratio:.0%} of the limit, armed again",
                **target.log_fields(),
            )

    def _admit_hold(self, target: Target) -> bool:
        """Once for each hour and container is enough."""
        return self._holds.admit(target.surveyed.container.key, time.monotonic()) is not None

    def _collect(self) -> None:
        """Hear how captures ended; only a success starts the cooldown."""
        by_life = {id(target.life): target for target in self._targets.values()}
        while not self._captures.results.empty():
            result = self._captures.results.get()
            target = by_life.get(id(result.life))
            if target is not None:
                settle = trigger.succeeded if result.ok else trigger.failed
                target.state = settle(target.state, time.monotonic())

    def _end(self, key: str, target: Target) -> None:
        del self._targets[key]
        target.surveyed.source.close()
        outcome = target.end(self._policy)
        self._record(target, outcome, target.life)
        level = logging.WARNING if outcome.ending is Ending.OOM_KILLED else logging.INFO
        logs.event(
            level,
            "container-ended",
            f"container {target.surveyed.container.name} ended: {outcome.ending} ({outcome.seen})",
            ending=outcome.ending,
            seen=outcome.seen,
            **target.log_fields(),
        )

    def _record(self, target: Target, outcome: Outcome, life: Life) -> None:
        now_s = time.monotonic()
        self._captures.record_outcome(
            life=life,
            fallback=target.outcome_id(utc_now()),
            container=target.surveyed.container,
            outcome=outcome,
            last=target.last,
            history=target.history.rows(now_s),
        )

    def _read_failed(self, target: Target, message: str) -> None:
        self.read_errors += 1
        left_out = self._limit.admit(("read", target.surveyed.container.key), time.monotonic())
        if left_out is not None:
            target.warn("read-failed", f"its memory can't be read: {message}", failures_not_logged=left_out)

    def _keep_house(self, now_s: float) -> None:
        processes: set[Process] = set()
        for target in self._targets.values():
            processes.update(target.surveyed.container.processes)
            if self._takes_baselines:
                answering = self._scout.endpoints.of(target.surveyed.container)
                self._baselines.keep(answering, target.ratio(self._policy), now_s)
            if target.survived_kill(now_s):
                outcome = Outcome(
                    ending=Ending.PROCESS_OOM_KILLED,
                    counted=True,
                    seen="the cgroup's oom_kill counter rose while the container lived on",
                )
                self._record(target, outcome, replace(target.life))  # as it is now: a later kill is another story
                target.life.last_dump = target.life.why_no_dump = None
            if not target.announced:
                self._announce(target, now_s)
        self._baselines.forget(processes)
        if not self._targets and not self._said_lonely and now_s - self._began_s > _LONELY_AFTER_S:
            self._said_lonely = True
            logs.event(
                logging.WARNING,
                "nothing-to-watch",
                "no other container is visible yet: the pod needs shareProcessNamespace: true",
            )

    def _announce(self, target: Target, now_s: float) -> None:
        container, sample = target.surveyed.container, target.last
        if sample is None:
            return
        answering = self._scout.endpoints.of(container)
        if not answering and now_s - target.since_s < _ANNOUNCE_AFTER_S:
            return
        target.announced = True
        limit = sample.reading.limit_bytes
        missing = []
        if limit is None:
            missing.append("it has no memory limit, so nothing will fire: set MEMORY_LIMIT or give it one")
        if not answering:
            missing.append(f"no pprof: {self._scout.endpoints.why_none(container)}")
        threshold = trigger.threshold_bytes(self._policy, limit) if limit else None
        at = f"dump at {format_bytes(threshold)} of {format_bytes(limit)}" if limit and threshold else "no threshold"
        where = ", ".join(f"{answer.process.name}[{answer.process.pid}] at {answer.client.url}" for answer in answering)
        logs.event(
            logging.WARNING if missing else logging.INFO,
            "watching",
            f"watching container {container.name} ({target.surveyed.source.description}): {at}"
            + (f"; pprof of {where}" if where else "")
            + "".join(f"; {what}" for what in missing),
            threshold_bytes=threshold,
            limit_bytes=limit,
            metric=self._policy.metric,
            source=target.surveyed.source.description,
            pprof=[answer.client.url for answer in answering],
            missing=missing,
            **target.log_fields(),
        )
