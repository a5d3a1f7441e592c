"""The little of an ELF executable that reading a heap needs (elf(5)): segments, sections, a few symbols, the build id.

Reads in pieces, so that a large executable costs no memory in the process that watches. 64-bit little-endian only.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from sidecar.goheap.errors import GoHeapError

_PIECE_BYTES = 1 << 20
_MAX_TABLE_BYTES = 1 << 20
_MAX_SECTIONS = 4096
_MAX_NAME_BYTES = 64
_MAX_SEGMENTS = 64  # that are loaded; Go's linker makes up to six
_MAX_NOTE_BYTES = 4096
# How much one executable may cost, as bytes to look through: about a second of CPU time. It is enough for 2.5 GiB with
# a table of symbols, for 700 MiB of a stripped executable, and for 450 MiB of one without sections.
_SEARCH_BYTES = 1 << 30
# What a read and what a find cost beside that: a file may be made of what is looked for.
STEP_BYTES = 1 << 14
"""What a search is charged for a step that takes time but looks through little."""

_MACHINES = {62: "amd64", 183: "arm64"}
_PT_LOAD = 1
_SHT_SYMTAB = 2
_SHT_NOTE = 7
_SHT_NOBITS = 8
_PF_W = 2
_SYMBOL_BYTES = 24
_GNU_BUILD_ID = (4, 3, b"GNU\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of the file that is loaded at ``address`` (before any load bias)."""

    offset: int
    address: int
    file_bytes: int
    memory_bytes: int
    writable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A named part of the file."""

    name: bytes
    kind: int
    address: int
    offset: int
    size_bytes: int
    link: int


class ElfFile:
    """An executable, read through a descriptor that stays the caller's. Raises `GoHeapError` if it isn't one."""

    def __init__(self, descriptor: int, *, search_bytes: int = _SEARCH_BYTES) -> None:
        """Read the tables of segments and sections; the rest on demand.

        All searches together look through ``search_bytes`` at most; then they raise `GoHeapError`.
        """
        self._descriptor = descriptor
        self._left_bytes = self._search_bytes = search_bytes
        header = self._pread(64, 0)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            raise GoHeapError("the executable isn't a 64-bit little-endian ELF file")
        (machine,) = struct.unpack_from("<H", header, 18)
        if machine not in _MACHINES:
            raise GoHeapError(f"the executable is for ELF machine {machine}; known are amd64 and arm64")
        self.machine = _MACHINES[machine]
        segments_at, sections_at = struct.unpack_from("<QQ", header, 32)
        segment_bytes, segments, section_bytes, sections, names_index = struct.unpack_from("<5H", header, 54)
        try:
            self.segments = tuple(islice(self._segments(segments_at, segment_bytes, segments), _MAX_SEGMENTS))
            self.sections = tuple(self._sections(sections_at, section_bytes, sections, names_index))
        except struct.error as error:
            raise GoHeapError("the executable's ELF tables are cut short") from error

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Bytes of the file; fewer at its end."""
        return self._pread(size_bytes, offset)

    def loaded(self, address: int, size_bytes: int) -> Iterator[bytes]:
        """What the file has for a range of addresses, piece by piece. Raises `GoHeapError` if it hasn't all of it."""
        for segment in self.segments:
            if segment.address <= address and address + size_bytes <= segment.address + segment.file_bytes:
                self.charge(size_bytes)
                offset = segment.offset + address - segment.address
                for at in range(offset, offset + size_bytes, _PIECE_BYTES):
                    wanted_bytes = min(_PIECE_BYTES, offset + size_bytes - at)
                    piece = self._pread(wanted_bytes, at)
                    if len(piece) < wanted_bytes:
                        break
                    yield piece
                else:
                    return
        raise GoHeapError(f"the executable doesn't have {size_bytes} bytes for {address:#x}")

    def charge(self, size_bytes: int) -> None:
        """Count what a search looks through. Raises `GoHeapError` once it is too much."""
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise GoHeapError(
                f"the executable is too large to search: {self._search_bytes >> 20} MiB of it were looked through"
            )

    def section(self, *names: bytes) -> Section | None:
        """The first section of one of the names."""
        return next((section for section in self.sections if section.name in names), None)

    def start_address(self) -> int:
        """Where the beginning of the file is loaded, before any load bias."""
        address = self.address_of(0)
        if address is None:
            raise GoHeapError("the executable doesn't load its own header")
        return address

    def address_of(self, offset: int) -> int | None:
        """Where a byte of the file is loaded."""
        for segment in self.segments:
            if segment.offset <= offset < segment.offset + segment.file_bytes:
                return segment.address + offset - segment.offset
        return None

    def symbols(self, names: Iterable[bytes]) -> dict[bytes, int]:
        """Addresses of those symbols that the symbol table has; none in a stripped file. Raises `GoHeapError`."""
        table = next((section for section in self.sections if section.kind == _SHT_SYMTAB), None)
        if table is None or table.link >= len(self.sections):
            return {}
        wanted = {b"\0" + name + b"\0" for name in names}
        strings = self.sections[table.link]
        name_at = {
            offset - strings.offset + 1: needle[1:-1]
            for needle, offset in self._find_all(wanted, strings.offset, strings.size_bytes)
        }
        found: dict[bytes, int] = {}
        for piece in self._pieces(table.offset, table.size_bytes, _SYMBOL_BYTES * 32768):
            for name_offset, name in name_at.items():
                self.charge(max(len(piece), STEP_BYTES))
                found |= self._symbol_in(piece, name_offset, name)
        return found

    def find(self, needle: bytes, offset: int, size_bytes: int) -> Iterator[int]:
        """Offsets in the file where the bytes occur inside a range. Raises `GoHeapError` if that is too much work."""
        for _, at in self._find_all({needle}, offset, size_bytes):
            yield at

    def gnu_build_id(self) -> str:
        """The GNU build id in hexadecimal as runtime/pprof finds it: in a section of notes; empty if there is none."""
        for section in self.sections:
            if section.kind != _SHT_NOTE:
                continue
            content = self._pread(min(section.size_bytes, _MAX_NOTE_BYTES), section.offset)
            at = 0
            while at + 16 <= len(content):
                self.charge(STEP_BYTES)
                name_bytes, value_bytes, kind = struct.unpack_from("<III", content, at)
                value_at = at + 12 + (name_bytes + 3 & ~3)
                if (name_bytes, kind, content[at + 12 : at + 16]) == _GNU_BUILD_ID:
                    return content[value_at : value_at + value_bytes].hex()
                at = value_at + (value_bytes + 3 & ~3)
        return ""

    def _segments(self, at: int, entry_bytes: int, count: int) -> Iterator[Segment]:
        table = self._pread(min(entry_bytes * count, _MAX_TABLE_BYTES), at)
        for index in range(count if entry_bytes >= 56 else 0):
            kind, flags, offset, address, _, file_bytes, memory_bytes = struct.unpack_from(
                "<IIQQQQQ", table, index * entry_bytes
            )
            if kind == _PT_LOAD:
                yield Segment(
                    offset=offset,
                    address=address,
                    file_bytes=file_bytes,
                    memory_bytes=memory_bytes,
                    writable=bool(flags & _PF_W),
                )

    def _sections(self, at: int, entry_bytes: int, count: int, names_index: int) -> Iterator[Section]:
        if not at or entry_bytes < 64 or names_index >= count:
            return
        table = self._pread(min(entry_bytes * count, _MAX_TABLE_BYTES), at)
        names_offset, names_bytes = struct.unpack_from("<QQ", table, names_index * entry_bytes + 24)
        names = self._pread(min(names_bytes, _MAX_TABLE_BYTES), names_offset)
        for index in range(min(count, _MAX_SECTIONS)):
            name_at, kind, _, address, offset, size_bytes, link = struct.unpack_from(
                "<IIQQQQI", table, index * entry_bytes
            )
            name = names[name_at : name_at + _MAX_NAME_BYTES].partition(b"\0")[0]
            if kind != _SHT_NOBITS:
                yield Section(name=name, kind=kind, address=address, offset=offset, size_bytes=size_bytes, link=link)
            else:  # keeps the numbers of the sections after it right
                yield Section(name=name, kind=kind, address=address, offset=offset, size_bytes=0, link=link)

    def _symbol_in(self, table: bytes, name_offset: int, name: bytes) -> dict[bytes, int]:
        """The value of the symbol whose entry (st_name first, st_value at 8) names that string."""
        pattern = struct.pack("<I", name_offset)
        at = table.find(pattern)
        while at >= 0:
            self.charge(STEP_BYTES)
            if at % _SYMBOL_BYTES == 0 and at + _SYMBOL_BYTES <= len(table):
                return {name: struct.unpack_from("<Q", table, at + 8)[0]}
            at = table.find(pattern, at + 1)
        return {}

    def _find_all(self, needles: set[bytes], offset: int, size_bytes: int) -> Iterator[tuple[bytes, int]]:
        longest = max(map(len, needles), default=1)
        tail, at = b"", offset
        for piece in self._pieces(offset, size_bytes, _PIECE_BYTES):
            data, start = tail + piece, at - len(tail)
            for needle in needles:
                self.charge(max(len(data), STEP_BYTES))
                position = data.find(needle)
                while position >= 0:
                    self.charge(STEP_BYTES)
                    if position + len(needle) > len(tail):  # else the last piece had it
                        yield needle, start + position
                    position = data.find(needle, position + 1)
            at += len(piece)
            tail = data[len(data) - longest + 1 :] if longest > 1 else b""

    def _pieces(self, offset: int, size_bytes: int, piece_bytes: int) -> Iterator[bytes]:
        end = offset + size_bytes
        while offset < end:
            piece = self._pread(min(piece_bytes, end - offset), offset)
            if not piece:
                return
            yield piece
            offset += len(piece)

    def _pread(self, size_bytes: int, offset: int) -> bytes:
        try:
            return os.pread(self._descriptor, size_bytes, offset)
        except (OSError, OverflowError, ValueError) as error:
            raise GoHeapError(f"the executable can't be read at offset {offset}: {error}") from error
