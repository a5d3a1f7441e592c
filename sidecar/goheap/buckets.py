"""From memory to profile buckets: walk, check, add up. Pure; runtime/mprof.go is what it follows.

Memory is read while the program writes, and may be anything at all in a damaged snapshot: each bucket is checked, a bad
one is dropped, and no content makes a walk endless.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from sidecar.goheap.layouts import (
    BUCKET_HEADER,
    COUNTS_AND_BYTES,
    FUTURES,
    MAX_STACK,
    MAX_STACK_SLACK,
    MEM_PROFILE,
    RecordLayout,
)
from sidecar.goheap.memory import Memory, UnmappedError

View = Literal["newest", "published"]

MAX_BUCKETS = 1_000_000
_WORD = (1 << 64) - 1
_MAX_OBJECT_BYTES = 1 << 48
_MAX_COUNT = 1 << 56


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Allocations of one size on one stack. ``cycles`` are (allocs, frees): published ones, then three to come."""

    address: int
    size_bytes: int
    stack: tuple[int, ...]
    cycles: tuple[tuple[int, int], ...]

    def newest(self) -> tuple[int, int]:
        """Objects allocated and freed as of now."""
        return sum(allocs for allocs, _ in self.cycles), sum(frees for _, frees in self.cycles)

    def published(self, cycle: int) -> tuple[int, int]:
        """The same as of the last collection that is complete."""
        (allocs, frees), (more_allocs, more_frees) = self.cycles[0], self.cycles[1 + cycle % FUTURES]
        return allocs + more_allocs, frees + more_frees


@dataclass(slots=True)
class Walk:
    """The good buckets of an image, newest first, as addresses; and what was wrong with the others."""

    addresses: array[int] = field(default_factory=lambda: array("Q"))
    dropped: int = 0
    broken: bool = False


def stack_hash(stack: Iterable[int], size_bytes: int) -> int:
    """The hash that the runtime keeps in a bucket (``stkbucket``)."""
    hashed = 0
    for word in (*stack, size_bytes):
        hashed = hashed + word & _WORD
        hashed = hashed + (hashed << 10) & _WORD
        hashed ^= hashed >> 6
    hashed = hashed + (hashed << 3) & _WORD
    return hashed ^ hashed >> 11


def read_bucket(memory: Memory, address: int, layout: RecordLayout) -> tuple[Bucket | None, int]:
    """The bucket at an address, None if it isn't sound, and the next older one's address.

    Raises `UnmappedError` if nothing is there, or what is there isn't a bucket at all, so that no link can be trusted.
    """
    _, older, kind, hashed, size_bytes, depth = BUCKET_HEADER.unpack(memory.read(address, BUCKET_HEADER.size))
    if kind != MEM_PROFILE or depth > MAX_STACK + MAX_STACK_SLACK or older % 8:
        raise UnmappedError(f"no bucket at {address:#x}")
    content = memory.read(address + BUCKET_HEADER.size, 8 * depth + layout.size_bytes)
    stack = struct.unpack_from(f"<{depth}Q", content)
    words = struct.unpack_from(f"<{(1 + FUTURES) * layout.words}Q", content, 8 * depth)
    cycles = tuple(zip(words[:: layout.words], words[1 :: layout.words], strict=True))
    bucket = Bucket(address=address, size_bytes=size_bytes, stack=stack, cycles=cycles)
    sound = (
        size_bytes < _MAX_OBJECT_BYTES
        and max(map(max, cycles)) < _MAX_COUNT
        and stack_hash(stack, size_bytes) == hashed
        and (layout is not COUNTS_AND_BYTES or _bytes_fit(words, size_bytes))
    )
    if sound:
        allocs, frees = bucket.newest()
        sound = frees <= allocs
    return bucket if sound else None, older


def walk(memory: Memory, roots: Iterable[int], layout: RecordLayout, *, max_buckets: int = MAX_BUCKETS) -> Walk:
    """Follow the list from each root until its end, an address seen before, or something that isn't a bucket."""
    result, seen = Walk(), set[int]()
    for root in roots:
        address = root
        while address and address not in seen:
            if len(seen) >= max_buckets:
                result.broken = True
                return result
            seen.add(address)
            try:
                bucket, older = read_bucket(memory, address, layout)
            except UnmappedError:
                result.dropped += 1
                result.broken = True
                break
            if bucket is None:
                result.dropped += 1
            else:
                result.addresses.append(address)
            address = older
    return result


def buckets(memory: Memory, addresses: Iterable[int], layout: RecordLayout) -> Iterator[Bucket]:
    """The buckets at addresses that a walk found good."""
    for address in addresses:
        bucket, _ = read_bucket(memory, address, layout)
        if bucket is not None:
            yield bucket


def counts(bucket: Bucket, view: View, cycle: int) -> tuple[int, int]:
    """Objects allocated and freed of a bucket in a view."""
    return bucket.newest() if view == "newest" else bucket.published(cycle)


def scale(objects: int, size_bytes: int, rate: int) -> tuple[int, int]:
    """Estimate objects and bytes from those sampled, as ``scaleHeapSample`` of runtime/pprof/protomem.go does."""
    if objects == 0 or size_bytes == 0:
        return 0, 0
    if rate <= 1:
        return objects, objects * size_bytes
    probability = 1 - math.exp(-size_bytes / rate)
    if probability <= 0:  # a rate so absurd that nothing would have been sampled
        return objects, objects * size_bytes
    factor = 1 / probability
    return int(objects * factor), int(objects * size_bytes * factor)


def _bytes_fit(words: tuple[int, ...], size_bytes: int) -> bool:
    """Whether the bytes are the counts times the size. The program may be between counting an object and its bytes."""
    return all(
        abs(words[at] * size_bytes - words[at + 2]) <= size_bytes
        for cycle in range(0, len(words), COUNTS_AND_BYTES.words)
        for at in (cycle, cycle + 1)
    )
