"""Snapshots of live programs: while they change, end, run something else, or keep no profile."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.core.model import GoProgram
from sidecar.errors import ASK_CHECK, NotPermittedError, TargetGoneError
from sidecar.goheap import GoHeapError, Limits, ProfilingOffError, UnknownLayoutError, buckets, layouts, prepare, raw
from sidecar.goheap import reader as reader_module
from sidecar.goheap.process_memory import ProcessMemory
from tests.goheap.conftest import Decode
from tests.goheap.programs import CELLS, NEWEST, OLDEST, Cell, Running, build

PROC = Path("/proc")


def walked(snapshot: bytes) -> tuple[buckets.Walk, raw.Program, raw.Moment, raw.Image]:
    """A raw snapshot and the buckets in it."""
    program, moment, image = raw.decode(memoryview(snapshot))
    return buckets.walk(image, moment.roots, program.record), program, moment, image


@pytest.mark.parametrize("cell", [NEWEST, OLDEST], ids=str)
def test_a_prepared_reader_sees_buckets_that_came_later(cell: Cell) -> None:
    """New stacks are found behind the new head, known ones by memory; the same as a fresh reader finds."""
    with Running(build(cell), rate=1) as program, prepare(PROC, program.pid) as reader:
        counts = []
        for command in ("stacks 3000", "features", "stacks 6000"):
            program.tell(command)
            mine, *_ = walked(reader.snapshot())
            with prepare(PROC, program.pid) as fresh:
                theirs, *_ = walked(fresh.snapshot())
            # New ones are at the head, and the runtime may have added one between the two readings.
            assert list(mine.addresses) == list(theirs.addresses)[-len(mine.addresses) :]
            assert len(theirs.addresses) - len(mine.addresses) < 10
            assert not mine.dropped
            assert not mine.broken
            counts.append(len(mine.addresses))
        assert counts[0] > 3000
        assert counts[2] > counts[1] + 2900
        assert reader.refresh() == counts[2]


@pytest.mark.parametrize("cell", [NEWEST, OLDEST], ids=str)
def test_a_busy_program_gives_sound_snapshots(cell: Cell) -> None:
    """Nothing is dropped while goroutines allocate and collections run, and totals stay near the live heap."""
    with Running(build(cell), gogc="100") as program, prepare(PROC, program.pid) as reader:
        program.tell("leak 100 1000000")
        program.begin("churn 1500")
        for _ in range(100):
            walk, read, moment, image = walked(reader.snapshot())
            assert not walk.broken
            assert walk.dropped <= 1
            live = sum(
                buckets.scale(allocs - frees, bucket.size_bytes, moment.rate)[1]
                for bucket in buckets.buckets(image, walk.addresses, read.record)
                for allocs, frees in [bucket.newest()]
            )
            assert moment.gc is not None
            assert live > moment.gc.heap_live_bytes / 3


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_collectors_state_is_what_the_program_says(cell: Cell) -> None:
    """GOGC, limit, goal and sizes agree with runtime.MemStats."""
    with Running(build(cell), gogc="70") as program, prepare(program.proc, program.pid) as reader:
        program.tell("limit 987654321", "leak 30 1000000", "gc")
        state = reader.gc_state()
        alloc, in_use, released, goal = map(int, program.tell("stats").split())
    assert state is not None
    assert (state.gc_percent, state.memory_limit_bytes) == (70, 987654321)
    assert state.heap_goal_bytes == goal
    assert abs(state.heap_live_bytes - alloc) < 1 << 20
    assert abs(state.heap_in_use_bytes - in_use) < 1 << 20
    assert abs(state.heap_released_bytes - released) < 8 << 20
    assert state.mapped_ready_bytes > in_use


@pytest.mark.parametrize("cell", [NEWEST, Cell("1.21", "plain")], ids=str)
def test_a_program_without_a_heap_profile_is_said_to_have_none(cell: Cell) -> None:
    """Whether nothing links the profile in or the rate was set to 0: an exception of its own, no empty profile."""
    with Running(build(cell, "silent")) as program, pytest.raises(ProfilingOffError, match="MemProfileRate"):
        prepare(PROC, program.pid)
    with Running(build(cell), rate=0) as program, pytest.raises(ProfilingOffError):
        prepare(PROC, program.pid)
    with Running(build(cell)) as program, prepare(PROC, program.pid) as reader:
        program.tell("rate 0")
        with pytest.raises(ProfilingOffError):
            reader.snapshot()


def test_a_program_that_has_ended_is_gone() -> None:
    """Killed after it was prepared, or never there."""
    with Running(build(NEWEST)) as program, prepare(PROC, program.pid) as reader:
        program.kill()
        with pytest.raises(TargetGoneError):
            reader.snapshot()
        with pytest.raises(TargetGoneError):
            prepare(PROC, program.pid)


def test_a_program_that_ends_while_it_is_read_still_gives_what_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kill comes in the middle: the pages that were read by then are the snapshot."""
    with Running(build(NEWEST), rate=1) as program, prepare(PROC, program.pid) as reader:
        program.tell("stacks 3000")
        known = reader.refresh()
        program.tell("stacks 9000")
        look = ProcessMemory.read_pages

        def die_first(memory: ProcessMemory, start: int, size_bytes: int) -> tuple[bytes, frozenset[int]]:
            program.kill()
            return look(memory, start, size_bytes)

        monkeypatch.setattr(ProcessMemory, "read_pages", die_first)
        walk, _, moment, _ = walked(reader.snapshot())
        assert moment.truncated is not None
        assert "ended" in moment.truncated
        assert len(walk.addresses) >= known
        with pytest.raises(TargetGoneError):
            reader.snapshot()


