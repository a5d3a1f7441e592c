"""The file form of a raw snapshot: a line of magic, a header in JSON, then pieces of memory as they were. Pure.

It holds all that making a profile of it needs except the executable, so it can be made at leisure, by another process.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sidecar.goheap.errors import GoHeapError
from sidecar.goheap.layouts import RECORD_LAYOUTS, GcState, RecordLayout
from sidecar.goheap.memory import Extent, UnmappedError
from sidecar.goheap.module import Module

MAGIC = b"go-heap-buckets 1\n"
_LENGTH = struct.Struct("<I")
_MAX_HEADER_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """An executable mapping of the process, as ``pprof`` wants it."""

    start: int
    end: int
    offset: int
    path: str
    build_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What doesn't change while a program runs. ``go_build_id`` tells whether an executable is the right one.

    Where it has none, ``functions_sha256`` does (`module.functions_sha256`).
    """

    go_version: str
    go_build_id: str | None
    record: RecordLayout
    bias: int
    module: Module
    mappings: tuple[Mapping, ...]
    functions_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What was read beside the buckets.

    ``roots`` are heads of the list of buckets: the newest one, then one that was known before, from which the list goes
    on should the part between them be broken. ``cycle`` is mProfCycle; None where it couldn't be told or changed.
    """

    taken_at_ns: int
    roots: tuple[int, ...]
    rate: int
    cycle: int | None
    gc: GcState | None
    truncated: str | None


class Image:
    """Pieces of a process's memory at one moment."""

    def __init__(self, extents: Sequence[Extent], data: memoryview) -> None:
        """``data`` has the pieces one after the other. Raises `GoHeapError` if it is shorter than they are."""
        order = sorted(range(len(extents)), key=lambda index: extents[index])
        offsets, total = [], 0
        for _, size_bytes in extents:
            offsets.append(total)
            total += size_bytes
        if total > len(data) or any(size_bytes < 0 for _, size_bytes in extents):
            raise GoHeapError(f"the raw snapshot is cut short: {len(data)} of {total} bytes of memory")
        self._starts = [extents[index][0] for index in order]
        self._sizes = [extents[index][1] for index in order]
        self._offsets = [offsets[index] for index in order]
        self._data = data

    def read(self, address: int, size_bytes: int) -> bytes:
        """Exactly that many bytes, also across neighbouring pieces; raises `UnmappedError` if they aren't all here."""
        found = b""
        while True:
            last = bisect_right(self._starts, address) - 1
            for index in range(last, max(last - 2, -1), -1):  # in older snapshots a piece may be here twice
                inside = address - self._starts[index]
                if inside < self._sizes[index]:
                    break
            else:
                raise UnmappedError(f"the snapshot has no memory at {address:#x}")
            at, here = self._offsets[index] + inside, min(size_bytes, self._sizes[index] - inside)
            found += self._data[at : at + here]
            if here == size_bytes:
                return found
            address += here
            size_bytes -= here


def encode_head(program: Program, moment: Moment, extents: Sequence[Extent]) -> bytes:
    """All that comes before the memory."""
    document = {
        "program": {**asdict(program), "record": program.record.name},
        "moment": asdict(moment),
        "extents": list(extents),
    }
    header = json.dumps(document, separators=(",", ":")).encode()
    return MAGIC + _LENGTH.pack(len(header)) + header


def decode(raw: memoryview) -> tuple[Program, Moment, Image]:
    """Read a raw snapshot back. Raises `GoHeapError` for anything else."""
    if bytes(raw[: len(MAGIC)]) != MAGIC:
        raise GoHeapError("not a raw snapshot of a Go heap")
    start = len(MAGIC) + _LENGTH.size
    try:
        (length,) = _LENGTH.unpack_from(raw, len(MAGIC))
        if not 0 < length <= min(_MAX_HEADER_BYTES, len(raw) - start):
            raise GoHeapError("the raw snapshot is cut short")
        document = json.loads(bytes(raw[start : start + length]))
        program, moment = _program(document["program"]), _moment(document["moment"])
        extents = [(int(address), int(size_bytes)) for address, size_bytes in document["extents"]]
    except (struct.error, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise GoHeapError(f"the header of the raw snapshot is broken: {error!r}") from error
    return program, moment, Image(extents, raw[start + length :])


def _program(document: dict[str, Any]) -> Program:
    build_id, digest = document["go_build_id"], document.get("functions_sha256")
    return Program(
        go_version=str(document["go_version"]),
        go_build_id=None if build_id is None else str(build_id),
        record=RECORD_LAYOUTS[document["record"]],
        bias=int(document["bias"]),
        module=Module.from_json(document["module"]),
        mappings=tuple(
            Mapping(
                start=int(entry["start"]),
                end=int(entry["end"]),
                offset=int(entry["offset"]),
                path=str(entry["path"]),
                build_id=str(entry["build_id"]),
            )
            for entry in document["mappings"]
        ),
        functions_sha256=None if digest is None else str(digest),
    )


def _moment(document: dict[str, Any]) -> Moment:
    cycle, gc, truncated = document["cycle"], document["gc"], document["truncated"]
    return Moment(
        taken_at_ns=int(document["taken_at_ns"]),
        roots=tuple(int(root) for root in document["roots"]),
        rate=int(document["rate"]),
        cycle=None if cycle is None else int(cycle),
        gc=None if gc is None else GcState(**gc),
        truncated=None if truncated is None else str(truncated),
    )
