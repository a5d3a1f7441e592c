"""What Go's runtime keeps where in memory, by version of Go: facts, no code. All of 64-bit little-endian machines.

Each fact names the file of Go's source tree that it comes from. They were compared for Go 1.21 to 1.27.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from sidecar.goheap.errors import UnknownLayoutError

OLDEST = (1, 21)
NEWEST = (1, 27)

# runtime/mprof.go, type bucket: next, allnext, typ, hash, size, nstk; then the stack, then the record.
BUCKET_HEADER = struct.Struct("<6Q")
MEM_PROFILE = 1
MAX_STACK = 1024  # the highest GODEBUG=profstackdepth; 1.26 and newer add 2
MAX_STACK_SLACK = 8
# runtime/mprof.go, type memRecord: the published counts and the three cycles still to be published.
FUTURES = 3

# runtime/mprof.go, mProfCycleWrap: the cycle starts anew here, as the ring of three doesn't fit a power of two.
CYCLE_WRAP = FUTURES * (2 << 24)

# internal/abi/symtab.go: numbers of the tables that each function has.
PCDATA_INLINE_TREE_INDEX = 2
FUNCDATA_INLINE_TREE = 3
# runtime/symtab.go, type _func: entryOff, nameOff, args, deferreturn, pcsp, pcfile, pcln, npcdata, cuOffset,
# startLine, funcID, flag, padding, nfuncdata; then the offsets of the tables.
FUNC = struct.Struct("<IiiIIIIIIiBBxB")
# runtime/symtabinl.go, type inlinedCall: funcID, nameOff, parentPc, startLine.
INLINED_CALL = struct.Struct("<Bxxxiii")

# runtime/symtab.go, type pcHeader, and internal/abi/symtab.go for the magic of Go 1.20 and newer: magic, padding,
# minimal size of an instruction, size of a pointer, functions, files, (textStart), offsets of the tables.
PC_HEADER = struct.Struct("<IHBBQQQQQQQQ")
PC_MAGIC = 0xFFFFFFF1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordLayout:
    """A memRecord: four cycles of ``words`` counters each. Two are counts; four are counts, then bytes."""

    name: str
    words: int

    @property
    def size_bytes(self) -> int:
        """Of the whole record."""
        return (1 + FUTURES) * self.words * 8


# runtime/mprof.go, type memRecordCycle: {allocs, frees, alloc_bytes, free_bytes} up to Go 1.26, {allocs, frees} since.
COUNTS_AND_BYTES = RecordLayout(name="counts-and-bytes", words=4)
COUNTS = RecordLayout(name="counts", words=2)
RECORD_LAYOUTS = {layout.name: layout for layout in (COUNTS_AND_BYTES, COUNTS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FuncIds:
    """Numbers of special functions (internal/abi/symtab.go)."""

    wrapper: int
    panics: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoLayout:
    """All that differs between versions. ``records`` has the only layout of a known version, or those worth a try."""

    version: tuple[int, int]
    known: bool
    records: tuple[RecordLayout, ...]
    gofunc_at: int
    func_ids: FuncIds
    hides_internal_runtime: bool
    merges_by_printed_name: bool


def layout_of(go_version: str) -> GoLayout:
    """Facts for a version like ``go1.24.3``; for a newer one than is known those of the newest, to be proven.

    Raises `UnknownLayoutError` for a version that is too old or that can't be told.
    """
    version = parse_series(go_version)
    if version is None or version < OLDEST:
        raise UnknownLayoutError(
            f"the layout of {go_version!r} isn't known: the heap of Go {OLDEST[0]}.{OLDEST[1]} or newer can be read"
        )
    known = version <= NEWEST
    if not known:
        records: tuple[RecordLayout, ...] = (COUNTS_AND_BYTES, COUNTS)
    else:
        records = (COUNTS,) if version >= (1, 27) else (COUNTS_AND_BYTES,)
    return GoLayout(
        version=version,
        known=known,
        records=records,
        gofunc_at=344 if version >= (1, 27) else 320,  # runtime/symtab.go, type moduledata
        func_ids=_func_ids(version),
        hides_internal_runtime=version >= (1, 24),  # runtime/pprof/protomem.go
        merges_by_printed_name=version < (1, 22),  # runtime/pprof/proto.go, pcDeck.tryAdd
    )


def parse_series(go_version: str) -> tuple[int, int] | None:
    """Major and minor number of a version.

    >>> parse_series("go1.24.3 X:nodwarf5"), parse_series("devel go1.28-abcdef"), parse_series("?")
    ((1, 24), (1, 28), None)
    """
    match = re.search(r"\bgo(\d{1,4})\.(\d{1,4})", go_version)
    return (int(match[1]), int(match[2])) if match else None


def _func_ids(version: tuple[int, int]) -> FuncIds:
    """gopanic, panicwrap, sigpanic and the wrappers: 1.22 added corostart, 1.25 runCleanups (one more before them)."""
    if version < (1, 22):
        return FuncIds(wrapper=21, panics=frozenset({9, 14, 18}))
    if version < (1, 25):
        return FuncIds(wrapper=22, panics=frozenset({10, 15, 19}))
    return FuncIds(wrapper=23, panics=frozenset({10, 15, 20}))


@dataclass(frozen=True, slots=True, kw_only=True)
class GcState:
    """What Go's collector knew at the moment. Bytes, but ``gc_percent`` (GOGC, -1 for off) and ``goroutines_peak``.

    ``heap_goal_bytes`` is what GOGC alone asks for, without regard to GOMEMLIMIT. ``heap_free_bytes`` are in no span
    and not given back to the kernel, ``stacks_bytes`` are goroutines' stacks; None in snapshots of earlier versions.
    """

    gc_percent: int
    memory_limit_bytes: int
    heap_goal_bytes: int | None
    heap_live_bytes: int
    heap_marked_bytes: int
    heap_in_use_bytes: int
    heap_released_bytes: int
    mapped_ready_bytes: int
    goroutines_peak: int | None = None
    heap_free_bytes: int | None = None
    stacks_bytes: int | None = None


# runtime/mgcpacer.go, type gcControllerState: the same from 1.21 to 1.27.
GC_CONTROLLER_BYTES = 320
_GC_PERCENT_AT = 0
_GC_WORDS_AT = {
    "memory_limit_bytes": 8,
    "heap_goal_bytes": 72,
    "heap_live_bytes": 104,
    "stacks_bytes": 136,
    "heap_marked_bytes": 152,
    "heap_in_use_bytes": 272,
    "heap_released_bytes": 280,
    "heap_free_bytes": 288,
    "mapped_ready_bytes": 312,
}
_NO_GOAL = (1 << 64) - 1
_ADDRESS_SPACE_BYTES = 1 << 48


def parse_gc_state(content: bytes, goroutines_peak: int | None = None) -> GcState | None:
    """Read a gcControllerState; None if it can't be one, as each of its sizes must fit the address space."""
    if len(content) < GC_CONTROLLER_BYTES:
        return None
    (percent,) = struct.unpack_from("<i", content, _GC_PERCENT_AT)
    words: dict[str, int] = {name: struct.unpack_from("<Q", content, at)[0] for name, at in _GC_WORDS_AT.items()}
    limit = words.pop("memory_limit_bytes")
    goal = words.pop("heap_goal_bytes")
    if percent < -1 or limit >= 1 << 63 or any(value >= _ADDRESS_SPACE_BYTES for value in words.values()):
        return None
    return GcState(
        gc_percent=percent,
        memory_limit_bytes=limit,
        heap_goal_bytes=None if goal == _NO_GOAL else goal,
        goroutines_peak=goroutines_peak,
        **words,
    )