def test_after_an_exec_the_program_is_gone() -> None:
    """The same process and even the same executable: what was known of the old image says nothing of the new one."""
    with Running(build(NEWEST)) as program, prepare(PROC, program.pid) as reader:
        reader.snapshot()
        assert program.tell("exec") == "ready"
        with pytest.raises(TargetGoneError, match="another program"):
            reader.snapshot()
        with prepare(PROC, program.pid) as again:
            assert again.snapshot()


def test_a_dead_programs_snapshot_can_be_encoded_from_the_open_executable(decode: Decode, tmp_path: Path) -> None:
    """The container's file system may be gone with it; the descriptor keeps the file."""
    path = tmp_path / "program"
    path.write_bytes(build(NEWEST).read_bytes())
    path.chmod(0o755)
    with Running(path) as program, prepare(PROC, program.pid) as reader:
        program.tell("leak 50 1000000")
        snapshot = reader.snapshot()
        path.unlink()
        program.kill()
        profile = decode(snapshot, Path(f"/dev/fd/{reader.executable}"), "newest")
    assert profile.by_function("inuse_space")["main.leak"] > 25_000_000


def test_memory_is_read_through_proc_where_process_vm_readv_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seccomp profiles do; the other door gives the same."""

    def refuse(*_: object) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1

    with Running(build(NEWEST), rate=1) as program:
        program.tell("stacks 2000", "features")
        with prepare(PROC, program.pid) as reader:
            one, *_ = walked(reader.snapshot())
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: type("Library", (), {"process_vm_readv": refuse}))
        with prepare(PROC, program.pid) as reader:
            assert reader._memory._mem is None or os.fstat(reader._memory._mem)
            other, *_ = walked(reader.snapshot())
            assert list(one.addresses) == list(other.addresses)
            program.kill()
            with pytest.raises(TargetGoneError):
                reader.snapshot()
            with pytest.raises(TargetGoneError):
                reader._memory.read(one.addresses[0], 8)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_users_program_is_not_permitted(tmp_path: Path) -> None:
    """The refusal of the kernel is an error that names the remedy."""
    tmp_path.chmod(0o755)
    script = (
        "import os, sys; from pathlib import Path; from sidecar.goheap import prepare; from sidecar.errors import *\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: prepare(Path('/proc'), int(sys.argv[1]))\n"
        "except NotPermittedError as error: print(error)\n"
    )
    with Running(build(NEWEST)) as program:
        done = subprocess.run(
            [sys.executable, "-c", script, str(program.pid)], capture_output=True, text=True, check=True
        )
    assert ASK_CHECK in done.stdout


def test_refused_memory_is_not_permitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both doors closed, even if the rest of the process is visible."""

    def refuse(*_: object) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: type("Library", (), {"process_vm_readv": refuse}))
    memory = ProcessMemory(tmp_path, os.getpid())
    (tmp_path / str(os.getpid())).mkdir()
    monkeypatch.setattr(os, "open", _deny)
    with pytest.raises(NotPermittedError, match=ASK_CHECK):
        memory.read(1 << 20, 8)
    memory.close()


