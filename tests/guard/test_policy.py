"""The guard's decisions, as properties over arbitrary numbers."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core import guard
from sidecar.core.guard import GuardPolicy, Span
from sidecar.core.model import Reading
from tests.guard.eater import MIB

PAGES = st.sampled_from([4096, 16384, 65536])
LIMITS = st.integers(8 * MIB, 1 << 40)
SIZES = st.integers(0, 1 << 41)
NEAR = st.integers(-600 * MIB, 600 * MIB)


def reading(usage: int, inactive: int = 0) -> Reading:
    """A reading of this usage, with this much page cache in it."""
    return Reading(usage_bytes=usage, inactive_file_bytes=inactive, limit_bytes=None, oom_kills=None)


@given(base=LIMITS, steps=st.integers(0, 1000), page=PAGES)
def test_a_value_of_ours_is_known_again(base: int, steps: int, page: int) -> None:
    """Each step of a span is recognized, its neighbours and "max" are not."""
    span = Span(base_bytes=base, step_bytes=guard.step_bytes(page), steps=steps)
    assert span.steps_of(span.value_bytes(steps)) == steps
    assert span.steps_of(span.value_bytes(steps) + page) is None
    assert span.steps_of(span.value_bytes(steps + 1)) is None
    assert span.steps_of(base - span.step_bytes) is None
    assert span.steps_of(None) is None


@given(base_mib=st.integers(1, 1 << 20), more_mib=st.integers(1, 254))
def test_a_round_number_of_somebody_else_is_none_of_ours(base_mib: int, more_mib: int) -> None:
    """A limit raised by whole MiB, as people and the kubelet do it, isn't taken for one that the guard raised."""
    span = Span(base_bytes=base_mib * MIB, step_bytes=guard.step_bytes(4096), steps=1000)
    assert span.steps_of((base_mib + more_mib) * MIB) is None


@given(limit=LIMITS, below=NEAR, rooms=st.lists(NEAR | SIZES, max_size=3), amount=NEAR.map(abs) | SIZES, page=PAGES)
def test_a_raise_is_bounded_by_the_setting_and_by_each_parent(
    limit: int, below: int, rooms: list[int], amount: int, page: int
) -> None:
    """Filled to the raised limit, the container exceeds no parent's; and it is never raised by more than was asked."""
    step, usage = guard.step_bytes(page), max(0, limit - below)
    policy = GuardPolicy(mode="raise", raise_bytes=amount)
    raised = step * guard.raise_steps(policy, limit_bytes=limit, usage_bytes=usage, rooms_bytes=rooms, step_bytes=step)
    assert 0 <= raised <= amount
    if raised:
        assert all(limit + raised - usage < room for room in rooms)


def test_a_raise_without_use_is_none() -> None:
    """With 5 MiB of a parent's room beyond the limit nothing is raised; with 20 MiB it is, by less than that."""
    policy = GuardPolicy(mode="raise")

    def steps(room_mib: int) -> int:
        return guard.raise_steps(
            policy, limit_bytes=100 * MIB, usage_bytes=90 * MIB, rooms_bytes=[room_mib * MIB], step_bytes=MIB
        )

    assert (steps(15), steps(30), steps(1000)) == (0, 18, 64)


@given(base=LIMITS, up=st.integers(0, 500), above=NEAR, cache=NEAR | st.just(0))
@example(base=100 * MIB, up=60, above=50 * MIB, cache=50 * MIB)
@example(base=100 * MIB, up=60, above=50 * MIB, cache=0)
def test_lowering_never_kills_and_never_raises(base: int, up: int, above: int, cache: int) -> None:
    """What can't be reclaimed fits into the new limit unless it fitted into none before, and little is reclaimed."""
    step = guard.step_bytes(4096)
    span = Span(base_bytes=base, step_bytes=step, steps=500)
    usage = max(0, base + above)
    steps = guard.lowered_steps(span, up, usage_bytes=usage, reclaimable_bytes=cache)
    assert 0 <= steps <= up
    value = span.value_bytes(steps)
    if steps < up:
        assert usage - max(0, cache) <= value
        assert usage - value <= 4 * step
        assert value == base or value - (usage - max(0, cache)) >= step, "a write races against the program's growth"
    if usage <= base:
        assert steps == 0


@given(limit=LIMITS, usage=SIZES)
def test_lowering_leaves_no_room_to_grow(limit: int, usage: int) -> None:
    """What uses more than the original limit gets two steps at most on top: growth meets the killer."""
    step = guard.step_bytes(4096)
    span = Span(base_bytes=limit, step_bytes=step, steps=10_000_000)
    steps = guard.lowered_steps(span, span.steps, usage_bytes=usage, reclaimable_bytes=0)
    assert span.value_bytes(steps) <= max(limit, usage + 2 * step)


@given(limit=LIMITS, ratio=st.floats(0.5, 0.99), page=PAGES)
def test_the_brake_lies_below_its_share_on_a_page(limit: int, ratio: float, page: int) -> None:
    """The kernel keeps the level as written, and it isn't the very value that the kubelet computes."""
    level = guard.brake_level_bytes(GuardPolicy(brake_ratio=ratio), limit, page)
    assert level % page == 0
    assert 0 < level < int(limit * ratio) // page * page or limit * ratio < 2 * page


@given(level=LIMITS, above=NEAR, cache=NEAR.map(abs))
def test_a_brake_never_comes_down_onto_what_is_in_use(level: int, above: int, cache: int) -> None:
    """Where it may be set it doesn't bite: nobody sleeps for it, and the working set is below."""
    usage = max(0, level + above)
    now = reading(usage, min(cache, usage))
    span = Span(base_bytes=level, step_bytes=guard.brake_step_bytes(4096), steps=1 << 40)
    if guard.may_brake(level, now, again=False):
        value = span.value_bytes(guard.brake_steps(span, now))
        assert value >= max(level, usage * 0.99 - 1)
        assert not guard.brake_bites(value, now)
    if guard.may_brake(level, now, again=True):
        assert guard.may_brake(level, now, again=False)


def test_a_brake_bites_when_reclaim_has_nothing_left() -> None:
    """At its level it bites a working set, but not page cache, which the kernel holds there without making wait."""
    assert guard.brake_bites(100 * MIB, reading(100 * MIB))
    assert not guard.brake_bites(100 * MIB, reading(101 * MIB, 50 * MIB))
    assert guard.brake_bites(100 * MIB, reading(102 * MIB, 50 * MIB))


def test_the_first_limit_counts() -> None:
    """The own limit or what a parent leaves, whichever comes first; an overdrawn parent leaves nothing."""
    assert guard.effective_limit_bytes(None, 10, []) is None
    assert guard.effective_limit_bytes(100, 10, []) == 100
    assert guard.effective_limit_bytes(100, 10, [50, 80]) == 60
    assert guard.effective_limit_bytes(None, 10, [-5]) == 10
