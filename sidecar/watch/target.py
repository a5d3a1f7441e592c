"""What the loop knows of one life of one container, and how it judges its samples."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from datetime import datetime

from sidecar import logs
from sidecar.core import trigger
from sidecar.core.history import SampleHistory
from sidecar.core.keys import DumpId, incident_id
from sidecar.core.manifest import Incident
from sidecar.core.model import Sample
from sidecar.core.outcome import Outcome, judge_end, process_killed
from sidecar.core.trigger import Reason, TriggerPolicy, TriggerState, Verdict
from sidecar.watch.captures import Life, Request
from sidecar.watch.scout import Surveyed

# After the kernel killed one process of a container, the rest of it usually follows within this time.
_AFTERMATH_S = 5.0
_INCIDENT_ID_CHARACTERS = 8


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

    def observe(self, policy: TriggerPolicy, sample: Sample) -> Verdict:
        """Take in a sample and judge it."""
        before = self.last.reading.oom_kills if self.last else sample.reading.oom_kills
        if self.last is None:
            self.first_oom_kills = sample.reading.oom_kills
        self.last = sample
        self.history.add(sample)
        if process_killed(before, sample.reading.oom_kills):
            self.killed_at_s = sample.at_s
        self.state, verdict = trigger.step(policy, self.state, sample)
        if verdict.incident_began or not self.incident:
            self.incident, self.number = _new_incident(), 0
        return verdict

    def request(self, policy: TriggerPolicy, reason: Reason, at: datetime) -> Request:
        """Turn a verdict into a request for a dump, the next one of this incident."""
        if self.last is None:
            raise ValueError("a dump is asked for after a sample")
        self.number += 1
        return Request(
            incident=Incident(
                container=self.surveyed.container,
                reason=reason,
                policy=policy,
                sample=self.last,
                history=self.history.rows(self.last.at_s),
                memory_source=self.surveyed.source.description,
            ),
            incident_id=self.incident,
            number=self.number,
            at=at,
            life=self.life,
        )

    def ratio(self, policy: TriggerPolicy) -> float | None:
        """Memory over limit in the last sample; None without a limit or a sample."""
        if self.last is None or not self.last.reading.limit_bytes:
            return None
        return self.last.metric_bytes(policy.metric) / self.last.reading.limit_bytes

    def end(self, policy: TriggerPolicy) -> Outcome:
        """Judge how it ended."""
        return judge_end(
            oom_kills_first=self.first_oom_kills,
            oom_kills_last=self.last.reading.oom_kills if self.last else None,
            last_ratio=self.ratio(policy),
            was_killed=self.killed_at_s is not None,
        )

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
