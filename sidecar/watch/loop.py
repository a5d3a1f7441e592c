"""The watch loop: sample every container, judge, ask for captures. It never waits for HTTP, disk, DNS or S3."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from collections.abc import Callable
from dataclasses import replace

from sidecar import logs
from sidecar.core import trigger
from sidecar.core.model import Process, Sample
from sidecar.core.outcome import Ending, Outcome
from sidecar.core.quantities import format_bytes
from sidecar.core.trigger import Hold, TriggerState
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
        self._survey = scout.survey
        self._dumps_s: dict[str, tuple[float, ...]] = {}
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
            due_s = max(due_s + self._settings.interval_s, time.monotonic())
            while not self._stopping and self._scout.survey is self._survey:
                rest_s = due_s - time.monotonic()
                if rest_s <= 0:
                    break
                self._wakeup.sleep(rest_s)
                self._collect()

    def tick(self) -> None:
        """One round over all targets; what fails for one is logged and doesn't touch the others."""
        self._follow_survey()
        self._collect()
        succeeded = not self._targets
        for target in tuple(self._targets.values()):
            succeeded |= self._guarded(target, self._sample)
        now_s = time.monotonic()
        if succeeded:
            self.last_ok_s = now_s
        if now_s >= self._next_housekeeping_s:
            self._next_housekeeping_s = now_s + _HOUSEKEEPING_S
            self._keep_house(now_s)

    def _guarded(self, target: Target, act: Callable[[Target], None]) -> bool:
        """Do something with one target; whether it went well. Nothing that is raised goes further."""
        try:
            act(target)
        except TargetGoneError:
            self._end(target)
        except OomHeapDumperError as error:
            self._failed(target, str(error))
            return False
        except Exception as error:  # noqa: BLE001 -- nothing may stop the watch
            self._failed(target, f"{type(error).__name__}: {error}")
            return False
        return True

    def _follow_survey(self) -> None:
        self._survey = self._scout.survey
        survey = {surveyed.container.key: surveyed for surveyed in self._survey}
        for key, target in tuple(self._targets.items()):
            surveyed = survey.get(key)
            if surveyed is not None and surveyed.life == target.surveyed.life:
                if surveyed.source is not target.surveyed.source:
                    target.surveyed.source.close()
                target.surveyed = surveyed
                continue
            self._guarded(target, self._observe)  # its processes are gone; its cgroup may still be there to tell how
            if key in self._targets:
                self._end(target)
        for key, surveyed in survey.items():
            if key not in self._targets and surveyed.source.is_open:
                self._said_lonely = True  # not any more: there is, or was, somebody
                dumps_s = self._dumps_s.pop(surveyed.container.name, ())
                self._targets[key] = Target(
                    surveyed=surveyed, since_s=time.monotonic(), state=TriggerState(dumps_s=dumps_s)
                )

    def _observe(self, target: Target) -> None:
        reading = target.surveyed.source.read()
        self.samples += 1
        if target.observe(Sample(at_s=time.monotonic(), reading=reading)):
            target.warn("oom-kill", "the kernel's OOM killer struck", oom_kills=reading.oom_kills)

    def _sample(self, target: Target) -> None:
        self._observe(target)
        container = target.surveyed.container
        endpoints = self._scout.endpoints
        if not endpoints.was_looked_at(container):
            return  # nobody can be asked yet
        if endpoints.is_without_go(container):
            target.life.why_no_dump = "none of its processes is a Go program"
            return  # how it ends is told all the same
        if target.awaits_endpoint and endpoints.of(container):
            target.found_endpoint()
        verdict = target.judge(self._policy)
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
                f"container {container.name}: memory is back below {self._policy.rearm_ratio:.0%} of the limit, "
                "armed again",
                **target.log_fields(),
            )

    def _admit_hold(self, target: Target) -> bool:
        """Once for each hour and container is enough."""
        return self._holds.admit(target.surveyed.container.key, time.monotonic()) is not None

    def _collect(self) -> None:
        """Hear how captures ended."""
        by_life = {id(target.life): target for target in self._targets.values()}
        while not self._captures.results.empty():
            result = self._captures.results.get()
            target = by_life.get(id(result.life))
            if target is not None:
                target.settle(
                    ok=result.ok,
                    asked_nobody=result.asked_nobody,
                    incident=result.incident,
                    now_s=time.monotonic(),
                )

    def _end(self, target: Target) -> None:
        container = target.surveyed.container
        del self._targets[container.key]
        target.surveyed.source.close()
        self._scout.look_again()
        for limit in (self._limit, self._holds):
            limit.forget(container.key)
        if target.state.dumps_s:
            self._dumps_s[container.name] = target.state.dumps_s  # the hour goes on for its next life
        outcome = target.end(self._policy, time.monotonic())
        self._record(target, outcome, target.life)
        logs.event(
            logging.INFO if outcome.ending is Ending.EXITED else logging.WARNING,
            "container-ended",
            f"container {container.name} ended: {outcome.ending} ({outcome.seen})",
            ending=outcome.ending,
            seen=outcome.seen,
            counted=outcome.counted,
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

    def _failed(self, target: Target, message: str) -> None:
        self.read_errors += 1
        left_out = self._limit.admit(target.surveyed.container.key, time.monotonic())
        if left_out is not None:
            target.warn("read-failed", f"its memory can't be read: {message}", failures_not_logged=left_out)

    def _keep_house(self, now_s: float) -> None:
        processes: set[Process] = set()
        for target in tuple(self._targets.values()):
            processes.update(target.surveyed.container.processes)
            self._guarded(target, self._keep_target)
        self._baselines.forget(processes)
        if not self._said_lonely and now_s - self._began_s > _LONELY_AFTER_S:
            self._said_lonely = True
            logs.event(
                logging.WARNING,
                "nothing-to-watch",
                "no other container is visible yet: the pod needs shareProcessNamespace: true",
            )

    def _keep_target(self, target: Target) -> None:
        now_s = time.monotonic()
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
