"""Takes raw snapshots of a process's profile buckets, fast: it knows where they are before they are needed.

Buckets come from chunks that the runtime never gives back (``persistentalloc`` in runtime/malloc.go) and are only ever
pushed in front of their list. So the blocks of memory that hold them are remembered; a snapshot reads those again in
one go, then follows the list from its head just to the first bucket that was known before.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

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
from sidecar.goheap.process_memory import ProcessMemory
from sidecar.goheap.symbols import Variables

_BLOCK_BITS = 16
_BLOCK_BYTES = 1 << _BLOCK_BITS
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


class BucketReader:
    """Reads the buckets of one process. Not for use by several threads at once."""

    def __init__(self, memory: ProcessMemory, program: raw.Program, variables: Variables, mbuckets: int) -> None:
        """``mbuckets`` and ``variables`` are addresses as linked."""
        self._memory = memory
        self._program = program
        self._mbuckets = mbuckets
        self._variables = variables
        self._extents: dict[int, Extent] = {}  # by block number
        self._known_head = 0
        self.known_buckets = 0

    @property
    def known_bytes(self) -> int:
        """How much memory the known buckets' blocks take."""
        return sum(size_bytes for _, size_bytes in tuple(self._extents.values()))

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
        self._walk(self.readings().head, limits, {}, time.monotonic() + limits.budget_s)
        self._memory.ensure_alive()
        return self.known_buckets

    def snapshot(self, limits: Limits) -> list[bytes | memoryview]:
        """The raw snapshot, in pieces that belong one after the other.

        A process that ends in the middle of it isn't an error: what has been read by then is what this is all about.
        """
        deadline_s, taken_at_ns = time.monotonic() + limits.budget_s, time.time_ns()
        before, known_head = self.readings(), self._known_head
        known = list(self._extents.values())
        data = self._memory.read_extents(known)
        blocks = _blocks(known, data)
        walked, truncated = self._walk(before.head, limits, blocks, deadline_s)
        cycle = self._cycle_after(before)
        new = [extent for extent, _ in walked]
        moment = raw.Moment(
            taken_at_ns=taken_at_ns,
            roots=(before.head, known_head) if truncated else (before.head,),
            rate=before.rate,
            cycle=cycle,
            gc=before.gc,
            truncated=truncated,
        )
        return [raw.encode_head(self._program, moment, known + new), data, *(content for _, content in walked)]

    def _cycle_after(self, before: Readings) -> int | None:
        """The profile's cycle if it is still the same one, else what was read belongs to two."""
        try:
            after = self.readings()
        except (TargetGoneError, TargetReadError):
            return before.cycle
        return before.cycle if after.cycle == before.cycle else None

    def _walk(
        self, head: int, limits: Limits, blocks: dict[int, tuple[int, memoryview]], deadline_s: float
    ) -> tuple[list[tuple[Extent, bytes]], str | None]:
        """Follow the list to the first known bucket. ``blocks`` holds what has been read, and is added to.

        Tells which pieces of memory are new, and why the walk ended early if it did; then the buckets that it has seen
        stay unknown, so that the next walk sees them again.
        """
        loaded: list[tuple[Extent, bytes]] = []
        room_bytes = limits.max_bytes - sum(size_bytes for _, size_bytes in self._extents.values())
        record_bytes = self._program.record.size_bytes
        unpack, header_bytes = BUCKET_HEADER.unpack_from, BUCKET_HEADER.size
        nothing = (0, memoryview(b""))
        address, count, truncated = head, 0, None
        while address and address != self._known_head:
            if count % _BUDGET_CHECK_EVERY == 0 and time.monotonic() > deadline_s:
                truncated = f"the time budget of {limits.budget_s:g} s was used up"
                break
            if self.known_buckets + count >= limits.max_buckets or room_bytes < 0:
                truncated = f"there are more than {limits.max_buckets} buckets or {limits.max_bytes} bytes of them"
                break
            number = address >> _BLOCK_BITS
            start, content = blocks.get(number, nothing)
            at = address - start
            try:
                if not 0 <= at <= len(content) - header_bytes:
                    room_bytes -= self._load(address, header_bytes, blocks, loaded)
                    at, content = 0, memoryview(self._memory.read(address, header_bytes))
                _, older, kind, _, _, depth = unpack(content, at)
                if kind != MEM_PROFILE or depth > MAX_STACK + MAX_STACK_SLACK or address & 7:
                    truncated = f"the list is broken at {address:#x}"
                    break
                end = address + header_bytes + 8 * depth + record_bytes - 1
                if end - start >= len(content):
                    room_bytes -= self._load(address, end + 1 - address, blocks, loaded)
            except UnmappedError:
                truncated = f"the list leads to unmapped memory at {address:#x}"
                break
            except TargetGoneError:
                truncated = "the process ended while it was being read"
                break
            address = older
            count += 1
        self._extents |= {extent[0] >> _BLOCK_BITS: extent for extent, _ in loaded}
        if truncated is None:
            self._known_head = head
            self.known_buckets += count
        return loaded, truncated

    def _load(
        self,
        address: int,
        size_bytes: int,
        blocks: dict[int, tuple[int, memoryview]],
        loaded: list[tuple[Extent, bytes]],
    ) -> int:
        """Read the blocks that a range is in, unless that was done; tells how many bytes it took.

        Of a block that isn't mapped as a whole only the run of pages around the range is known, and it may have grown.
        """
        total, end = 0, address + size_bytes
        for number in range(address >> _BLOCK_BITS, (end - 1 >> _BLOCK_BITS) + 1):
            base = number << _BLOCK_BITS
            first, last = max(base, address), min(base + _BLOCK_BYTES, end)
            if number in blocks and _covers(blocks[number], first, last):
                continue
            extent, content = self._memory.readable_around(first, (base, _BLOCK_BYTES))
            blocks[number] = extent[0], memoryview(content)
            if not _covers(blocks[number], first, last):
                raise UnmappedError(f"a bucket at {address:#x} ends in unmapped memory")
            total += len(content)
            if self._extents.get(number) != extent:
                loaded.append((extent, content))
        return total


def _covers(block: tuple[int, memoryview], first: int, last: int) -> bool:
    return block[0] <= first and last <= block[0] + len(block[1])


def _blocks(extents: Sequence[Extent], data: memoryview) -> dict[int, tuple[int, memoryview]]:
    blocks, at = {}, 0
    for start, size_bytes in extents:
        blocks[start >> _BLOCK_BITS] = start, data[at : at + size_bytes]
        at += size_bytes
    return blocks


def _number(content: bytes | None) -> int | None:
    if not content:
        return None
    value: int = struct.unpack("<I" if len(content) == 4 else "<Q", content)[0]
    return value


def _cycle(value: int | None) -> int | None:
    """The number of the cycle without its flag (mProfCycleHolder); None for what can't be one."""
    return value >> 1 if value is not None and value >> 1 < CYCLE_WRAP else None
