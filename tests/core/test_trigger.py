"""The trigger's rules, each by example, then as properties over arbitrary memory curves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import trigger
from sidecar.core.model import Reading, Sample
from sidecar.core.trigger import Hold, Reason, TriggerPolicy, TriggerState, Verdict

LIMIT = 1000
POLICY = TriggerPolicy(critical_ratio=0.8, cooldown_s=30, max_per_hour=20)


def sample(at_s: float, used: int, limit: int | None = LIMIT) -> Sample:
    """A sample of that usage, all of it working set."""
    return Sample(at_s=at_s, reading=Reading(usage_bytes=used, inactive_file_bytes=0, limit_bytes=limit, oom_kills=0))


@dataclass
class Run:
    """Plays a memory curve; every capture that fires ends at once, well or badly as ``succeeds`` says."""

    policy: TriggerPolicy = POLICY
    state: TriggerState = field(default_factory=TriggerState)
    succeeds: bool = True
    fired: list[tuple[float, Reason, int]] = field(default_factory=list)

    def at(self, at_s: float, used: int) -> Verdict:
        self.state, verdict = trigger.step(self.policy, self.state, sample(at_s, used))
        if verdict.fire is not None:
            self.fired.append((at_s, verdict.fire, used))
            settle = trigger.succeeded if self.succeeds else trigger.failed
            self.state = settle(self.state, at_s)
        return verdict


def test_fires_at_the_threshold_and_not_below() -> None:
    """One byte below 80 % is calm, 80 % fires."""
    run = Run()
    assert run.at(0, 799).fire is None
    verdict = run.at(1, 800)
    assert verdict.fire is Reason.THRESHOLD
    assert verdict.incident_began


def test_escalates_inside_the_cooldown() -> None:
    """A further twentieth of the limit fires although the cooldown runs; less doesn't."""
    run = Run()
    run.at(0, 800)
    assert run.at(1, 849).hold is Hold.COOLDOWN
    assert run.at(2, 850).fire is Reason.ESCALATION
    assert run.at(3, 899).hold is Hold.COOLDOWN
    assert run.at(4, 900).fire is Reason.ESCALATION


def test_hovering_fires_only_above_the_last_mark() -> None:
    """After the cooldown the same level says nothing new; a level clearly above the last dump's does."""
    run = Run()
    run.at(0, 820)
    assert run.at(60, 825).hold is Hold.HOVERING
    assert run.at(61, 831).fire is Reason.HIGH_WATER


def test_a_new_crossing_after_rearming_waits_for_the_cooldown() -> None:
    """Cooldown spans incidents: the sawtooth of a collector doesn't dump at each tooth."""
    run = Run()
    run.at(0, 810)
    assert run.at(5, 700).incident_ended
    assert run.at(10, 810).hold is Hold.COOLDOWN
    assert run.at(29.9, 810).hold is Hold.COOLDOWN
    assert run.at(30, 810).fire is Reason.THRESHOLD


def test_a_new_crossing_far_above_the_last_dump_does_not_wait() -> None:
    """Escalation holds across incidents too: a second, higher leak in the cooldown is dumped."""
    run = Run()
    run.at(0, 810)
    run.at(5, 600)
    assert run.at(10, 900).fire is Reason.ESCALATION


def test_between_the_marks_nothing_is_rearmed() -> None:
    """Falling to 79 % and back isn't a new incident."""
    run = Run()
    run.at(0, 800)
    assert not run.at(1, 790).incident_ended
    assert not run.at(2, 805).incident_began


def test_a_failure_is_retried_soon_and_starts_no_cooldown() -> None:
    """A failed capture fires again after a second, not after the cooldown, and not at each sample."""
    run = Run(succeeds=False)
    run.at(0, 900)
    assert run.at(0.5, 900).hold is Hold.RETRY_WAIT
    assert run.at(1.0, 900).fire is Reason.THRESHOLD


def test_nothing_fires_while_a_capture_runs() -> None:
    """One first profile at a time for a container."""
    state, verdict = trigger.step(POLICY, TriggerState(), sample(0, 900))
    assert verdict.fire is not None
    state, verdict = trigger.step(POLICY, state, sample(1, 999))
    assert verdict.hold is Hold.CAPTURING
    assert state.capturing


def test_the_hourly_cap_holds_back_and_says_so() -> None:
    """With a cap of two the third dump of an hour is held back, and taken when the hour is over."""
    run = Run(policy=TriggerPolicy(critical_ratio=0.8, cooldown_s=1, max_per_hour=2))
    run.at(0, 800)
    run.at(10, 850)
    assert run.at(20, 900).hold is Hold.HOURLY_CAP
    assert run.at(3601, 900).fire is Reason.ESCALATION


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_limit_nothing_fires(limit: int | None) -> None:
    """No limit (or a limit of 0) is no reason to dump, whatever the usage."""
    _, verdict = trigger.step(POLICY, TriggerState(), sample(0, 10**12, limit))
    assert verdict == Verdict()


