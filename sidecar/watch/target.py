"""What the loop knows of one life of one container, and how it judges its samples."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from sidecar import logs
from sidecar.core import pace, trigger
from sidecar.core.history import SampleHistory
from sidecar.core.keys import DumpId, incident_id
from sidecar.core.manifest import Incident
from sidecar.core.model import Sample
from sidecar.core.outcome import Ending, LastSeen, Outcome, is_worth_a_dump, judge_end, process_killed
from sidecar.core.pace import KeepingPolicy, Kept
from sidecar.core.roll_call import Resident
from sidecar.core.trigger import Reason, TriggerPolicy, TriggerState, Verdict
from sidecar.watch.captures import Request
from sidecar.watch.endings import End
from sidecar.watch.life import Life
from sidecar.watch.residents import Residents
from sidecar.watch.scout import Surveyed

# After the kernel killed one process of a container, the rest of it usually follows within this time.
_AFTERMATH_S = 5.0
_INCIDENT_ID_CHARACTERS = 8
_SLOPE_WINDOW_S = 0.35
_LEAST_SLOPE_S = 0.01
# From seeing that the limit is near to a snapshot of the memory that is safe, busy machines included.
_CAPTURE_S = 0.03
_KEEPING = KeepingPolicy()


@dataclass(slots=True)
class Looks:
    """When a target is looked at next, and what the last look saw. Times are monotonic seconds.

    Between two full samples only the usage is read, each ``interval_s``; from ``alert_bytes`` on a full sample follows
    at once.
    """

    full_due_s: float = 0.0
    due_s: float = 0.0
    interval_s: float = 0.0
    at_s: float = 0.0
    usage_bytes: int = 0
    alert_bytes: int = 0
    rise_bytes_per_s: float = 0.0


@dataclass(slots=True)
class Target:
    """One life of a container: from its first sample until its cgroup is gone."""

    surveyed: Surveyed
    since_s: float
    life: Life = field(default_factory=Life)
    state: TriggerState = field(default_factory=TriggerState)
    history: SampleHistory = field(default_factory=SampleHistory)
    last: Sample | None = None
    first_oom_kills: int | None = None
    killed_at_s: float | None = None
    incident: str = ""
    number: int = 0
    announced: bool = False
    awaits_endpoint: bool = False
    looks: Looks = field(default_factory=Looks)
    kept: Kept | None = None
    residents: Residents = field(default_factory=Residents)

    def observe(self, policy: TriggerPolicy, sample: Sample) -> bool:
        """Take in a sample; whether it tells that the OOM killer struck since the one before."""
        before = self.last.reading.oom_kills if self.last else sample.reading.oom_kills
        self._note_rise(policy, sample)
        if self.last is None:
            self.first_oom_kills = sample.reading.oom_kills
        self.last = sample
        self.history.add(sample)
        if sample.reading.limit_bytes:
            self.kept = pace.lowered(
                _KEEPING, self.kept, sample.metric_bytes(policy.metric), sample.reading.limit_bytes
            )
        if not process_killed(before, sample.reading.oom_kills):
            return False
        if self.killed_at_s is None:
            self.killed_at_s = sample.at_s
        return True

    def change_source(self, surveyed: Surveyed) -> None:
        """Its memory is read elsewhere from now on: no figure of before, nor a counter, compares with what comes."""
        self.surveyed = surveyed
        self.last = self.first_oom_kills = self.kept = None
        self.history, self.looks = SampleHistory(), Looks()

    def plan(self, policy: TriggerPolicy, interval_s: float, began_s: float, *, closely: bool) -> None:
        """Say when to look next, after a full sample, or a try at one, that began at ``began_s``.

        ``closely`` if there is CPU time for more than a look each ``interval_s``.
        """
        looks = self.looks
        if self.last is None or self.last.at_s < began_s:
            looks.full_due_s = looks.due_s = began_s + interval_s
            return
        at_s, reading = self.last.at_s, self.last.reading
        # One that came early counts as well, so that many of those don't put the next one off.
        due_s = min(looks.full_due_s, at_s) + interval_s
        looks.full_due_s = due_s if due_s > at_s else at_s + interval_s
        looks.due_s = looks.full_due_s
        limit = reading.limit_bytes
        if limit and closely:
            value = self.last.metric_bytes(policy.metric)
            looks.interval_s = pace.look_interval_s(limit - value, interval_s)
            looks.due_s = at_s + looks.interval_s
            threshold = trigger.threshold_bytes(policy, limit)
            looks.alert_bytes = pace.alert_bytes(reading.usage_bytes, value, threshold, limit)

    def look(self, usage_bytes: int, now_s: float) -> bool:
        """Take in what a quick look saw; whether a full sample must follow."""
        if usage_bytes >= self.looks.alert_bytes:
            return True
        self.looks.due_s = now_s + self.looks.interval_s
        self.looks.at_s, self.looks.usage_bytes = now_s, usage_bytes
        return False

    def _note_rise(self, policy: TriggerPolicy, sample: Sample) -> None:
        """How fast memory rose since the last look, page cache that came with it left out."""
        looks = self.looks
        if self.last is not None:
            rise = min(
                sample.reading.usage_bytes - looks.usage_bytes,
                sample.metric_bytes(policy.metric) - self.last.metric_bytes(policy.metric),
            )
            looks.rise_bytes_per_s = rise / max(sample.at_s - looks.at_s, _LEAST_SLOPE_S)
        looks.at_s, looks.usage_bytes = sample.at_s, sample.reading.usage_bytes

    def judge(self, policy: TriggerPolicy, interval_s: float, *, last_is_kept: bool) -> Verdict:
        """Judge the sample that was taken in last; ``interval_s`` is the sampling interval far from the limit."""
        if self.last is None:
            return Verdict()
        limit, value = self.last.reading.limit_bytes or 0, self.last.metric_bytes(policy.metric)
        within_s = pace.look_interval_s(limit - value, interval_s) + _CAPTURE_S
        imminent = pace.reaches_limit(value, limit, self.looks.rise_bytes_per_s, within_s)
        self.state, verdict = trigger.step(policy, self.state, self.last, imminent=imminent, last_is_kept=last_is_kept)
        if verdict.incident_began or not self.incident:
            self.incident, self.number = _new_incident(), 0
        return verdict

    def wants_snapshot(self, policy: TriggerPolicy, *, freely: bool) -> bool:
        """Whether the snapshot in hand should be replaced; ``freely`` if there is CPU time for it."""
        if self.last is None or not self.last.reading.limit_bytes:
            return False
        limit = self.last.reading.limit_bytes
        if not freely and self.kept is not None and self.last.at_s - self.kept.at_s < _KEEPING.starved_s:
            return False
        return pace.snapshot_due(
            _KEEPING,
            self.kept,
            value_bytes=self.last.metric_bytes(policy.metric),
            limit_bytes=limit,
            threshold_bytes=trigger.threshold_bytes(policy, limit),
            now_s=self.last.at_s,
        )

    def note_snapshot(self, policy: TriggerPolicy) -> None:
        """A snapshot is being taken, of the moment of the last sample."""
        if self.last is not None:
            self.kept = Kept(at_s=self.last.at_s, value_bytes=self.last.metric_bytes(policy.metric))

    def settle(self, *, ok: bool, asked_nobody: bool, incident: str, now_s: float) -> None:
        """Hear how a capture ended; only a success starts the cooldown and is counted as a dump of its incident."""
        self.awaits_endpoint = asked_nobody
        self.state = (trigger.succeeded if ok else trigger.failed)(self.state, now_s)
        if not ok:
            self.kept = None
            if incident == self.incident:
                self.number -= 1

    def found_endpoint(self) -> None:
        """Somebody answers now: what failed for want of it is tried again at once."""
        self.awaits_endpoint = False
        self.state = replace(self.state, last_failure_s=None)

    def request(self, policy: TriggerPolicy, reason: Reason, at: datetime) -> Request:
        """Turn a verdict into a request for a dump, the next one of this incident."""
        if self.last is None:
            raise ValueError("a dump is asked for after a sample")
        self.number += 1
        return Request(
            incident=self._incident(policy, reason, self.last),
            incident_id=self.incident,
            number=self.number,
            at=at,
            life=self.life,
        )

    def _incident(self, policy: TriggerPolicy, reason: Reason, sample: Sample) -> Incident:
        return Incident(
            container=self.surveyed.container,
            reason=reason,
            policy=policy,
            sample=sample,
            history=self.history.rows(sample.at_s),
            memory_source=self.surveyed.source.description,
        )

    def ending(self, policy: TriggerPolicy, outcome: Outcome, life: Life, now_s: float, at: datetime) -> End:
        """What is to be recorded of an end."""
        self.incident = self.incident or _new_incident()
        self.number += 1
        return End(
            life=life,
            container=self.surveyed.container,
            outcome=outcome,
            stores_last=is_worth_a_dump(outcome, self._last_seen(policy, now_s), rearm_ratio=policy.rearm_ratio),
            at_s=now_s,
            last=self.last,
            gone=self.gone(outcome),
            history=self.history.rows(now_s),
            incident_of=lambda sample: self._incident(policy, Reason.LAST_MOMENT, sample),
            incident=self.incident,
            number=self.number,
            fallback=self.outcome_id(at),
        )

    def call_roll(self, policy: TriggerPolicy, who_is_there: Callable[[], tuple[Resident, ...]], now_s: float) -> None:
        """Note who is in there, if it is time, or who isn't any more since the kill that is under way."""
        kills = 0
        if self.killed_at_s is not None and self.last is not None:
            kills = max(1, (self.last.reading.oom_kills or 0) - (self.first_oom_kills or 0))
        self.residents.look(who_is_there, now_s, ratio=self.ratio(policy), kills=kills)

    def gone(self, outcome: Outcome) -> tuple[Resident, ...]:
        """Whom an end took, or may have taken, the largest first; nobody where nobody was killed."""
        if outcome.ending is Ending.EXITED:
            return ()
        roll = self.residents.roll
        return roll.gone() if outcome.ending is Ending.PROCESS_OOM_KILLED else roll.everybody()

    def ratio(self, policy: TriggerPolicy) -> float | None:
        """Memory over limit in the last sample; None without a limit or a sample."""
        if self.last is None or not self.last.reading.limit_bytes:
            return None
        return self.last.metric_bytes(policy.metric) / self.last.reading.limit_bytes

    def end(self, policy: TriggerPolicy, now_s: float) -> Outcome:
        """Judge how it ended."""
        return judge_end(
            oom_kills_first=self.first_oom_kills,
            last=self._last_seen(policy, now_s),
            was_killed=self.killed_at_s is not None,
        )

    def _last_seen(self, policy: TriggerPolicy, now_s: float) -> LastSeen | None:
        if self.last is None:
            return None
        return LastSeen(
            ratio=self.ratio(policy),
            ratio_per_s=self._ratio_per_s(policy),
            age_s=now_s - self.last.at_s,
            oom_kills=self.last.reading.oom_kills,
        )

    def _ratio_per_s(self, policy: TriggerPolicy) -> float:
        """How fast memory rose, as a fraction of the limit, over the last moments before the last sample."""
        if self.last is None or not self.last.reading.limit_bytes:
            return 0.0
        rows = self.history.rows(self.last.at_s, _SLOPE_WINDOW_S)
        if len(rows) < 2:
            rows = self.history.rows(self.last.at_s)[-2:]  # with a long interval no two are in the window
        if len(rows) < 2:
            return 0.0
        (first_s, first_usage, first_working_set, _), (last_s, last_usage, last_working_set, _) = rows[0], rows[-1]
        by_working_set = policy.metric == "working-set"
        rise_bytes = last_working_set - first_working_set if by_working_set else last_usage - first_usage
        return rise_bytes / self.last.reading.limit_bytes / max(last_s - first_s, _LEAST_SLOPE_S)

    def survived_kill(self, now_s: float) -> bool:
        """Whether it lives on well after the kill of one of its processes; true once for each kill."""
        if self.killed_at_s is None or now_s - self.killed_at_s < _AFTERMATH_S:
            return False
        self.killed_at_s = None
        self.first_oom_kills = self.last.reading.oom_kills if self.last else None
        return True

    def outcome_id(self, at: datetime) -> DumpId:
        """Name of the last manifest's folder, where there is no dump to put it beside."""
        container = self.surveyed.container
        return DumpId(
            at=at, container=container.name, pid=container.main.pid, incident=self.incident or _new_incident(), number=0
        )

    def log_fields(self) -> dict[str, object]:
        """What identifies it in the log."""
        return {"container": self.surveyed.container.name, "pid": self.surveyed.container.main.pid}

    def warn(self, name: str, message: str, **fields: object) -> None:
        """Log a warning about it."""
        logs.event(
            logging.WARNING, name, f"container {self.surveyed.container.name}: {message}", **self.log_fields(), **fields
        )


def _new_incident() -> str:
    return incident_id(os.urandom(_INCIDENT_ID_CHARACTERS))
