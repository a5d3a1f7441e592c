"""When to dump: a pure verdict over samples of one container.

``step`` is called with each sample and says whether to capture now; ``succeeded`` and ``failed`` tell it how a capture
ended. The rules, in order:

1. Below the re-arm mark the incident is over; the next crossing is a new one. One that was only foreseen stays open for
   the cooldown.
2. Above the threshold an incident's first dump fires at once, unless the cooldown of an earlier incident still runs.
   Memory that is about to reach its limit before anyone could look again counts as above it, wherever it is.
3. A further rise by ``escalation_step`` of the limit since the last dump fires even inside the cooldown; where the last
   moment is kept in hand anyway, only after a dump that was taken below the threshold.
4. After the cooldown, memory that merely hovers fires only above the last dump's mark.
5. A failed capture is tried again after ``retry_s``, less often once it has failed for a while; only a success starts
   the cooldown.
6. No more than ``max_per_hour`` dumps in any hour; the verdict says when this holds one back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from sidecar.core.model import Metric, Sample

_HOUR_S = 3600.0


class Reason(StrEnum):
    """Why a dump was taken."""

    THRESHOLD = "threshold"
    PREDICTION = "prediction"
    ESCALATION = "escalation"
    HIGH_WATER = "high-water"
    LAST_MOMENT = "last-moment"
    ON_DEMAND = "on-demand"


class Hold(StrEnum):
    """Why no dump is taken although memory is above the threshold."""

    CAPTURING = "capturing"
    RETRY_WAIT = "retry-wait"
    COOLDOWN = "cooldown"
    HOVERING = "hovering"
    HOURLY_CAP = "hourly-cap"


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerPolicy:
    """Tunables of the trigger. Ratios are fractions of the limit.

    ``rearm_ratio`` sits a tenth below the threshold so that the sawtooth of a garbage collector is one incident, not
    many. ``escalation_step`` of a twentieth gives at most four dumps on the way from 80 % to the kill.
    ``hover_margin`` keeps noise of a page or two from counting as a new high-water mark. After ``patient_after``
    failures in a row the pause before the next try doubles each time, up to ``max_retry_s``.
    """

    critical_ratio: float
    cooldown_s: float
    max_per_hour: int
    metric: Metric = "working-set"
    escalation_step: float = 0.05
    hover_margin: float = 0.01
    retry_s: float = 1.0
    patient_after: int = 10
    max_retry_s: float = 60.0

    @property
    def rearm_ratio(self) -> float:
        """Below this fraction of the limit an incident is over."""
        return self.critical_ratio * 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerState:
    """What the trigger remembers of a container. Times are monotonic seconds, marks are bytes.

    ``predicted_s`` is set while an incident has only been foreseen: memory hasn't been above the threshold yet.
    """

    in_incident: bool = False
    capturing: bool = False
    attempt_bytes: int = 0
    high_water_bytes: int | None = None
    last_success_s: float | None = None
    last_success_bytes: int = 0
    last_failure_s: float | None = None
    failures: int = 0
    predicted_s: float | None = None
    dumps_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``fire`` tells to capture and why; ``hold`` why not, when memory is above the threshold.

    ``incident_began`` is true for the sample that crosses the threshold, ``incident_ended`` for the one that re-arms.
    """

    fire: Reason | None = None
    hold: Hold | None = None
    incident_began: bool = False
    incident_ended: bool = False


def threshold_bytes(policy: TriggerPolicy, limit_bytes: int) -> int:
    """The number of bytes at which the trigger fires."""
    return int(limit_bytes * policy.critical_ratio)


