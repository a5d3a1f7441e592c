"""What the record of a profile's stacks says of what they will free."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.goheap.turnover import Turnover

MIB = 1 << 20
COUNTS = st.integers(min_value=0, max_value=1 << 40)


def test_a_leak_and_a_server_are_told_apart() -> None:
    """Nothing of the leak's objects was ever freed, nine tenths of the server's."""
    turnover = Turnover()
    turnover.add(allocs=100, frees=0, size_bytes=MIB, rate=1)
    assert (turnover.in_use_bytes, turnover.short_lived_bytes) == (100 * MIB, 0)
    turnover.add(allocs=1000, frees=900, size_bytes=MIB, rate=1)
    assert (turnover.in_use_bytes, turnover.short_lived_bytes) == (200 * MIB, 90 * MIB)


def test_what_is_all_freed_holds_nothing() -> None:
    """It has no share in the heap, nor is its size that of the largest object."""
    turnover = Turnover()
    turnover.add(allocs=10, frees=10, size_bytes=64 * MIB, rate=1)
    turnover.add(allocs=10, frees=1, size_bytes=MIB, rate=1)
    assert turnover.in_use_bytes == 9 * MIB
    assert turnover.largest_object_bytes == MIB


def test_small_objects_count_as_many_as_they_stand_for() -> None:
    """The sampler sees few of them: an object of 1 KiB stands for about 512 at a rate of 512 KiB."""
    turnover = Turnover()
    turnover.add(allocs=2, frees=1, size_bytes=1024, rate=512 * 1024)
    assert 500 * 1024 < turnover.in_use_bytes < 525 * 1024


@given(st.lists(st.tuples(COUNTS, COUNTS, COUNTS, COUNTS)))
def test_no_counts_make_nonsense(stacks: list[tuple[int, int, int, int]]) -> None:
    """Whatever was read from a program's memory, the part isn't more than the whole, and nothing is below zero."""
    turnover = Turnover()
    for allocs, frees, size_bytes, rate in stacks:
        turnover.add(allocs=allocs, frees=frees, size_bytes=size_bytes, rate=rate)
    assert 0 <= turnover.short_lived_bytes <= turnover.in_use_bytes
