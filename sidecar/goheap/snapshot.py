"""Takes raw snapshots of a process's profile buckets, fast: it knows where they are before they are needed.

Buckets come from chunks that the runtime never gives back (``persistentalloc`` in runtime/malloc.go) and are only ever
pushed in front of their list. So the pages of memory that hold them are remembered; a snapshot reads those again in
one go, then follows the list from its head just to the first bucket that was known before.

A page with a bucket is all of such a chunk. What is mapped beside the chunk isn't the runtime's: it may go any time,
and is none of our business. So nothing but these pages is kept.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from sidecar.errors import TargetGoneError, TargetReadError
from sidecar.goheap import raw
from sidecar.goheap.errors import ProfilingOffError
from sidecar.goheap.layouts import (
    BUCKET_HEADER,
    CYCLE_WRAP,
    GC_CONTROLLER_BYTES,
    MAX_STACK,
    MAX_STACK_SLACK,
    MEM_PROFILE,
    GcState,
    parse_gc_state,
)
from sidecar.goheap.memory import Extent, UnmappedError
from sidecar.goheap.pages import joined, runs
from sidecar.goheap.process_memory import PAGE_BYTES, ProcessMemory
from sidecar.goheap.symbols import Variables

# A walk reads this much at a time; no page is larger, and no bucket is.
_BLOCK_BITS = 16
_BLOCK_BYTES = 1 << _BLOCK_BITS
_PAGE_BITS = PAGE_BYTES.bit_length() - 1
_BUDGET_CHECK_EVERY = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one snapshot may cost: time and memory of ours. What is over is left out, and the snapshot says so."""

    budget_s: float = 1.0
    max_bytes: int = 96 << 20
    max_buckets: int = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """The runtime's variables at one moment. ``head`` is the newest bucket, 0 if there is none yet."""

    head: int
    rate: int
    cycle: int | None
    gc: GcState | None


@dataclass(slots=True)
class _Walk:
    """What a walk from a head has come by: pages that buckets are in, and blocks that were read for it, both by number.

    ``truncated`` says why it ended early, if it did.
    """

    head: int
    pages: set[int] = field(default_factory=set)
    blocks: dict[int, bytes] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)
    count: int = 0
    truncated: str | None = None

    def content(self, extent: Extent) -> Iterator[memoryview]:
        """The memory of an extent, in pieces."""
        at, size_bytes = extent
        end = at + size_bytes
        while at < end:
            inside = at % _BLOCK_BYTES
            piece = memoryview(self.blocks[at >> _BLOCK_BITS])[inside : min(inside + end - at, _BLOCK_BYTES)]
            yield piece
            at += len(piece)


