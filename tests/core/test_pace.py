"""How closely to look, when a snapshot in hand is replaced, and that looking closely stays in its budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import pace
from sidecar.core.pace import CpuBudget, KeepingPolicy, Kept

MIB = 1 << 20
POLICY = KeepingPolicy()
sizes = st.integers(min_value=0, max_value=1 << 40)


@given(sizes, sizes)
def test_less_room_never_means_longer_intervals(one: int, other: int) -> None:
    """The interval grows with the room, between ten milliseconds and what was asked for."""
    near, far = sorted((one, other))
    assert 0.01 <= pace.look_interval_s(near, 0.1) <= pace.look_interval_s(far, 0.1) <= 0.1


def test_an_interval_asked_for_is_never_made_longer() -> None:
    """Someone who asks for five milliseconds gets them, near the limit and far from it."""
    assert pace.look_interval_s(0, 0.005) == pace.look_interval_s(1 << 40, 0.005) == 0.005


@given(sizes)
def test_the_growth_that_is_foreseen_is_seen_before_it_arrives(room: int) -> None:
    """Unless the shortest interval is too long already, at least two looks fit before the limit."""
    fill_s = room / pace.FORESEEN_BYTES_PER_S
    interval_s = pace.look_interval_s(room, 0.1)
    assert 2 * interval_s <= fill_s or interval_s == 0.01


def test_a_rise_or_the_threshold_makes_a_look_a_sample() -> None:
    """Far below the threshold a rise by a twentieth of the limit; near it, the threshold; above it, every look."""
    assert pace.alert_bytes(500, 300, 800, 1000) == 550
    assert pace.alert_bytes(990, 790, 800, 1000) == 1000  # 190 of it are page cache
    assert pace.alert_bytes(900, 850, 800, 1000) == 900


def test_only_a_rise_can_reach_the_limit() -> None:
    """Memory that stays or falls reaches nothing, however near; a fast rise from half of the limit does."""
    assert not pace.reaches_limit(99, 100, 0.0, 10.0)
    assert not pace.reaches_limit(99, 100, -5.0, 10.0)
    assert pace.reaches_limit(50, 100, 1000.0, 0.05)
    assert not pace.reaches_limit(50, 100, 900.0, 0.05)


def due(kept: Kept | None, value: int, now_s: float) -> bool:
    """With a limit of 1000 and a threshold of 800."""
    return pace.snapshot_due(POLICY, kept, value_bytes=value, limit_bytes=1000, threshold_bytes=800, now_s=now_s)


@pytest.mark.parametrize(
    ("kept", "value", "now_s", "expected"),
    [
        (None, 499, 0.0, False),
        (None, 500, 0.0, True),
        (Kept(at_s=0, value_bytes=600), 649, 1.0, False),
        (Kept(at_s=0, value_bytes=600), 650, 1.0, True),
        (Kept(at_s=0, value_bytes=600), 600, 29.9, False),
        (Kept(at_s=0, value_bytes=600), 600, 30.0, True),
        (Kept(at_s=0, value_bytes=850), 859, 1.0, False),
        (Kept(at_s=0, value_bytes=850), 860, 1.0, True),
        (Kept(at_s=0, value_bytes=850), 820, 2.0, True),
    ],
)
def test_a_snapshot_is_replaced_when_it_pays(kept: Kept | None, value: int, now_s: float, *, expected: bool) -> None:
    """From half of the limit on: by steps, smaller ones above the threshold, and where memory hovers by age."""
    assert due(kept, value, now_s) is expected


def test_the_budget_is_an_average() -> None:
    """Two percent of a core: a minute's worth at once, then nothing until it was earned again."""
    budget = CpuBudget(0.02, now_s=0.0)
    budget.spend(1.19, 0.0)
    assert budget.is_left()
    budget.spend(0.02, 0.0)
    assert not budget.is_left()
    budget.spend(0.0, 1.0)
    assert budget.is_left()


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 0.5)), max_size=50))
def test_no_more_is_saved_than_a_minutes_worth(steps: list[tuple[float, float]]) -> None:
    """After any past, a minute's worth and one turn more than it are enough to use up the budget."""
    budget, now_s = CpuBudget(0.02, now_s=0.0), 0.0
    for pause_s, cpu_s in steps:
        now_s += pause_s
        budget.spend(cpu_s, now_s)
    budget.spend(0.02 * 60 + 1e-9, now_s)
    assert not budget.is_left()
