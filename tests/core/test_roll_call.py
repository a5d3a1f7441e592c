"""Who is held for killed, from looks at who is there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.roll_call import Resident, RollCall, describe

MIB = 1 << 20


def resident(pid: int, mib: int = 1, *, start: int = 100, name: str = "app") -> Resident:
    """A process of so many MiB."""
    return Resident(pid=pid, start_ticks=start, name=name, rss_bytes=mib * MIB, at_s=1.0)


def called(*looks: tuple[Resident, ...], kills: int = 0) -> RollCall:
    """A roll after these looks; the last one is after so many kills."""
    roll = RollCall()
    for look in looks[:-1]:
        roll.look(look)
    roll.look(looks[-1], kills=kills)
    return roll


def test_who_vanished_with_the_kill_is_told() -> None:
    """The child isn't there any more, the parent is."""
    roll = called((resident(1), resident(2, 60)), (resident(1),), kills=1)
    assert [one.pid for one in roll.gone()] == [2]


def test_a_victim_that_was_missing_at_the_last_look_before_is_told() -> None:
    """It was dead a moment before the counter was read."""
    roll = called((resident(1), resident(2, 60)), (resident(1),), (resident(1),), kills=1)
    assert [one.pid for one in roll.gone()] == [2]


def test_who_left_in_peace_before_is_not_told() -> None:
    """It was missing at two looks before the kill."""
    roll = called((resident(1), resident(2)), (resident(1),), (resident(1),), (resident(1),), kills=1)
    assert roll.gone() == ()


def test_a_victim_may_take_its_time_to_die() -> None:
    """Everybody is there at the look that counts the kill; the one that goes first afterwards is told, no later one."""
    everybody = resident(1), resident(2, 60), resident(3)
    roll = called(everybody, everybody, kills=1)
    assert roll.gone() == ()
    roll.look((resident(1), resident(3)), kills=1)
    roll.look((resident(1),), kills=1)
    assert [one.pid for one in roll.gone()] == [2]


def test_two_kills_have_two_victims() -> None:
    """The counter rose twice: the second is told beside the first."""
    roll = called((resident(1), resident(2), resident(3, 7)), (resident(1), resident(3, 7)), kills=1)
    roll.look((resident(1),), kills=2)
    assert [one.pid for one in roll.gone()] == [3, 2]


def test_an_exit_just_before_the_kill_does_not_stand_for_the_victim() -> None:
    """A probe's shell ended a look before, the victim is still dying when its kill is counted: the victim is told."""
    shell, worker = resident(9, name="sh"), resident(2, 60)
    roll = called((resident(1), worker, shell), (resident(1), worker), (resident(1), worker), kills=1)
    roll.look((resident(1),), kills=1)
    assert roll.gone()[0] == worker


@given(
    early=st.sets(st.integers(10, 20)),
    looks_until_dead=st.integers(0, 4),
    later=st.sets(st.integers(3, 9)),
)
def test_a_victim_is_told_whoever_left_before(early: set[int], looks_until_dead: int, later: set[int]) -> None:
    """Exits before the kill never hide the victim, and exits after its death are never told."""
    others = [resident(pid) for pid in range(3, 10)]
    everybody = (resident(2, 60), *others)
    roll = called((*everybody, *map(resident, sorted(early))), everybody)
    for _ in range(looks_until_dead):
        roll.look(everybody, kills=1)
    roll.look(others, kills=1)
    roll.look([one for one in others if one.pid not in later], kills=1)
    told = {one.pid for one in roll.gone()}
    assert 2 in told
    assert told <= {2} | early


def test_who_went_along_with_a_victim_does_not_stand_for_the_next() -> None:
    """A worker's wrapper ends with it at the first kill; the victim of the second one is told."""
    rest = resident(1), resident(3, 7)
    roll = called((*rest, resident(2, 60), resident(5)), (*rest, resident(2, 60), resident(5)), rest, kills=1)
    roll.look((resident(1),), kills=2)
    assert [one.pid for one in roll.gone()] == [2, 3, 5]


def test_a_pid_that_was_given_anew_is_another_process() -> None:
    """A supervisor starts the next child under the number of the killed one."""
    roll = called((resident(1), resident(2, 60)), (resident(1), resident(2, start=200)), kills=1)
    assert [(one.pid, one.start_ticks) for one in roll.gone()] == [(2, 100)]


def test_memory_is_told_as_it_was_before_the_kernel_took_it() -> None:
    """The last look before the kill is counted may see a victim that is stripped already."""
    roll = called((resident(2, 60), resident(3, 5)), (resident(2, 1), resident(3, 5)), (), kills=2)
    assert [(one.pid, one.rss_bytes) for one in roll.gone()] == [(2, 60 * MIB), (3, 5 * MIB)]


def test_everybody_is_told_of_a_container_that_vanished() -> None:
    """Nothing was counted: its cgroup went with it. The largest comes first."""
    roll = called((resident(1), resident(2, 60)), (resident(1, 2),))
    assert [(one.pid, one.rss_bytes) for one in roll.everybody()] == [(2, 60 * MIB), (1, 2 * MIB)]


def test_a_kill_that_was_recorded_is_over() -> None:
    """The next one is told without the victims of the one before."""
    roll = called((resident(1), resident(2), resident(3)), (resident(1), resident(3)), kills=1)
    roll.settle()
    roll.look((resident(1), resident(3)))
    roll.look((resident(1),), kills=1)
    assert [one.pid for one in roll.gone()] == [3]
    assert {one.pid for one in roll.everybody()} == {1, 3}


def test_only_the_largest_are_named_for_people() -> None:
    """A hundred names in a line help nobody."""
    text = describe(tuple(resident(pid, 9, name=f"p{pid}") for pid in range(1, 6)))
    assert text.startswith("p1[1] (9")
    assert text.endswith("and 2 more")
    assert describe(()) == "nobody that was seen before"
