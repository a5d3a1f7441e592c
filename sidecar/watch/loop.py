"""The watch loop: sample every container, judge, ask for captures. It never waits for HTTP, disk, DNS or S3."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from sidecar import logs
from sidecar.core.model import Process, Sample
from sidecar.core.outcome import SURVIVED_KILL, Ending, Outcome
from sidecar.core.pace import CpuBudget
from sidecar.core.roll_call import describe
from sidecar.core.trigger import TriggerState
from sidecar.errors import OomHeapDumperError, TargetGoneError
from sidecar.settings import Settings
from sidecar.watch.announce import announce
from sidecar.watch.baselines import Baselines
from sidecar.watch.captures import Captures, utc_now
from sidecar.watch.endings import Endings
from sidecar.watch.guards import Guards
from sidecar.watch.judge import Judge
from sidecar.watch.last_moments import LastMoments
from sidecar.watch.life import Life
from sidecar.watch.oom_groups import OomGroups
from sidecar.watch.scout import Scout, Surveyed
from sidecar.watch.target import Target
from sidecar.watch.wakeup import Wakeup

_HOUSEKEEPING_S = 1.0
_LONELY_AFTER_S = 15.0
# Of the time after SIGTERM, for the processes of containers that are being killed.
_DYING_S = 1.0


class Loop:
    """Samples each target every ``interval_s`` and looks more often near its limit; `run` returns after `stop`."""

    def __init__(
        self,
        settings: Settings,
        *,
        scout: Scout,
        captures: Captures,
        endings: Endings,
        last_moments: LastMoments,
        guards: Guards,
        oom_groups: OomGroups,
        baselines: Baselines,
        wakeup: Wakeup,
    ) -> None:
        self.last_ok_s = time.monotonic()
        self.samples = 0
        self.read_errors = 0
        self._settings = settings
        self._policy = settings.trigger
        self._scout = scout
        self._captures = captures
        self._endings = endings
        self._last_moments = last_moments
        self._guards = guards
        self._oom_groups = oom_groups
        self._judge = Judge(settings, scout=scout, captures=captures, last_moments=last_moments)
        self._baselines = baselines
        self._takes_baselines = "heap-baseline" in settings.pprof.profiles
        self._wakeup = wakeup
        self._targets: dict[str, Target] = {}
        self._survey: tuple[Surveyed, ...] | None = None
        self._dumps_s: dict[str, tuple[float, ...]] = {}
        self._limit = logs.RateLimit()
        self._next_housekeeping_s = 0.0
        self._began_s = time.monotonic()
        self._budget = CpuBudget(settings.cpu_budget_share, self._began_s)
        self._snapshots_cpu_s = 0.0
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
        while not self._stopping:
            due_s = self.tick()
            while not self._stopping and self._scout.survey is self._survey:
                rest_s = due_s - time.monotonic()
                if rest_s <= 0:
                    break
                fired = self._wakeup.sleep(rest_s)
                self._collect()
                if fired and self._heed(fired):
                    break

    def close(self) -> None:
        """The last round, after `run`: a kill that was just seen is recorded, of a container or of one process."""
        ends_s = time.monotonic() + _DYING_S
        for target in tuple(self._targets.values()):
            self._guarded(target, self._observe)
            if target.surveyed.container.key in self._targets and target.killed_at_s is not None:
                if self._scout.lives_on(target.surveyed.container, ends_s):
                    self._call_roll(target)
                    self._record_survived(target)
                else:
                    self._guarded(target, self._end)

    def tick(self) -> float:
        """One round over all targets that are due; what fails for one is logged and doesn't touch the others.

        Tells when the next one is due.
        """
        self._follow_survey()
        self._collect()
        began_s, samples_cpu_s = time.thread_time(), 0.0
        succeeded = not self._targets
        for target in tuple(self._targets.values()):
            now_s = time.monotonic()
            if now_s >= target.looks.full_due_s:
                sample_began_s = time.thread_time()
                succeeded |= self._guarded(target, self._sample)
                samples_cpu_s += time.thread_time() - sample_began_s
            elif now_s >= target.looks.due_s:
                succeeded |= self._guarded(target, self._look)
        looks_cpu_s = time.thread_time() - began_s - samples_cpu_s  # the round itself included
        now_s = time.monotonic()
        if succeeded:
            self.last_ok_s = now_s
        if now_s >= self._next_housekeeping_s:
            self._next_housekeeping_s = now_s + _HOUSEKEEPING_S
            self._keep_house(now_s)
        snapshots_cpu_s = self._last_moments.cpu_s
        self._budget.spend(looks_cpu_s + snapshots_cpu_s - self._snapshots_cpu_s, now_s)
        self._snapshots_cpu_s = snapshots_cpu_s
        return min(
            (min(target.looks.full_due_s, target.looks.due_s) for target in self._targets.values()),
            default=now_s + self._settings.interval_s,
        )

    def _heed(self, events_fds: frozenset[int]) -> bool:
        """The kernel counted something: sample those containers now, if there is CPU time for it."""
        if not self._budget.is_left():
            return False
        for target in self._targets.values():
            if target.surveyed.source.events_fd in events_fds:
                target.looks.full_due_s = time.monotonic()
        return True

    def _guarded(self, target: Target, act: Callable[[Target], None]) -> bool:
        """Do something with one target; whether it went well. Nothing that is raised goes further."""
        try:
            act(target)
        except TargetGoneError:
            return self._guarded(target, self._end)
        except OomHeapDumperError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 -- nothing may stop the watch
            problem = f"{type(error).__name__}: {error}"
        else:
            return True
        self._failed(target, problem)
        return False

    def _follow_survey(self) -> None:
        if self._survey is self._scout.survey:
            return
        self._survey = self._scout.survey
        survey = {surveyed.container.key: surveyed for surveyed in self._survey}
        for key, target in tuple(self._targets.items()):
            surveyed = survey.get(key)
            if surveyed is not None and surveyed.life == target.surveyed.life:
                if surveyed.source is target.surveyed.source:
                    target.surveyed = surveyed
                else:
                    self._close(target)
                    target.change_source(surveyed)
                continue
            self._guarded(target, self._observe)  # its processes are gone; its cgroup may still be there to tell how
            if key in self._targets:
                self._guarded(target, self._end)
        for key, surveyed in survey.items():
            if key not in self._targets and surveyed.source.is_open:
                self._said_lonely = True  # not any more: there is, or was, somebody
                dumps_s = self._dumps_s.pop(surveyed.container.name, ())
                self._targets[key] = Target(
                    surveyed=surveyed, since_s=time.monotonic(), state=TriggerState(dumps_s=dumps_s)
                )
                self._oom_groups.tend(surveyed.container, surveyed.source)

    def _close(self, target: Target) -> None:
        source = target.surveyed.source
        if source.events_fd is not None:
            self._wakeup.unwatch(source.events_fd)
        source.close()

    def _look(self, target: Target) -> None:
        target.looks.due_s = target.looks.full_due_s  # should reading fail, the next full sample tells more
        usage_bytes = target.surveyed.source.read_usage_bytes()
        if target.look(usage_bytes, time.monotonic()):
            self._sample(target)

    def _observe(self, target: Target) -> None:
        reading = target.life.as_if_not_raised(target.surveyed.source.read())
        self.samples += 1
        if target.observe(self._policy, Sample(at_s=time.monotonic(), reading=reading)):
            target.warn("oom-kill", "the kernel's OOM killer struck", oom_kills=reading.oom_kills)
        self._call_roll(target)

    def _call_roll(self, target: Target) -> None:
        target.call_roll(self._policy, lambda: self._scout.residents(target.surveyed), time.monotonic())

    def _sample(self, target: Target) -> None:
        began_s = time.monotonic()
        try:
            self._observe(target)
            self._judge.judge(target, freely=self._budget.is_left())
            self._guards.mind(target.life)
        finally:
            target.plan(self._policy, self._settings.interval_s, began_s, closely=self._budget.is_left())
        events_fd = target.surveyed.source.events_fd
        if events_fd is not None:
            self._wakeup.watch(events_fd)

    def _collect(self) -> None:
        """Hear how captures ended."""
        if self._captures.results.empty():
            return
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
        self._close(target)
        self._guards.close(target.life, container)
        self._oom_groups.close(container)
        self._captures.forget(container)
        self._scout.look_again()
        self._limit.forget(container.key)
        self._judge.forget(container)
        if target.state.dumps_s:
            self._dumps_s[container.name] = target.state.dumps_s  # the hour goes on for its next life
        outcome = target.end(self._policy, time.monotonic())
        self._record(target, outcome, target.life)
        logs.event(
            logging.INFO if outcome.ending is Ending.EXITED else logging.WARNING,
            "container-ended",
            f"container {container.name} ended: {outcome.ending} ({outcome.seen})"
            + (f"; gone with it, the largest first: {describe(gone)}" if (gone := target.gone(outcome)) else ""),
            ending=outcome.ending,
            seen=outcome.seen,
            counted=outcome.counted,
            **target.log_fields(),
        )

    def _record_survived(self, target: Target) -> None:
        """The OOM killer took a process, the container lives on."""
        target.warn("process-oom-killed", f"it lives on without {describe(target.gone(SURVIVED_KILL))}")
        self._record(target, SURVIVED_KILL, replace(target.life))  # as it is now: a later kill is another story
        target.life.last_dump = target.life.why_no_dump = None
        target.residents.roll.settle()

    def _record(self, target: Target, outcome: Outcome, life: Life) -> None:
        self._endings.record(target.ending(self._policy, outcome, life, time.monotonic(), utc_now()))

    def _failed(self, target: Target, message: str) -> None:
        self.read_errors += 1
        left_out = self._limit.admit(target.surveyed.container.key, time.monotonic())
        if left_out is not None:
            target.warn("read-failed", f"its memory can't be read: {message}", failures_not_logged=left_out)

    def _keep_house(self, now_s: float) -> None:
        processes: set[Process] = set()
        for target in tuple(self._targets.values()):
            processes.update(target.surveyed.container.processes, tuple(target.life.in_hand))
            self._guarded(target, self._keep_target)
        self._baselines.forget(processes, now_s)
        if not self._said_lonely and now_s - self._began_s > _LONELY_AFTER_S:
            self._said_lonely = True
            logs.event(
                logging.WARNING,
                "nothing-to-watch",
                "no other container is visible yet: none runs so far, or the pod lacks shareProcessNamespace: true",
            )

    def _keep_target(self, target: Target) -> None:
        now_s = time.monotonic()
        self._oom_groups.tend(target.surveyed.container, target.surveyed.source)
        if self._takes_baselines:
            answering = self._scout.endpoints.of(target.surveyed.container)
            self._baselines.keep(answering, target.ratio(self._policy), now_s)
        if target.killed_at_s is None:
            self._last_moments.forget_ended(target.life, target.surveyed.container, now_s)
        if target.survived_kill(now_s):
            self._record_survived(target)
        if target.last is not None:
            container, source = target.surveyed.container, target.surveyed.source
            if self._judge.can_be_dumped(container):
                self._guards.tend(target.life, container, source, target.last.reading)
            else:
                self._guards.drop(target.life)  # there is nothing to hold the killer off for
        if not target.announced:
            target.announced = announce(target, self._policy, self._scout, now_s)
