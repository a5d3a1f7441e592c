from __future__ import annotations

import datetime as dt
from dataclasses import replace
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.keys import DumpId
from sidecar.core.retention import HeldDump, plan_eviction

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)


def held(incident: str, number: int, minute: int, size_bytes: int = 10) -> HeldDump:
    """A dump of an incident, taken so many minutes after noon."""
    at = NOON + dt.timedelta(minutes=minute)
    dump_id = DumpId(at=at, container="app", pid=42, incident=incident, number=number)
    return HeldDump(dump_id=dump_id, size_bytes=size_bytes)


def names(dumps: tuple[HeldDump, ...]) -> list[str]:
    """Dumps as incident and number."""
    return [f"{dump.dump_id.incident}{dump.dump_id.number}" for dump in dumps]


THREE = [held(incident, number, 10 * start + number) for start, incident in enumerate("abc") for number in (1, 2, 3, 4)]


def test_nothing_goes_without_excess() -> None:
    """Room enough means that nothing is dropped."""
    assert plan_eviction(THREE, 0) == ()
    assert plan_eviction(THREE, -5) == ()
    assert plan_eviction([], 100) == ()


def test_middle_dumps_go_first_oldest_first() -> None:
    """Between the first and the newest of an incident lies the least that is new, the oldest incident's foremost."""
    assert names(plan_eviction(THREE, 1)) == ["a2"]
    assert names(plan_eviction(THREE, 60)) == ["a2", "a3", "b2", "b3", "c2", "c3"]


def test_then_whole_incidents_go_oldest_first() -> None:
    """An old incident goes as a whole: half of it explains little."""
    assert names(plan_eviction(THREE, 61))[6:] == ["a1", "a4"]
    assert names(plan_eviction(THREE, 81))[6:] == ["a1", "a4", "b1", "b4"]


def test_the_newest_incident_keeps_its_first_and_newest_dump() -> None:
    """More is asked for than can be freed: these two stay, and the sums tell."""
    plan = plan_eviction(THREE, 10**9)
    assert names(tuple(dump for dump in THREE if dump not in plan)) == ["c1", "c4"]


def test_the_number_orders_an_incident_where_the_clock_was_set_back() -> None:
    """The first dump is number 1, even if its time is the latest."""
    dumps = [held("a", 1, 30), held("a", 2, 20), held("a", 3, 10)]
    assert names(plan_eviction(dumps, 10**9)) == ["a2"]


def test_dumps_of_several_processes_are_first_or_newest_together() -> None:
    """In whatever order they are listed: only what lies between all of them is in the middle."""
    dumps = [
        HeldDump(dump_id=replace(held("a", number, number).dump_id, pid=pid), size_bytes=10)
        for number in (1, 2, 3)
        for pid in (100, 200)
    ]
    for listed in (dumps, dumps[::-1], dumps[1::2] + dumps[::2]):
        plan = plan_eviction(listed, 10**9)
        assert [(dump.dump_id.number, dump.dump_id.pid) for dump in plan] == [(2, 100), (2, 200)]


def test_notes_of_a_crash_loop_do_not_push_out_a_dump() -> None:
    """Incidents without a dump, number 0, never count as the newest while a dump exists."""
    notes = [held(incident, 0, 50 + index, 1) for index, incident in enumerate("xyz")]
    plan = plan_eviction([held("a", 1, 0), held("b", 1, 10), *notes], 10**9)
    assert names(plan) == ["a1", "x0", "y0", "z0"]


dumps_strategy = st.lists(
    st.builds(
        held,
        st.sampled_from("abcd"),
        st.integers(min_value=0, max_value=6),
        st.integers(min_value=0, max_value=60),
        st.integers(min_value=0, max_value=100),
    ),
    unique_by=lambda dump: (dump.dump_id.incident, dump.dump_id.number),
)


@given(dumps_strategy, st.integers(min_value=-10, max_value=2000))
def test_a_plan_frees_enough_or_all_it_may(dumps: list[HeldDump], excess_bytes: int) -> None:
    """Only what is there is dropped, once; too little only if but one incident's two ends are left."""
    plan = plan_eviction(dumps, excess_bytes)
    assert len(set(plan)) == len(plan)
    assert set(plan) <= set(dumps)
    if sum(dump.size_bytes for dump in plan) < excess_bytes:
        left = [dump for dump in dumps if dump not in plan]
        assert len({dump.dump_id.incident for dump in left}) <= 1
        assert len(left) <= 2


@given(dumps_strategy, st.integers(min_value=-10, max_value=2000))
def test_a_plan_drops_no_more_than_it_must(dumps: list[HeldDump], excess_bytes: int) -> None:
    """Without its last group, a middle dump or the ends of one incident, a plan would free too little."""
    plan = plan_eviction(dumps, excess_bytes)
    groups = [list(group) for _, group in groupby(plan, key=lambda dump: dump.dump_id.incident)]
    if plan:
        last = groups[-1][-2:] if len(groups[-1]) > 1 else groups[-1]
        assert sum(dump.size_bytes for dump in plan if dump not in last) < excess_bytes


@given(dumps_strategy, st.integers(min_value=1, max_value=2000), st.randoms(use_true_random=False))
def test_a_plan_does_not_depend_on_the_order_of_the_listing(
    dumps: list[HeldDump], excess_bytes: int, random: object
) -> None:
    """Directories list in any order; what is dropped is the same."""
    shuffled = list(dumps)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis' own Random
    assert plan_eviction(shuffled, excess_bytes) == plan_eviction(dumps, excess_bytes)


@given(dumps_strategy, st.integers(min_value=1, max_value=2000))
def test_ends_of_an_incident_outlast_its_middle(dumps: list[HeldDump], excess_bytes: int) -> None:
    """No incident loses its first or newest dump while any incident still has a middle one."""
    plan = plan_eviction(dumps, excess_bytes)
    middles = [_is_middle(dump, dumps) for dump in plan]
    assert middles == sorted(middles, reverse=True)


def _is_middle(dump: HeldDump, dumps: list[HeldDump]) -> bool:
    numbers = [other.dump_id.number for other in dumps if other.dump_id.incident == dump.dump_id.incident]
    return min(numbers) < dump.dump_id.number < max(numbers)