def test_the_metric_decides_what_counts() -> None:
    """Page cache fires with ``usage`` and not with the working set."""
    cached = Sample(at_s=0, reading=Reading(usage_bytes=900, inactive_file_bytes=400, limit_bytes=LIMIT, oom_kills=0))
    usage = TriggerPolicy(critical_ratio=0.8, cooldown_s=30, max_per_hour=20, metric="usage")
    assert trigger.step(POLICY, TriggerState(), cached)[1].fire is None
    assert trigger.step(usage, TriggerState(), cached)[1].fire is Reason.THRESHOLD


def test_a_failed_escalation_is_retried_in_a_new_incident_too() -> None:
    """Only a dump that was taken is what a further rise is measured from."""
    run = Run()
    run.at(0, 800)
    run.at(2, 600)
    run.succeeds = False
    assert run.at(4, 860).fire is Reason.ESCALATION
    assert run.at(5, 880).fire is Reason.ESCALATION


def test_endless_failure_is_tried_less_and_less_often() -> None:
    """A container that can't be dumped isn't bothered each second for hours."""
    run = Run(succeeds=False)
    for tick in range(36000):
        run.at(tick / 10, 900)
    times = [at for at, _, _ in run.fired]
    assert times[9] - times[0] < 10
    assert 55 < times[-1] - times[-2] <= 61
    assert len(times) < 100


curves = st.lists(st.tuples(st.floats(0.01, 600), st.integers(0, LIMIT), st.booleans()), min_size=1, max_size=200)


@given(curves)
def test_properties_of_any_curve(curve: list[tuple[float, int, bool]]) -> None:
    """Never below the threshold; never over the cap; in the cooldown only with a rise of a step; always the first."""
    policy = TriggerPolicy(critical_ratio=0.8, cooldown_s=30, max_per_hour=5)
    state, now_s = TriggerState(), 0.0
    dumps: list[tuple[float, int]] = []
    for gap_s, used, succeeds in curve:
        now_s += gap_s
        state, verdict = trigger.step(policy, state, sample(now_s, used))
        recent = [at for at, _ in dumps if now_s - at < 3600]
        if verdict.fire is None:
            if used >= 800 and not dumps:
                assert verdict.hold is Hold.RETRY_WAIT, "the first crossing fires unless a failure was just now"
            continue
        assert used >= 800
        assert len(recent) < policy.max_per_hour
        if dumps and now_s - dumps[-1][0] < policy.cooldown_s:
            assert used >= dumps[-1][1] + policy.escalation_step * LIMIT
        if succeeds:
            dumps.append((now_s, used))
            state = trigger.succeeded(state, now_s)
        else:
            state = trigger.failed(state, now_s)


@given(curves)
def test_a_steady_level_is_dumped_once(curve: list[tuple[float, int, bool]]) -> None:
    """Whatever the gaps between the samples, memory that never rises again gives a single dump."""
    run = Run()
    now_s = 0.0
    for gap_s, _, _ in curve:
        now_s += gap_s
        run.at(now_s, 850)
    assert len(run.fired) == 1


def test_memory_about_to_reach_its_limit_fires_below_the_threshold() -> None:
    """It won't be seen above it. Crossing the threshold after all makes one dump more, in the cooldown too."""
    state, verdict = trigger.step(POLICY, TriggerState(), sample(0, 600), imminent=True)
    assert verdict.fire is Reason.PREDICTION
    assert verdict.incident_began
    state = trigger.succeeded(state, 0.1)
    state, verdict = trigger.step(POLICY, state, sample(0.2, 640), last_is_kept=True)
    assert verdict.fire is None
    state, verdict = trigger.step(POLICY, state, sample(0.3, 800), last_is_kept=True)
    assert verdict.fire is Reason.ESCALATION
    assert not verdict.incident_began


def test_a_false_prediction_costs_one_dump() -> None:
    """The rise ends at 60 %: the incident stays open for the cooldown, and the crossing after that is another one."""
    state, _ = trigger.step(POLICY, TriggerState(), sample(0, 600), imminent=True)
    state = trigger.succeeded(state, 0.1)
    for at_s in (0.2, 29.0, 31.0):
        state, verdict = trigger.step(POLICY, state, sample(at_s, 610))
        assert verdict == Verdict()  # it never was above the threshold, so nothing is calm again
    state, verdict = trigger.step(POLICY, state, sample(60, 800))
    assert verdict.fire is Reason.THRESHOLD
    assert verdict.incident_began


def test_no_escalation_where_the_last_moment_is_kept_anyway() -> None:
    """After a dump above the threshold the way up to the kill asks for no more."""
    state, _ = trigger.step(POLICY, TriggerState(), sample(0, 800), last_is_kept=True)
    state = trigger.succeeded(state, 0.1)
    for at_s, used in ((1, 850), (2, 900), (3, 990)):
        state, verdict = trigger.step(POLICY, state, sample(at_s, used), last_is_kept=True)
        assert verdict.hold is Hold.COOLDOWN