def step(
    policy: TriggerPolicy, state: TriggerState, sample: Sample, *, imminent: bool = False, last_is_kept: bool = False
) -> tuple[TriggerState, Verdict]:
    """Judge one sample. A sample without a limit (or with a limit of 0) judges nothing.

    ``imminent`` says that the limit is about to be reached, see `sidecar.core.pace.reaches_limit`; ``last_is_kept``
    that a kill will leave its last moment without a dump for each step on the way.
    """
    limit = sample.reading.limit_bytes
    if not limit:
        return state, Verdict()
    value = sample.metric_bytes(policy.metric)
    if value < limit * policy.rearm_ratio and not imminent:
        if state.predicted_s is not None and sample.at_s - state.predicted_s < policy.cooldown_s:
            return state, Verdict()
        ended = state.in_incident and state.predicted_s is None
        state = replace(
            state, in_incident=False, high_water_bytes=None, last_failure_s=None, failures=0, predicted_s=None
        )
        return state, Verdict(incident_ended=ended)
    early = value < limit * policy.critical_ratio
    if early and not imminent:
        return state, Verdict()
    began = not state.in_incident
    foreseen_s = state.predicted_s if state.in_incident else sample.at_s
    state = replace(state, in_incident=True, predicted_s=foreseen_s if early else None)
    fire, hold = _judge(policy, state, sample.at_s, value, limit, escalates=not last_is_kept)
    if fire is not None:
        state = replace(state, capturing=True, attempt_bytes=value)
        if early and fire is Reason.THRESHOLD:
            fire = Reason.PREDICTION
    return state, Verdict(fire=fire, hold=hold, incident_began=began)


def succeeded(state: TriggerState, now_s: float) -> TriggerState:
    """A capture brought home a profile: the cooldown starts, the mark is what memory was when it fired."""
    recent = tuple(at for at in state.dumps_s if now_s - at < _HOUR_S)
    return replace(
        state,
        capturing=False,
        high_water_bytes=state.attempt_bytes if state.in_incident else None,
        last_success_s=now_s,
        last_success_bytes=state.attempt_bytes,
        last_failure_s=None,
        failures=0,
        dumps_s=(*recent, now_s),
    )


def failed(state: TriggerState, now_s: float) -> TriggerState:
    """A capture brought home nothing: it may be tried again soon."""
    return replace(state, capturing=False, last_failure_s=now_s, failures=state.failures + 1)


def retry_delay_s(policy: TriggerPolicy, failures: int) -> float:
    """How long after the last of so many failures in a row the next try may come."""
    doublings = min(max(0, failures - policy.patient_after), 16)
    return min(policy.retry_s * 2.0**doublings, policy.max_retry_s)


def _judge(
    policy: TriggerPolicy, state: TriggerState, now_s: float, value: int, limit: int, *, escalates: bool
) -> tuple[Reason | None, Hold | None]:
    if state.capturing:
        return None, Hold.CAPTURING
    if state.last_failure_s is not None and now_s - state.last_failure_s < retry_delay_s(policy, state.failures):
        return None, Hold.RETRY_WAIT
    reason, hold = _wanted(policy, state, now_s, value, limit, escalates=escalates)
    if reason is not None and sum(now_s - at < _HOUR_S for at in state.dumps_s) >= policy.max_per_hour:
        return None, Hold.HOURLY_CAP
    return reason, hold


def _wanted(
    policy: TriggerPolicy, state: TriggerState, now_s: float, value: int, limit: int, *, escalates: bool
) -> tuple[Reason | None, Hold | None]:
    cooling = state.last_success_s is not None and now_s - state.last_success_s < policy.cooldown_s
    mark = state.high_water_bytes
    if mark is None:
        if cooling and value >= state.last_success_bytes + policy.escalation_step * limit:
            return Reason.ESCALATION, None
        return (None, Hold.COOLDOWN) if cooling else (Reason.THRESHOLD, None)
    threshold = policy.critical_ratio * limit
    if value >= mark + policy.escalation_step * limit and (escalates or mark < threshold <= value):
        return Reason.ESCALATION, None
    if cooling:
        return None, Hold.COOLDOWN
    if value > mark + policy.hover_margin * limit:
        return Reason.HIGH_WATER, None
    return None, Hold.HOVERING
