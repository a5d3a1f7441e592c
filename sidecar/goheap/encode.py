"""Makes a pprof profile of a raw snapshot, with the executable at hand.

Not for the process that watches: it takes seconds and tens of megabytes. ``python -m sidecar.goheap encode`` does it in
a process of its own.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sidecar.errors import UnreadableExecutableError
from sidecar.goheap import buckets, raw
from sidecar.goheap.buckets import View
from sidecar.goheap.elf import ElfFile
from sidecar.goheap.errors import GoHeapError
from sidecar.goheap.frames import Frame
from sidecar.goheap.layouts import PC_HEADER, PC_MAGIC, GcState, layout_of
from sidecar.goheap.module import functions_sha256
from sidecar.goheap.pclntab import LineTable
from sidecar.goheap.profile import ProfileWriter
from sidecar.goheap.proof import prove_totals
from sidecar.goheap.turnover import Turnover
from sidecar.kernel.go_executable import parse_go_program

_NEWEST_COMMENT = "read from the program's memory: includes what was allocated and freed since the last collections"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What became of a snapshot. ``dropped`` buckets were damaged; ``truncated`` says why others are missing.

    ``gc`` is what the collector knew when it was taken, ``turnover`` what the profile's stacks have freed so far.
    """

    samples: int
    dropped: int
    truncated: str | None
    gc: GcState | None
    turnover: Turnover


def encode(snapshot: Path, executable: Path, out: BinaryIO, view: View = "newest") -> Encoded:
    """Write the profile of a raw snapshot, gzipped, to ``out``.

    Raises `GoHeapError` if the snapshot is damaged beyond use, the executable isn't the one it was taken of, or the
    published view is asked for and can't be told; `OSError` if a file can't be read or written.
    """
    with snapshot.open("rb") as file, executable.open("rb") as binary:
        program, moment, image = raw.decode(memoryview(_map(file)))
        layout = layout_of(program.go_version)
        symbols = _Symbols(LineTable(_Executable(binary, program), program.module, layout), program.bias)
        if not layout.known:
            prove_totals(program, moment, image)
        walk = buckets.walk(image, moment.roots, program.record)
        cycle = _cycle(view, moment)
        everything = view == "newest" or _nothing_is_published(image, walk, program, cycle)
        writer = ProfileWriter(
            out.write,
            symbols,
            program.mappings,
            hidden_prefixes=("runtime.", "internal/runtime/") if layout.hides_internal_runtime else ("runtime.",),
            merges_by_printed_name=layout.merges_by_printed_name,
        )
        truncated = moment.truncated or ("the list of buckets is broken" if walk.broken else None)
        comments = [_NEWEST_COMMENT] if view == "newest" else []
        if truncated:
            comments.append(f"incomplete: {truncated}")
        writer.begin(rate=moment.rate, taken_at_ns=moment.taken_at_ns, comments=comments)
        turnover = Turnover()
        for bucket in buckets.buckets(image, walk.addresses, program.record):
            allocs, frees = bucket.newest() if everything else bucket.published(cycle)
            turnover.add(allocs=allocs, frees=frees, size_bytes=bucket.size_bytes, rate=moment.rate)
            writer.sample(
                bucket.stack,
                (
                    *buckets.scale(allocs, bucket.size_bytes, moment.rate),
                    *buckets.scale(allocs - frees, bucket.size_bytes, moment.rate),
                ),
                bucket.size_bytes if allocs or program.record.words == 2 else 0,
            )
        writer.finish()
    return Encoded(
        samples=len(walk.addresses), dropped=walk.dropped, truncated=truncated, gc=moment.gc, turnover=turnover
    )


def _cycle(view: View, moment: raw.Moment) -> int:
    if moment.cycle is None and view == "published":
        raise GoHeapError("what was published can't be told: the cycle of the profile changed or isn't known")
    return moment.cycle or 0


def _nothing_is_published(image: raw.Image, walk: buckets.Walk, program: raw.Program, cycle: int) -> bool:
    """Before the first collections the runtime shows everything (``memProfileInternal``)."""
    found = buckets.buckets(image, walk.addresses, program.record)
    return not any(any(bucket.published(cycle)) for bucket in found)


def _map(file: BinaryIO) -> mmap.mmap | bytes:
    """The file's content; not copied, so that the kernel can take the pages back."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b""


class _Executable:
    """The loaded parts of an executable."""

    def __init__(self, file: BinaryIO, program: raw.Program) -> None:
        elf = ElfFile(file.fileno())
        self._segments = [(s.address, s.address + s.file_bytes, s.offset - s.address) for s in elf.segments]
        content = _map(file)
        self._content = content
        self._view = memoryview(content)
        try:
            found = parse_go_program(file)
        except (OSError, UnreadableExecutableError) as error:  # a section that lies nowhere
            raise GoHeapError(f"{file.name} is a broken executable: {error}") from error
        if found is None or (found.go_version, found.build_id) != (program.go_version, program.go_build_id):
            raise GoHeapError(f"{file.name} isn't the executable that the snapshot was taken of")
        try:
            data, at = self.at(program.module.pclntab)
            header = PC_HEADER.unpack(data[at : at + PC_HEADER.size])
        except (IndexError, ValueError) as error:
            raise GoHeapError(f"{file.name} has no table of functions where the snapshot says") from error
        if (header[0], header[4]) != (PC_MAGIC, program.module.functions):
            raise GoHeapError(f"{file.name} has another table of functions than the snapshot says")
        if program.functions_sha256 not in (None, functions_sha256(elf, program.module)):
            raise GoHeapError(
                f"{file.name} is another build of the program than the one that the snapshot was taken of"
            )

    def at(self, address: int) -> tuple[memoryview, int]:
        """The file's content and the index in it of the byte at an address."""
        for start, end, shift in self._segments:
            if start <= address < end and address + shift < len(self._view):
                return self._view, address + shift
        raise IndexError(address)

    def until_nul(self, address: int, max_bytes: int) -> bytes:
        """The bytes before the next NUL."""
        _, at = self.at(address)
        end = self._content.find(b"\0", at, at + max_bytes)
        return self._content[at : end if end >= 0 else at]


class _Symbols:
    """A line table for addresses of the process: they are linked ones plus the load bias."""

    def __init__(self, table: LineTable, bias: int) -> None:
        self._table, self._bias = table, bias

    def frame(self, return_pc: int) -> Frame | None:
        found = self._table.frame(return_pc - self._bias)
        if found is None or not self._bias:
            return found
        return Frame(
            found.pc + self._bias,
            found.name,
            found.file,
            found.line,
            found.start_line,
            found.entry,
            inlined=found.inlined,
        )

    def name(self, pc: int) -> str | None:
        return self._table.name(pc - self._bias)

    def expand_last(self, return_pc: int) -> list[int]:
        return [pc + self._bias for pc in self._table.expand_last(return_pc - self._bias)]
