"""What a program maps beside the runtime's own memory: it isn't copied, and it may go at any time."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from pathlib import Path

import pytest

from sidecar.errors import TargetGoneError, TargetReadError
from sidecar.goheap import HeapReader, Limits, buckets, prepare, raw
from sidecar.goheap.layouts import BUCKET_HEADER, COUNTS, MEM_PROFILE
from sidecar.goheap.memory import Extent
from sidecar.goheap.module import Module
from sidecar.goheap.pages import joined
from sidecar.goheap.process_memory import PAGE_BYTES, ProcessMemory
from sidecar.goheap.snapshot import BucketReader
from sidecar.goheap.symbols import Variables
from tests.goheap.images import hole, runtime_hash
from tests.goheap.programs import NEWEST, OLDEST, Cell, Running, build

PROC = Path("/proc")
BLOCK_BYTES = 1 << 16
TEXT = "none-of-the-runtimes"
PATIENT = Limits(budget_s=60)  # on a slow machine many new stacks take longer than a crisis would allow


def pages_of(snapshot: bytes) -> tuple[set[int], set[int]]:
    """Addresses of the pages that are in a snapshot, and of those that its buckets are in."""
    program, moment, image = raw.decode(memoryview(snapshot))
    walk = buckets.walk(image, moment.roots, program.record)
    assert not walk.broken
    needed = set()
    for bucket in buckets.buckets(image, walk.addresses, program.record):
        size_bytes = BUCKET_HEADER.size + 8 * len(bucket.stack) + program.record.size_bytes
        first = bucket.address & -PAGE_BYTES
        needed |= set(range(first, bucket.address + size_bytes, PAGE_BYTES))
    extents = zip(image._starts, image._sizes, strict=True)
    return {page for start, size in extents for page in range(start, start + size, PAGE_BYTES)}, needed


def surround(program: Running, reader: HeapReader) -> None:
    """Let the program map pages beside the memory that it takes for its buckets, until some are close to them."""
    for round_ in range(1, 40):
        mapped = [int(program.tell(f"map {TEXT}"), 16) for _ in range(3)]
        program.tell(f"stacks {1000 * round_}")
        reader.refresh(PATIENT)
        ours = {page // BLOCK_BYTES for start, size in reader._buckets._extents for page in (start, start + size - 1)}
        if round_ > 3 and any(address // BLOCK_BYTES in ours for address in mapped):
            return
    pytest.fail("no page was mapped beside a bucket")


@pytest.mark.parametrize("cell", [NEWEST, OLDEST], ids=str)
def test_a_snapshot_has_nothing_but_the_pages_with_buckets(cell: Cell) -> None:
    """Neither what a refresh has learnt nor what a snapshot finds itself; whatever is mapped close to them."""
    with Running(build(cell), rate=1) as program, prepare(PROC, program.pid) as reader:
        surround(program, reader)
        for command in ("gc", "features", "stacks 50000"):
            program.tell(command)
            snapshot = reader.snapshot(PATIENT)
            assert TEXT.encode() not in snapshot
            there, needed = pages_of(snapshot)
            assert there == needed
        known = reader.known_bytes
        with prepare(PROC, program.pid) as fresh:
            fresh.refresh(PATIENT)
            assert fresh.known_bytes == known


def test_a_program_may_unmap_what_lies_beside() -> None:
    """Its heap stays readable, with all that was known."""
    with Running(build(NEWEST), rate=1) as program, prepare(PROC, program.pid) as reader:
        surround(program, reader)
        before, _ = pages_of(reader.snapshot(PATIENT))
        program.tell("unmap")
        for _ in range(3):
            after, needed = pages_of(reader.snapshot(PATIENT))
            assert after == needed >= before


def test_a_program_that_unmaps_what_was_known_is_learnt_anew() -> None:
    """Once, by the snapshot itself, as it is alive."""
    with Running(build(NEWEST), rate=1) as program, prepare(PROC, program.pid) as reader:
        program.tell("stacks 3000")
        count = reader.refresh(PATIENT)
        known = reader._buckets
        known._extents = joined((*known._extents, (int(program.tell(f"map {TEXT}"), 16), PAGE_BYTES)))
        assert TEXT.encode() in reader.snapshot(PATIENT)
        program.tell("unmap")
        there, needed = pages_of(reader.snapshot(PATIENT))
        assert there == needed
        assert reader.known_buckets >= count
        assert pages_of(reader.snapshot(PATIENT))[0] >= there


def test_a_program_that_loses_its_memory_as_it_ends_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes the pages before the process is gone: nothing is learnt anew of it, and nothing is made up."""
    with Running(build(NEWEST), rate=1) as program, prepare(PROC, program.pid) as reader:
        program.tell("unmap")
        known, look = reader._buckets, ProcessMemory.read_extents
        known._extents = joined((*known._extents, (PAGE_BYTES, PAGE_BYTES)))

        def end_after(memory: ProcessMemory, extents: tuple[Extent, ...]) -> memoryview:
            try:
                return look(memory, extents)
            finally:
                program.kill()

        monkeypatch.setattr(ProcessMemory, "read_extents", end_after)
        with pytest.raises(TargetGoneError):
            reader.snapshot(PATIENT)


