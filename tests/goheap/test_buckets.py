"""Buckets are checked one by one; whatever is in memory, the walk over them ends and says what is wrong."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.goheap.buckets import Walk, buckets, scale, stack_hash, walk
from sidecar.goheap.errors import UnknownLayoutError
from sidecar.goheap.layouts import COUNTS, COUNTS_AND_BYTES, RecordLayout, layout_of, parse_gc_state
from sidecar.goheap.proof import prove_layout
from tests.goheap.images import BASE, Plan, bucket_list, image_of, runtime_hash

LAYOUTS = pytest.mark.parametrize("layout", [COUNTS, COUNTS_AND_BYTES], ids=lambda layout: layout.name)

words = st.integers(0, (1 << 64) - 1)
cycle = st.integers(0, 1000).flatmap(lambda allocs: st.tuples(st.just(allocs), st.integers(0, allocs)))
plans = st.lists(
    st.tuples(
        st.lists(words, min_size=1, max_size=12).map(tuple),
        st.integers(1, 1 << 30),
        st.tuples(cycle, cycle, cycle, cycle),
    ),
    max_size=12,
)


@LAYOUTS
@given(plan=plans, split=st.integers(40, 4096))
def test_a_list_is_read_as_it_was_written(layout: RecordLayout, plan: list[Plan], split: int) -> None:
    """Every bucket, newest first, with its stack, size and counts, wherever the pieces of memory begin."""
    memory, addresses = bucket_list(plan, layout)
    image = image_of(memory, split=split)
    found = walk(image, addresses[-1:], layout)
    assert list(found.addresses) == addresses[::-1]
    assert not found.dropped
    assert not found.broken
    read = [(b.stack, b.size_bytes, b.cycles) for b in buckets(image, found.addresses, layout)]
    assert read == plan[::-1]


def test_memory_in_tiny_pieces_is_read() -> None:
    """A damaged snapshot may say that it is: the longest stack there can be in pieces of a byte."""
    memory, addresses = bucket_list([(tuple(range(1, 1025)), 8, ((1, 0),) * 4)], COUNTS)
    assert list(walk(image_of(memory, split=1), addresses, COUNTS).addresses) == addresses


@LAYOUTS
@given(
    plan=plans.filter(bool),
    changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=40),
    cut=st.integers(0, 1 << 13),
)
def test_damage_never_makes_a_walk_endless(
    layout: RecordLayout, plan: list[Plan], changes: list[tuple[int, int]], cut: int
) -> None:
    """Any bytes changed, any end cut off: each bucket is met once, and the good ones are still as they were written."""
    memory, addresses = bucket_list(plan, layout)
    for at, value in changes:
        memory[at % len(memory)] = value
    image = image_of(memory[: max(len(memory) - cut, 1)])
    found = walk(image, (addresses[-1], addresses[0]), layout)
    assert len(found.addresses) + found.dropped <= len(memory) // 8
    assert len(set(found.addresses)) == len(found.addresses)
    for bucket in buckets(image, found.addresses, layout):
        assert stack_hash(bucket.stack, bucket.size_bytes) == runtime_hash((*bucket.stack, bucket.size_bytes))
        allocs, frees = bucket.newest()
        assert frees <= allocs


def one(layout: RecordLayout) -> tuple[bytearray, list[int]]:
    """Three ordinary buckets."""
    return bucket_list([((1, 2, 3), 64 * n, ((5, 2), (1, 0), (0, 0), (3, 3))) for n in (1, 2, 3)], layout)


@LAYOUTS
@pytest.mark.parametrize(
    ("at", "what"),
    [
        (24, "hash"),
        (32, "size"),
        (48, "stack"),
        (48 + 24 + 8, "more frees than allocs"),
    ],
)
def test_a_bad_bucket_is_dropped_and_the_others_stay(layout: RecordLayout, at: int, what: str) -> None:
    """A wrong hash, size, stack or count costs that bucket alone."""
    memory, addresses = one(layout)
    middle = addresses[1] - BASE
    memory[middle + at + 1] ^= 0x55
    found = walk(image_of(memory), addresses[-1:], layout)
    assert list(found.addresses) == [addresses[2], addresses[0]], what
    assert found.dropped == 1
    assert not found.broken


def test_bytes_must_be_the_counts_times_the_size() -> None:
    """Up to Go 1.26 both are kept; an object that is just being counted may be missing from one of them."""
    memory, addresses = one(COUNTS_AND_BYTES)
    at = addresses[1] - BASE + 48 + 24 + 16
    for extra, dropped in ((128, 0), (256, 1)):
        changed = bytearray(memory)
        value = int.from_bytes(changed[at : at + 8], "little") + extra
        changed[at : at + 8] = value.to_bytes(8, "little")
        assert walk(image_of(changed), addresses[-1:], COUNTS_AND_BYTES).dropped == dropped


def ends(memory: bytearray, addresses: list[int]) -> Walk:
    """Walk from the newest bucket of the list."""
    return walk(image_of(memory), addresses[-1:], COUNTS)


def test_a_walk_ends_at_what_is_no_bucket() -> None:
    """Another type, an absurd depth, a link into nowhere: what lies behind is lost. A circle does no harm."""
    for offset, value in ((16, 2), (40, 5000), (8, 0x1000)):
        memory, addresses = one(COUNTS)
        at = addresses[1] - BASE + offset
        memory[at : at + 8] = value.to_bytes(8, "little")
        found = ends(memory, addresses)
        assert found.broken
        assert addresses[2] in found.addresses
    memory, addresses = one(COUNTS)
    memory[8:16] = addresses[2].to_bytes(8, "little")
    found = ends(memory, addresses)
    assert list(found.addresses) == addresses[::-1]
    assert not found.broken


def test_a_second_root_finds_the_list_behind_a_break() -> None:
    """What was known before the break is still read."""
    memory, addresses = one(COUNTS)
    memory[addresses[1] - BASE + 16] = 9
    found = walk(image_of(memory), (addresses[2], addresses[0]), COUNTS)
    assert list(found.addresses) == [addresses[2], addresses[0]]
    assert found.broken


def test_a_walk_stops_at_its_cap() -> None:
    """A list without an end is cut."""
    memory, addresses = one(COUNTS)
    found = walk(image_of(memory), addresses[-1:], COUNTS, max_buckets=2)
    assert len(found.addresses) == 2
    assert found.broken


def test_views_add_the_right_cycles() -> None:
    """Newest is everything; published is what was published and the cycle that is being published."""
    memory, addresses = bucket_list([((1,), 8, ((100, 10), (20, 2), (3, 1), (400, 0)))], COUNTS)
    (bucket,) = buckets(image_of(memory), addresses, COUNTS)
    assert bucket.newest() == (523, 13)
    assert [bucket.published(number) for number in (0, 1, 2, 3)] == [(120, 12), (103, 11), (500, 10), (120, 12)]


@given(objects=st.integers(-(1 << 56), 1 << 56), size=st.integers(0, 1 << 48), rate=st.integers(-5, 1 << 63))
def test_scaling_never_fails(objects: int, size: int, rate: int) -> None:
    """Any count, size and rate give numbers of the same sign."""
    count, total = scale(objects, size, rate)
    assert math.copysign(1, count) == math.copysign(1, total) or not count * total


def test_scaling_estimates_what_sampling_left_out() -> None:
    """Small objects are rarely sampled, large ones nearly always; a rate of 1 samples all."""
    assert scale(1, 524288, 524288) == (1, int(524288 / (1 - math.exp(-1))))
    assert scale(10, 1 << 30, 524288) == (10, 10 << 30)
    assert scale(7, 24, 1) == (7, 168)
    assert scale(0, 24, 524288) == (0, 0)


@LAYOUTS
def test_the_layout_is_proven_by_hashes_and_sums(layout: RecordLayout) -> None:
    """A list passes as what it is, an empty list as anything, and noise as nothing."""
    memory, addresses = one(layout)
    prove_layout(image_of(memory), addresses[-1], layout)
    prove_layout(image_of(memory), 0, layout)
    for head in (addresses[-1] + 8, 0x1000):
        with pytest.raises(UnknownLayoutError):
            prove_layout(image_of(memory), head, layout)
    if layout is COUNTS:
        with pytest.raises(UnknownLayoutError):
            prove_layout(image_of(memory + bytes(256)), addresses[-1], COUNTS_AND_BYTES)


def test_versions_without_a_known_layout_are_told() -> None:
    """Too old is refused, newer than known must be proven."""
    for version in ("go1.20.14", "go1.4", "", "python3"):
        with pytest.raises(UnknownLayoutError, match=r"Go 1\.21 or newer"):
            layout_of(version)
    assert layout_of("go1.26.6").records == (COUNTS_AND_BYTES,)
    assert layout_of("go1.27rc1").records == (COUNTS,)
    assert not layout_of("devel go1.28-0123456789").known


@given(content=st.binary(max_size=400))
def test_any_collector_state_is_read_or_refused(content: bytes) -> None:
    """Sizes beyond the address space are no sizes."""
    state = parse_gc_state(content)
    assert state is None or state.heap_live_bytes < 1 << 48
    assert parse_gc_state(bytes(400)) is not None
    assert parse_gc_state(b"\xff" * 400) is None
