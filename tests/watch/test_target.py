"""When a target is looked at next, and what a quick look makes of what it sees."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import cast

import pytest

from sidecar.core.model import Container, Process, Reading, Sample
from sidecar.core.trigger import Reason, TriggerPolicy
from sidecar.kernel.cgroup import MemorySource
from sidecar.watch.loop import Loop
from sidecar.watch.scout import Surveyed
from sidecar.watch.target import Target

LIMIT = 128 << 20
POLICY = TriggerPolicy(critical_ratio=0.8, cooldown_s=30, max_per_hour=20)
PROCESS = Process(pid=42, created_at_s=1e9, name="app", uid=1, gid=1)


class Source:
    """All that is asked of it here."""

    description = "cgroup v2"

    def read_usage_bytes(self) -> int:
        """As little as ever."""
        return 0


def new_target() -> Target:
    """A target without a past."""
    container = Container(key="/c", name="app", processes=(PROCESS,))
    return Target(surveyed=Surveyed(container=container, source=cast("MemorySource", Source()), life=1), since_s=0.0)


def observe(target: Target, at_s: float, share: float, cache_share: float = 0.0, oom_kills: int = 0) -> None:
    """A full sample of so much of the limit, and page cache beside it."""
    cache = int(LIMIT * cache_share)
    reading = Reading(
        usage_bytes=int(LIMIT * share) + cache, inactive_file_bytes=cache, limit_bytes=LIMIT, oom_kills=oom_kills
    )
    target.observe(POLICY, Sample(at_s=at_s, reading=reading))
    target.plan(POLICY, 0.1, at_s, closely=True)


def test_many_early_samples_do_not_put_off_the_next_one() -> None:
    """A second above the threshold is a hundred full samples; the one after them is due within the interval."""
    target = new_target()
    for step in range(100):
        observe(target, 10 + step * 0.01, 0.9)
    assert target.looks.full_due_s == pytest.approx(10.99 + 0.1)


def test_a_late_sample_is_not_made_up_for() -> None:
    """After a stall of a second the cadence starts anew."""
    target = new_target()
    observe(target, 10.0, 0.1)
    observe(target, 11.0, 0.1)
    assert target.looks.full_due_s == pytest.approx(11.1)


def test_the_first_sample_is_followed_after_the_interval() -> None:
    """As any other: nothing is late at the start."""
    target = new_target()
    observe(target, 10.0, 0.1)
    assert target.looks.full_due_s == pytest.approx(10.1)


def test_a_sample_that_failed_is_not_tried_again_at_once() -> None:
    """Neither the first one nor a later one: the cause won't be gone in a microsecond."""
    target = new_target()
    target.plan(POLICY, 0.1, 10.0, closely=True)
    assert (target.looks.full_due_s, target.looks.due_s) == pytest.approx((10.1, 10.1))
    observe(target, 10.1, 0.95)
    target.plan(POLICY, 0.1, 12.0, closely=True)
    assert (target.looks.full_due_s, target.looks.due_s) == pytest.approx((12.1, 12.1))


def test_a_quick_look_asks_for_a_sample_only_when_something_rose() -> None:
    """A little more is noted; a twentieth of the limit more needs the full truth."""
    target = new_target()
    observe(target, 10.0, 0.5)
    before_s = target.looks.due_s
    assert not target.look(int(LIMIT * 0.52), 10.02)
    assert target.looks.due_s > before_s
    assert target.look(int(LIMIT * 0.56), 10.04)


def test_close_looks_go_on_until_the_next_full_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is followed by another one after the same pause, while nothing rises."""
    target, clock = new_target(), [10.0]
    monkeypatch.setattr("sidecar.watch.loop.time", SimpleNamespace(monotonic=lambda: clock[0]))
    observe(target, 10.0, 0.6)
    pause_s, at_s = target.looks.due_s - 10.0, []
    while target.looks.due_s < target.looks.full_due_s:
        clock[0] = target.looks.due_s
        at_s.append(clock[0])
        Loop._look(cast("Loop", None), target)
    assert pause_s < 0.025
    assert at_s == pytest.approx([10.0 + pause_s * look for look in range(1, len(at_s) + 1)])
    assert len(at_s) >= 3


@pytest.mark.parametrize("interval_s", [0.1, 0.5, 5.0])
def test_a_rise_before_the_end_is_seen_at_any_interval(interval_s: float) -> None:
    """Below the threshold only the rise tells that the end may have been a kill, so what is in hand is stored."""
    target = new_target()
    for step, share in enumerate((0.1, 0.3, 0.5, 0.7)):
        observe(target, 10 + step * interval_s, share)
    assert target._ratio_per_s(POLICY) == pytest.approx(0.2 / interval_s)


def test_without_cpu_time_to_spare_the_interval_is_what_was_asked_for() -> None:
    """However near the limit."""
    target = new_target()
    observe(target, 10.0, 0.95)
    assert target.looks.due_s < 10.05
    target.plan(POLICY, 0.1, 10.0, closely=False)
    assert target.looks.due_s == target.looks.full_due_s


def test_a_jump_is_predicted_to_end_at_the_limit() -> None:
    """A quarter of the limit in twenty milliseconds leaves no time for another look."""
    target = new_target()
    observe(target, 10.0, 0.45)
    assert not target.look(int(LIMIT * 0.45), 10.08)
    observe(target, 10.1, 0.7)
    verdict = target.judge(POLICY, 0.1, last_is_kept=True)
    assert verdict.fire is Reason.PREDICTION


def test_a_file_that_is_read_fast_predicts_nothing() -> None:
    """Page cache rises as fast as memory can be filled, and kills nobody."""
    target = new_target()
    observe(target, 10.0, 0.45)
    observe(target, 10.02, 0.45, cache_share=0.5)
    assert target.judge(POLICY, 0.1, last_is_kept=True).fire is None


def test_after_a_fall_a_rise_counts_from_the_bottom() -> None:
    """A collection freed a third of the limit: a twentieth more than that is a new snapshot, whether asked or not."""
    target = new_target()
    observe(target, 10.0, 0.95)
    target.note_snapshot(POLICY)
    observe(target, 10.1, 0.6)
    observe(target, 10.2, 0.66)
    assert target.wants_snapshot(POLICY, freely=True)


def test_asking_for_a_snapshot_changes_nothing() -> None:
    """The answer depends on the samples alone, not on how often it was asked before."""
    target = new_target()
    observe(target, 10.0, 0.95)
    target.note_snapshot(POLICY)
    observe(target, 10.1, 0.6)
    before = deepcopy((target.kept, target.state, target.looks))
    assert not target.wants_snapshot(POLICY, freely=True)
    assert (target.kept, target.state, target.looks) == before


def test_the_aftermath_is_counted_from_the_first_kill() -> None:
    """A container whose processes are killed one by one is told of after five seconds, not when it has come to rest."""
    target = new_target()
    observe(target, 10.0, 0.9)
    observe(target, 11.0, 0.9, oom_kills=1)
    observe(target, 15.0, 0.9, oom_kills=2)
    assert not target.survived_kill(15.9)
    assert target.survived_kill(16.0)
    assert not target.survived_kill(17.0), "told once"
    observe(target, 18.0, 0.9, oom_kills=3)
    assert not target.survived_kill(22.9)
    assert target.survived_kill(23.0)