def test_a_bucket_may_lie_anywhere_and_end_nowhere() -> None:
    """Across two blocks it is whole; where its end isn't mapped the snapshot has what is, and says so."""
    room = mmap.mmap(-1, 3 * BLOCK_BYTES)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    first_block = (start + BLOCK_BYTES) // BLOCK_BYTES * BLOCK_BYTES
    stack = (1, 2, 3)
    across, cut = first_block + BLOCK_BYTES - 24, first_block + PAGE_BYTES - 64
    for at, older in ((across, 0), (cut, across)):
        header = BUCKET_HEADER.pack(0, older, MEM_PROFILE, runtime_hash((*stack, 8)), 8, len(stack))
        content = header + struct.pack("<3Q", *stack) + struct.pack("<8Q", 5, 2, *(0,) * 6)
        room[at - start : at - start + len(content)] = content
    variables = struct.pack("<QQ", across, 1)
    room[: len(variables)] = variables
    names = {"prof_cycle": None, "gc_controller": None, "allglen": None}
    memory = ProcessMemory(PROC, os.getpid())
    known = dict.fromkeys(Module.__dataclass_fields__, 0) | {"initialized": (), "zeroed": ()}
    program = raw.Program(
        go_version="go1.27", go_build_id=None, record=COUNTS, bias=0, module=Module.from_json(known), mappings=()
    )
    reader = BucketReader(memory, program, Variables(mbuckets=start, mem_profile_rate=start + 8, **names), start)
    there, needed = pages_of(b"".join(reader.snapshot(Limits())))
    boundary = first_block + BLOCK_BYTES
    assert there == needed == {boundary - PAGE_BYTES, boundary}
    room[:8] = struct.pack("<Q", cut)
    with hole(cut + 64):
        _, moment, image = raw.decode(memoryview(b"".join(reader.snapshot(Limits()))))
        assert moment.truncated is not None
        assert "unmapped" in moment.truncated
        assert list(buckets.walk(image, moment.roots, COUNTS).addresses) == [across]
    memory.close()


def test_a_snapshot_without_any_bucket_of_many_is_an_error() -> None:
    """Nothing was known, and no time is left to learn: no empty profile."""
    with Running(build(NEWEST), rate=1) as program, prepare(PROC, program.pid) as reader:
        program.tell("stacks 3000")
        reader._buckets._forget()
        with pytest.raises(TargetReadError, match="budget"):
            reader.snapshot(Limits(budget_s=0))
        assert pages_of(reader.snapshot(PATIENT))[0]