def _deny(*_: object, **__: object) -> int:
    raise PermissionError(errno.EACCES, "denied")


def test_what_is_not_a_go_program_is_refused() -> None:
    """Python isn't."""
    with pytest.raises(GoHeapError, match="isn't a Go program"):
        prepare(PROC, os.getpid())


@pytest.mark.parametrize("cell", [NEWEST, Cell("1.27", "cgo")], ids=str)
def test_a_newer_go_is_read_once_it_proves_to_be_alike(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes, sums and the size of the live heap decide which layout it has."""
    monkeypatch.setattr(reader_module, "read_go_program", lambda *_: GoProgram(go_version="go1.99", build_id=None))
    with Running(build(cell)) as program:
        program.tell("leak 300 1000000", "gc")
        with prepare(PROC, program.pid) as reader:
            _, read, *_ = walked(reader.snapshot())
    assert read.record is layouts.COUNTS


@pytest.mark.parametrize(
    ("cell", "pretended", "record"),
    [(NEWEST, "go1.26", layouts.COUNTS_AND_BYTES), (OLDEST, "go1.99", layouts.COUNTS)],
    ids=str,
)
def test_a_wrong_layout_is_refused(
    cell: Cell, pretended: str, record: layouts.RecordLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read as the other version would have it, the counters don't add up: better no profile than a wrong one.

    In one program of ten or so they happen to look right.
    """
    wrong = dataclasses.replace(layouts.layout_of(pretended), records=(record,))
    monkeypatch.setattr(reader_module, "layout_of", lambda _: wrong)
    refusals = 0
    for _ in range(8):
        with Running(build(cell)) as program:
            program.tell("leak 300 1000000", "gc", "leak 300 1000000")
            try:
                prepare(PROC, program.pid).close()
            except UnknownLayoutError:
                refusals += 1
    assert refusals >= 3


def test_a_snapshot_keeps_within_its_limits() -> None:
    """What is over is left out, newest first, and the snapshot says why; the next one has it all."""
    with Running(build(NEWEST), rate=1) as program, prepare(PROC, program.pid) as reader:
        program.tell("stacks 20000")
        walk, _, moment, _ = walked(reader.snapshot(Limits(budget_s=0)))
        assert moment.truncated is not None
        assert "budget" in moment.truncated
        assert len(walk.addresses) < 20000
        walk, _, moment, _ = walked(reader.snapshot(Limits(max_bytes=1 << 20)))
        assert moment.truncated is not None
        walk, _, moment, _ = walked(reader.snapshot())
        assert moment.truncated is None
        assert len(walk.addresses) > 20000


def test_a_snapshot_is_written_without_a_copy() -> None:
    """The file gets the same bytes as a caller would."""
    with Running(build(NEWEST), rate=1) as program, prepare(PROC, program.pid) as reader:
        program.tell("stacks 100", "gc")
        file = io.BytesIO()
        assert reader.write_snapshot(file) == len(file.getvalue())
        walk, *_ = walked(file.getvalue())
        assert len(walk.addresses) > 100


def open_descriptors() -> int:
    """How many we have."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_are_given_back() -> None:
    """A reader of a program that comes and goes leaves nothing open."""
    with Running(build(NEWEST)) as program:
        before = open_descriptors()
        for _ in range(3):
            reader = prepare(PROC, program.pid)
            reader.close()
            reader.close()
        assert open_descriptors() == before