class BucketReader:
    """Reads the buckets of one process. Not for use by several threads at once."""

    def __init__(self, memory: ProcessMemory, program: raw.Program, variables: Variables, mbuckets: int) -> None:
        """``mbuckets`` and ``variables`` are addresses as linked."""
        self._memory = memory
        self._program = program
        self._mbuckets = mbuckets
        self._variables = variables
        self._forget()

    def _forget(self) -> None:
        self._extents: tuple[Extent, ...] = ()
        self._pages: set[int] = set()
        self._known_head = 0
        self.known_buckets = 0

    @property
    def known_bytes(self) -> int:
        """How much memory the known buckets' pages take."""
        return sum(size_bytes for _, size_bytes in self._extents)

    def readings(self) -> Readings:
        """Read the variables. Raises `ProfilingOffError` if the program keeps no profile."""
        variables, bias = self._variables, self._program.bias
        head, rate, cycle, controller, goroutines = (
            None if address is None else self._memory.read(address + bias, size_bytes)
            for address, size_bytes in (
                (self._mbuckets, 8),
                (variables.mem_profile_rate, 8),
                (variables.prof_cycle, 4),
                (variables.gc_controller, GC_CONTROLLER_BYTES),
                (variables.allglen, 8),
            )
        )
        rate_value = _number(rate) or 0
        if rate_value <= 0 or rate_value >= 1 << 62:
            raise ProfilingOffError(
                "the program keeps no heap profile: runtime.MemProfileRate is 0, set so or because nothing links it in"
            )
        return Readings(
            head=_number(head) or 0,
            rate=rate_value,
            cycle=_cycle(_number(cycle)),
            gc=parse_gc_state(controller, _number(goroutines)) if controller else None,
        )

    def refresh(self, limits: Limits) -> int:
        """Remember the buckets that are new since the last time, and tell how many are known. For calm times."""
        self._remember(self._walk(self.readings().head, limits, time.monotonic() + limits.budget_s))
        self._memory.ensure_alive()
        return self.known_buckets

    def snapshot(self, limits: Limits) -> list[bytes | memoryview]:
        """The raw snapshot, in pieces that belong one after the other.

        A process that ends in the middle of it isn't an error: what has been read by then is what this is all about.
        """
        deadline_s, taken_at_ns = time.monotonic() + limits.budget_s, time.time_ns()
        before = self.readings()
        data = self._read_known()
        known, known_head = self._extents, self._known_head
        walk = self._walk(before.head, limits, deadline_s)
        cycle = self._cycle_after(before)
        new = self._remember(walk)
        if walk.truncated and not known and not new:
            raise TargetReadError(f"nothing of the profile could be read: {walk.truncated}")
        moment = raw.Moment(
            taken_at_ns=taken_at_ns,
            roots=(before.head, known_head) if walk.truncated else (before.head,),
            rate=before.rate,
            cycle=cycle,
            gc=before.gc,
            truncated=walk.truncated,
        )
        contents = (piece for extent in new for piece in walk.content(extent))
        return [raw.encode_head(self._program, moment, (*known, *new)), data, *contents]

    def _read_known(self) -> memoryview:
        """All of the known pages. A live program that has unmapped any of them isn't what it was: all is to be learnt.

        Go never does that, but whatever else is in the process may.
        """
        try:
            return self._memory.read_extents(self._extents)
        except UnmappedError:
            self._memory.ensure_alive()
            self._forget()
            return memoryview(b"")

    def _cycle_after(self, before: Readings) -> int | None:
        """The profile's cycle if it is still the same one, else what was read belongs to two."""
        try:
            after = self.readings()
        except (TargetGoneError, TargetReadError):
            return before.cycle
        return before.cycle if after.cycle == before.cycle else None

    def _walk(self, head: int, limits: Limits, deadline_s: float) -> _Walk:
        """Follow the list to the first known bucket."""
        walk = _Walk(head)
        try:
            walk.truncated = self._follow(walk, limits, deadline_s)
        except UnmappedError as error:
            walk.truncated = f"the list leads to unmapped memory: {error}"
        except TargetGoneError:
            walk.truncated = "the process ended while it was being read"
        if not walk.missing.isdisjoint(walk.pages):
            walk.pages -= walk.missing
            walk.truncated = "a bucket ends in unmapped memory"
        return walk

    def _follow(self, walk: _Walk, limits: Limits, deadline_s: float) -> str | None:
        """Walk until the end of what is new; else tells why it went no further."""
        room_bytes = limits.max_bytes - self.known_bytes
        room_buckets = limits.max_buckets - self.known_buckets
        blocks, pages, known_head = walk.blocks, walk.pages, self._known_head
        unpack, header_bytes = BUCKET_HEADER.unpack_from, BUCKET_HEADER.size
        rest_bytes = header_bytes + self._program.record.size_bytes - 1
        address = walk.head
        while address and address != known_head:
            if walk.count % _BUDGET_CHECK_EVERY == 0 and time.monotonic() > deadline_s:
                return f"the time budget of {limits.budget_s:g} s was used up"
            if walk.count >= room_buckets or len(blocks) * _BLOCK_BYTES > room_bytes:
                return f"there are more than {limits.max_buckets} buckets or {limits.max_bytes} bytes of them"
            number = address >> _BLOCK_BITS
            content = blocks.get(number) or self._load(number, walk)
            at = address & _BLOCK_BYTES - 1
            if at > _BLOCK_BYTES - header_bytes:
                content, at = content[at:] + (blocks.get(number + 1) or self._load(number + 1, walk)), 0
            _, older, kind, _, _, depth = unpack(content, at)
            if kind != MEM_PROFILE or depth > MAX_STACK + MAX_STACK_SLACK or address & 7:
                return f"the list is broken at {address:#x}"
            last = address + rest_bytes + 8 * depth
            if last >> _BLOCK_BITS not in blocks:
                self._load(last >> _BLOCK_BITS, walk)
            if address >> _PAGE_BITS == last >> _PAGE_BITS:
                pages.add(address >> _PAGE_BITS)
            else:
                pages.update(range(address >> _PAGE_BITS, (last >> _PAGE_BITS) + 1))
            address = older
            walk.count += 1
        return None

    def _load(self, number: int, walk: _Walk) -> bytes:
        """Read a block, or what of it is mapped."""
        content, missing = self._memory.read_pages(number << _BLOCK_BITS, _BLOCK_BYTES)
        walk.blocks[number] = content
        walk.missing.update(address >> _PAGE_BITS for address in missing)
        return content

    def _remember(self, walk: _Walk) -> list[Extent]:
        """Keep the pages that a walk has come by; tells which are new.

        After one that ended early its buckets stay unknown, so that the next one sees them again.
        """
        found = walk.pages - self._pages
        new = [(first << _PAGE_BITS, count << _PAGE_BITS) for first, count in runs(found)]
        if new:
            self._pages |= found
            self._extents = joined((*self._extents, *new))
        if walk.truncated is None:
            self._known_head = walk.head
            self.known_buckets += walk.count
        return new


def _number(content: bytes | None) -> int | None:
    if not content:
        return None
    value: int = struct.unpack("<I" if len(content) == 4 else "<Q", content)[0]
    return value


def _cycle(value: int | None) -> int | None:
    """The number of the cycle without its flag (mProfCycleHolder); None for what can't be one."""
    return value >> 1 if value is not None and value >> 1 < CYCLE_WRAP else None
